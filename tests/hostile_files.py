"""Files that lie, made for tests: archives, PNGs and JPEGs that claim what they do not hold."""

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"


def zeros(n: int) -> bytes:
    """`n` MiB of zeros as a zlib stream, a thousandth of that; the same block again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    check_sum = struct.pack(">HH", (n << 20) % 65521, 1)  # Adler-32 of zeros
    return b"\x78\xda" + block * n + packer.flush() + check_sum


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(width: int, height: int, *before: bytes, pixels: bytes | None = None, after: bytes = b"") -> bytes:
    """A grey PNG of zeros, with chunks `before` its pixels and `after` them; `pixels`: what lies in their place."""
    packed = zlib.compress(bytes(height * (width + 1))) if pixels is None else pixels
    return png_of(width, height, 8, 0, b"".join(before) + chunk(b"IDAT", packed) + after)


def png_of(width: int, height: int, depth: int, colour: int, chunks: bytes, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return PNG_START + chunk(b"IHDR", header) + chunks + chunk(b"IEND")


def interlaced_png(pixels: np.ndarray) -> bytes:
    """uint8 (height, width) in the seven passes of Adam7 (PNG, section 8.2)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row for y, x, down, across in passes for row in pixels[y::down, x::across] if row.size]
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return png_of(pixels.shape[1], pixels.shape[0], 8, 0, chunk(b"IDAT", packed), interlace=1)


def pillow_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def progressive_jpeg(side: int, scans: int) -> bytes:
    """A black progressive JPEG whose last scan stands there `scans` times."""
    data = pillow_bytes(Image.fromarray(np.zeros((side, side), np.uint8)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def zip64_of(name: str, data: bytes) -> bytes:
    """As zips beyond 4 GB are written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(data)
    return buffer.getvalue()


def zip_with(member: zipfile.ZipInfo, data: bytes = b"data") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, data)
    return buffer.getvalue()


def patched_zip(data: bytes, place: int, value: bytes) -> bytes:
    """A zip whose every directory entry holds `value` at `place`, as a liar's would."""
    changed = bytearray(data)
    start = 0
    while (start := data.find(b"PK\1\2", start)) >= 0:
        changed[start + place : start + place + len(value)] = value
        start += 4
    return bytes(changed)


def tar_of(members: dict[str, bytes], kind: str = "w:gz") -> bytes:
    return tar_with([(tarfile.TarInfo(name), data) for name, data in members.items()], kind)


def tar_with(members: list[tuple[tarfile.TarInfo, bytes]], kind: str = "w:gz") -> bytes:
    """Each header with its bytes, even of a kind that holds none."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=kind, format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def tar_number(value: int) -> bytes:
    """12 bytes: octal, or base 256 where that does not hold it."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\xff" if value < 0 else b"\x80") + value.to_bytes(11, "big", signed=True)


def resized_tar(data: bytes, size: int) -> bytes:
    """A plain tar whose first header claims `size` bytes, with a right check sum."""
    header = bytearray(data[:512])
    header[124:136] = tar_number(size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]
