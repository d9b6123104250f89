"""What a file says of itself before a pixel is decoded: its format, its size and its depth."""

import struct
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from PIL import Image
from pydicom import Dataset

from cxr.errors import ImageError
from cxr.pixels.dicom import is_dicom, read_dicom
from cxr.pixels.stated import NOTHING, Stated, read_stated

EXIF_ORIENTATION = 274

MIN_SIDE = 32  # pixels; icons and 1 x 1 placeholders show no lung
PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_CHUNKS = 33  # place of the first chunk after the header
PNG_PALETTE = 3  # colour type whose depth is that of an index

# How files begin that are met under the names of images
KINDS = (
    (b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"RIFF", "WebP"), (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"PK", "a zip archive"),
    (b"\x1f\x8b", "packed by gzip"), (b"version https://git-lfs", "a Git LFS pointer (git lfs pull brings the file)"),
    (b"\0\5\x16\7", "what macOS notes beside a file"), (b"<", "a web page, SVG or other XML"),
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of itself before a pixel is decoded: pixels and bits per sample, and of its film (`stated`).

    `dicom`: its elements, to decode the pixels from without reading them once more.
    """

    format: Literal["PNG", "JPEG", "DICOM"]
    width: int
    height: int
    bits: int
    stated: Stated = NOTHING
    dicom: Dataset | None = field(default=None, compare=False, repr=False)


def accepted_header(data: bytes, max_megapixels: float) -> Header:
    """The header of a file that may be decoded. Raises ImageError as `read_header`, and for too few or many pixels."""
    header = read_header(data)
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError(f"{header.width}x{header.height} pixels: a side of less than {MIN_SIDE} is refused")
    if header.width * header.height > max_megapixels * 1e6:
        raise ImageError(f"{header.width}x{header.height} pixels: more than {max_megapixels:g} megapixels are refused")
    return header


def read_header(data: bytes) -> Header:
    """Read format, size and depth without decoding. Raises ImageError for an unknown or broken header."""
    if is_dicom(data):
        dicom = read_dicom(data)
        return Header("DICOM", dicom.Columns, dicom.Rows, dicom.BitsStored, read_stated(dicom), dicom)
    if data.startswith(PNG_START):
        return _read_png_header(data)
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            turned = "exif" in image.info and image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8)
            if turned:  # by the decoder
                width, height = height, width
            return Header("JPEG", width, height, 8)
    except Image.DecompressionBombError:
        raise ImageError("the JPEG header claims far too many pixels") from None
    except (OSError, SyntaxError, ValueError):
        if data.startswith(JPEG_START):
            raise ImageError("the JPEG header is damaged") from None
        raise ImageError(f"not a PNG, JPEG or DICOM file{_what_instead(data)}") from None


def _read_png_header(data: bytes) -> Header:
    if data[12:16] != b"IHDR" or len(data) < PNG_CHUNKS:
        raise ImageError("the PNG header is damaged")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    return Header("PNG", width, height, 8 if colour == PNG_PALETTE else depth)


def _what_instead(data: bytes) -> str:
    start = data[:64].lstrip()
    kind = next((kind for begin, kind in KINDS if start.startswith(begin)), None)
    if data[4:8] == b"ftyp":
        kind = "HEIC, AVIF or a film"
    return f" but {kind}" if kind else f" (it starts with {data[:8].hex(' ') or 'nothing'})"
