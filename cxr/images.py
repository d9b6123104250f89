"""From the bytes of one radiograph to the square uint8 image that the model reads, and the numbers that describe it.

One code path: ingest and the service both call `load_radiograph`, so what is trained on is what is served.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from cxr.canonical import cut_off, places, render
from cxr.dicom import decode_dicom, is_dicom, read_dicom_size
from cxr.errors import ImageError
from cxr.params import PixelParams
from cxr.thumbs import halve, to_thumb

EXIF_ORIENTATION = 274

MIN_SIDE = 32  # pixels; icons and 1 x 1 placeholders show no lung
MAX_CHUNKS = 100_000  # of a PNG; each costs the decoder time, however empty
MAX_SCANS = 100  # of a progressive JPEG, each over all pixels; encoders make about ten
INFLATION = 1032  # times, the most that deflate reaches
WORTH_COUNTING = 2 << 30  # bytes that a PNG could inflate to in 4 s: only above are they counted beforehand
PIECE = 1 << 16  # bytes
PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_CHUNKS = 33  # place of the first chunk after the header
PNG_TEXTS = (b"zTXt", b"iTXt", b"iCCP")
PNG_PALETTE = 3  # colour type whose depth is that of an index

LEVELS = np.arange(256)
IMMERKAER = np.array([1, -2, 1], np.float32)  # along rows and columns; blind to what is flat or slopes

# How files begin that are met under the names of images
KINDS = (
    (b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"RIFF", "WebP"), (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"PK", "a zip archive"),
    (b"\x1f\x8b", "packed by gzip"), (b"version https://git-lfs", "a Git LFS pointer (git lfs pull brings the file)"),
    (b"\0\5\x16\7", "what macOS notes beside a file"), (b"<", "a web page, SVG or other XML"),
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of itself before a pixel is decoded: pixels and bits per sample."""

    format: Literal["PNG", "JPEG", "DICOM"]
    width: int
    height: int
    bits: int


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph, bone bright.

    `image`: the canonical square, uint8 (size, size). `thumb`: the whole image before any standardisation, stretched to
    uint8 (64, 64). `width`, `height`, `bits`: of the file. `places`: the file's row and column, in its pixels, at the
    centre of each row and each column of the square, see `cxr.canonical.places`.
    """

    image: np.ndarray
    thumb: np.ndarray
    width: int
    height: int
    bits: int
    places: tuple[np.ndarray, np.ndarray]


def load_radiograph(data: bytes, params: PixelParams) -> Radiograph:
    """Read one PNG, JPEG or single-frame DICOM file into the canonical square.

    Raises ImageError for anything else, for a truncated file, for less than MIN_SIDE and for more than
    `params.max_megapixels`. Memory stays within a few bytes a pixel, whatever the file claims.
    """
    header = _accepted_header(data, params.max_megapixels)
    if header.format == "DICOM":
        pixels, (top, left) = decode_dicom(data)
        height, width = pixels.shape
    else:
        pixels, (top, left) = _decode_raster(data, header, params.size), (0, 0)
        height, width = header.height, header.width
    pixels = halve(pixels, 2 * params.size, 2 * params.size)  # as the JPEG decoder does; the rest is cheaper so
    frame = cut_off(pixels, params)
    rows, columns = places(pixels.shape, frame, params)
    return Radiograph(
        image=render(pixels, frame, params),
        thumb=to_thumb(pixels),
        width=header.width,
        height=header.height,
        bits=header.bits,
        places=(top + rows * height / pixels.shape[0], left + columns * width / pixels.shape[1]),
    )


def load_raster(data: bytes, max_megapixels: float) -> np.ndarray:
    """Read one PNG or JPEG as uint8 (height, width) of its whole size. Raises ImageError as `load_radiograph` does."""
    header = _accepted_header(data, max_megapixels)
    if header.format == "DICOM":
        raise ImageError("a DICOM file; PNG or JPEG is expected")
    return _decode_raster(data, header, min(header.width, header.height))


def _accepted_header(data: bytes, max_megapixels: float) -> Header:
    header = read_header(data)
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError(f"{header.width}x{header.height} pixels: a side of less than {MIN_SIDE} is refused")
    if header.width * header.height > max_megapixels * 1e6:
        raise ImageError(f"{header.width}x{header.height} pixels: more than {max_megapixels:g} megapixels are refused")
    return header


def read_header(data: bytes) -> Header:
    """Read format, size and depth without decoding. Raises ImageError for an unknown or broken header."""
    if is_dicom(data):
        return Header("DICOM", *read_dicom_size(data))
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
        raise ImageError("the JPEG header claims a decompression bomb") from None
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


def _decode_raster(data: bytes, header: Header, size: int) -> np.ndarray:
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


def describe(radiograph: Radiograph) -> dict[str, float]:
    """The numbers in `cxr.manifest.DESCRIPTORS` of one radiograph, measured on its square image.

    `mean`, `contrast` (standard deviation), `p05`, `p95`, `border` (mean of the outer sixteenth) and `asymmetry`
    (left half minus right half) are in grey levels, `entropy` in bits, `sharpness` is log10 of the Laplacian's
    variance, `noise` the standard deviation by Immerkaer (1996), `aspect` width over height of the file.
    """
    image = radiograph.image
    size = image.shape[0]
    histogram = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel().astype(np.float64) / image.size
    cumulative = np.cumsum(histogram)
    mean = float(histogram @ LEVELS)
    used = histogram[histogram > 0]
    ring = size // 16
    inner = cv2.mean(image[ring:-ring, ring:-ring])[0]
    inner_share = (size - 2 * ring) ** 2 / size**2
    residual = cv2.sepFilter2D(image, cv2.CV_16S, IMMERKAER, IMMERKAER)[1:-1, 1:-1]
    edges = cv2.Laplacian(image, cv2.CV_16S)
    variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2
    half = size // 2
    return {
        "aspect": radiograph.width / radiograph.height,
        "mean": mean,
        "contrast": float(np.sqrt(histogram @ (LEVELS - mean) ** 2)),
        "p05": float(np.searchsorted(cumulative, 0.05)),
        "p95": float(np.searchsorted(cumulative, 0.95)),
        "entropy": float(-(used * np.log2(used)).sum()),
        "sharpness": float(np.log10(variance + 1)),
        "noise": float(np.sqrt(np.pi / 2) / 6 * cv2.norm(residual, cv2.NORM_L1) / residual.size),
        "border": (mean - inner * inner_share) / (1 - inner_share),
        "asymmetry": cv2.mean(image[:, :half])[0] - cv2.mean(image[:, half:])[0],
    }
