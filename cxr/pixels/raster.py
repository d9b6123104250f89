"""PNG and JPEG to grey levels, within the memory that the header's size allows."""

import struct
import zlib

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.pixels.header import PNG_CHUNKS, Header, accepted_header

MAX_CHUNKS = 100_000  # of a PNG; each costs the decoder time, however empty
MAX_SCANS = 100  # of a progressive JPEG, each over all pixels; encoders make about ten
INFLATION = 1032  # times, the most that deflate reaches
WORTH_COUNTING = 2 << 30  # bytes that a PNG could inflate to in 4 s: only above are they counted beforehand
PIECE = 1 << 16  # bytes
PNG_TEXTS = (b"zTXt", b"iTXt", b"iCCP")


def load_raster(data: bytes, max_megapixels: float) -> np.ndarray:
    """Read one PNG or JPEG as uint8 (height, width) of its whole size. Raises ImageError as `load_radiograph`."""
    header = accepted_header(data, max_megapixels)
    if header.format == "DICOM":
        raise ImageError("a DICOM file; PNG or JPEG is expected")
    return decode_raster(data, header, min(header.width, header.height))


def decode_raster(data: bytes, header: Header, size: int) -> np.ndarray:
    """uint8 (height, width) of a PNG, or of a JPEG, which may be made smaller on the way, down to twice `size`.

    Raises ImageError where it cannot be decoded.
    """
    if header.format == "JPEG":
        _check_jpeg(data)
        flags = jpeg_scale(min(header.width, header.height), size)
    else:
        _check_png(data, header)
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if header.bits > 8 else 0)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"the {header.format} data cannot be decoded ({error.err})") from None
    if pixels is None:
        raise ImageError(f"the {header.format} data cannot be decoded")
    return pixels if pixels.dtype == np.uint8 else _to_uint8(pixels)


def _check_jpeg(data: bytes) -> None:
    """Raise ImageError for a file that is cut off, or has a scan bomb's number of scans."""
    # 0xFF is never bare inside entropy-coded data, so the last scan of a whole file is followed by an end marker
    end = data.rfind(b"\xff\xd9")
    if end < 0 or data.find(b"\xff\xda", end) >= 0:
        raise ImageError(f"the JPEG file is truncated at {len(data)} bytes")
    scan = end
    for _ in range(MAX_SCANS + 1):
        scan = data.rfind(b"\xff\xda", 0, scan)  # half the time of `count`
        if scan < 0:
            return
    raise ImageError(f"the JPEG file holds more than {MAX_SCANS} scans")


def _check_png(data: bytes, header: Header) -> None:
    """Raise ImageError for a file that is cut off, holds several images, or inflates to more than its pixels.

    OpenCV allocates what a chunk claims, up to 2 GB, before it looks, and inflates pixel data to its end.
    """
    place, packed, text_bytes = PNG_CHUNKS, [], 0
    for _ in range(MAX_CHUNKS):
        if place + 12 > len(data):
            raise ImageError(f"the PNG file is truncated at {len(data)} bytes")
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IEND":
            break
        if kind == b"acTL":
            raise ImageError("the PNG file is an animation; one radiograph is expected")
        if kind == b"IDAT":
            packed.append(memoryview(data)[place + 8 : place + 8 + length])
        elif kind in PNG_TEXTS:
            text_bytes += length
        place += 12 + length
    else:
        raise ImageError(f"the PNG file holds more than {MAX_CHUNKS} chunks")
    if INFLATION * text_bytes > WORTH_COUNTING:
        raise ImageError(f"the PNG file holds {text_bytes} bytes of packed text and profiles")
    # four samples of two bytes a pixel and a filter byte a row are the most, interlaced twice as many rows
    pixel_bytes = header.height * (8 * header.width + 2)
    if INFLATION * sum(map(len, packed)) > WORTH_COUNTING + pixel_bytes and _inflated_beyond(packed, pixel_bytes):
        raise ImageError(f"the PNG file inflates to more than its {header.width}x{header.height} pixels")


def _inflated_beyond(packed: list[memoryview], limit: int) -> bool:
    """Whether packed pixels inflate to more than `limit` bytes; nothing is kept, and no more is inflated."""
    inflate = zlib.decompressobj()
    inflated = 0
    try:
        for piece in packed:
            for start in range(0, len(piece), PIECE):
                rest = piece[start : start + PIECE]
                while rest and not inflate.eof:
                    inflated += len(inflate.decompress(rest, 16 * PIECE))
                    rest = inflate.unconsumed_tail
                    if inflated > limit:
                        return True
    except zlib.error:  # the decoder says so too
        pass
    return False


def jpeg_scale(shorter_side: int, size: int) -> int:
    """The JPEG decoder's own down-scaling, kept at twice the target so that area resampling has pixels to average."""
    for factor, flag in (
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    ):
        if shorter_side >= 2 * size * factor:
            return flag
    return cv2.IMREAD_GRAYSCALE


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Stretch uint16 values to 0-255 by their own range: how many bits are used is not told reliably."""
    low, high = float(pixels.min()), float(pixels.max())
    grey = np.round((np.arange(1 << 16, dtype=np.float32) - low) * (255 / max(high - low, 1)))
    return cv2.LUT(pixels, np.clip(grey, 0, 255).astype(np.uint8))
