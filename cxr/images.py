"""From the bytes of one radiograph to the square uint8 image that the model reads, and the numbers that describe it.

One code path: ingest and the service both call `load_radiograph`, so what is trained on is what is served.
"""

import struct
import subprocess
import sys
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from cxr.canonical import to_canonical
from cxr.errors import ImageError
from cxr.params import PixelParams

THUMB_SIZE = 64
EXIF_ORIENTATION = 274
DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"  # inflates up to 1029:1 before anything can be checked

# The decoders that raise on damaged data. GDCM reads the other compressed syntaxes and aborts the whole process on some
# damaged files, so it runs in a process of its own (0.3 s).
DICOM_DECODERS = {JPEGBaseline8Bit: "pillow", JPEG2000: "pillow", JPEG2000Lossless: "pillow", RLELossless: "pydicom"}
GDCM_PROCESS = """
import io, sys, numpy, pydicom
pixels = io.BytesIO()
numpy.save(pixels, pydicom.dcmread(io.BytesIO(sys.stdin.buffer.read())).pixel_array)
sys.stdout.buffer.write(pixels.getvalue())
"""
GDCM_SECONDS = 60


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
    uint8 (64, 64). `width`, `height`, `bits`: of the file. `phash`: 32 bytes.
    """

    image: np.ndarray
    thumb: np.ndarray
    width: int
    height: int
    bits: int
    phash: bytes


def load_radiograph(data: bytes, params: PixelParams) -> Radiograph:
    """Read one PNG, JPEG or single-frame DICOM file into the canonical square.

    Raises ImageError for anything else, for a truncated file and for more than `params.max_megapixels`.
    """
    header = read_header(data)
    if header.width * header.height > params.max_megapixels * 1e6:
        raise ImageError(
            f"{header.width}x{header.height} pixels: more than {params.max_megapixels:g} megapixels are refused"
        )
    pixels = _decode_dicom(data, header) if header.format == "DICOM" else _decode_raster(data, header, params.size)
    thumb = to_thumb(pixels)
    return Radiograph(
        to_canonical(pixels, params), thumb, header.width, header.height, header.bits, perceptual_hash(thumb)
    )


def read_header(data: bytes) -> Header:
    """Read format, size and depth without decoding. Raises ImageError for an unknown or broken header."""
    if data[128:132] == b"DICM":
        return _read_dicom_header(data)
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
            bits = {"I;16": 16, "I;16B": 16, "I": 16, "1": 1}.get(image.mode, 8)
            width, height = image.size
            if image.format == "JPEG" and image.getexif().get(EXIF_ORIENTATION, 1) > 4:  # the decoder turns it
                width, height = height, width
            return Header("PNG" if image.format == "PNG" else "JPEG", width, height, bits)
    except Image.DecompressionBombError:
        raise ImageError("the header claims a decompression bomb") from None
    except (OSError, SyntaxError, ValueError):
        raise ImageError(f"not a PNG, JPEG or DICOM file (it starts with {data[:8].hex(' ') or 'nothing'})") from None


def _decode_raster(data: bytes, header: Header, size: int) -> np.ndarray:
    if header.format == "JPEG":
        # 0xFF is never bare inside entropy-coded data, so the last scan of a whole file is followed by an end marker
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
        flags = _jpeg_scale(min(header.width, header.height), size)
    else:
        whole = _png_is_whole(data)
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_ANYDEPTH if header.bits > 8 else 0)
    if not whole:
        raise ImageError(f"the {header.format} file is truncated at {len(data)} bytes")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"the {header.format} data cannot be decoded ({error.err})") from None
    if pixels is None:
        raise ImageError(f"the {header.format} data cannot be decoded")
    return pixels if pixels.dtype == np.uint8 else _to_uint8(pixels)


def _png_is_whole(data: bytes) -> bool:
    """Whether every chunk up to IEND lies inside the file: OpenCV first allocates what a chunk claims, up to 2 GB."""
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IEND":
            return True
        place += 12 + length
    return False


def _jpeg_scale(shorter_side: int, size: int) -> int:
    """The JPEG decoder's own down-scaling, kept at twice the target so that area resampling has pixels to average."""
    for factor, flag in (
        (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
        (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
        (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    ):
        if shorter_side >= 2 * size * factor:
            return flag
    return cv2.IMREAD_GRAYSCALE


def _read_dicom_header(data: bytes) -> Header:
    if DEFLATED_SYNTAX in data[:4096]:
        raise ImageError("DICOM with the deflated transfer syntax is refused; send it uncompressed or as JPEG")
    try:
        dataset = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
        frames = int(dataset.get("NumberOfFrames") or 1)
        header = Header("DICOM", int(dataset.Columns), int(dataset.Rows), int(dataset.BitsStored))
        photometric = dataset.PhotometricInterpretation
    except Exception as error:  # pydicom raises many types on malformed data
        raise ImageError(f"the DICOM header cannot be read ({_brief(error)})") from None
    if frames != 1:
        raise ImageError(f"the DICOM file holds {frames} frames; one radiograph is expected")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"DICOM photometric interpretation {photometric}; MONOCHROME1 or MONOCHROME2 is expected")
    return header


def _decode_dicom(data: bytes, header: Header) -> np.ndarray:
    """Modality and VOI transforms applied, MONOCHROME1 inverted (DICOM PS3.3, C.7.6.3.1.2 and C.11)."""
    try:
        dataset = pydicom.dcmread(BytesIO(data))
        pixels = _dicom_pixels(data, dataset)
        pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    except Exception as error:  # codecs and pydicom raise many types on malformed data
        raise ImageError(f"the DICOM pixel data cannot be decoded ({_brief(error)})") from None
    if pixels.shape != (header.height, header.width) or not np.isfinite([pixels.min(), pixels.max()]).all():
        raise ImageError(f"the DICOM pixel data of shape {pixels.shape} is not one grey image as its header says")
    pixels = _to_uint8(pixels)
    return 255 - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def _dicom_pixels(data: bytes, dataset: pydicom.Dataset) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax not in DICOM_DECODERS:
        command = [sys.executable, "-I", "-c", GDCM_PROCESS]
        done = subprocess.run(command, input=data, capture_output=True, timeout=GDCM_SECONDS)
        if done.returncode:
            raise ValueError(f"the decoder stopped with status {done.returncode}, transfer syntax {syntax}")
        return np.load(BytesIO(done.stdout))
    dataset.pixel_array_options(decoding_plugin=DICOM_DECODERS.get(syntax, ""))
    return dataset.pixel_array


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"  # pydicom quotes the file's bytes at any length


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Stretch 9- to 16-bit values to 0-255 by their own range: how many bits are used is not told reliably."""
    low, high = float(pixels.min()), float(pixels.max())
    return np.round((pixels.astype(np.float32) - low) * (255 / max(high - low, 1))).astype(np.uint8)


def to_thumb(pixels: np.ndarray) -> np.ndarray:
    """The whole of uint8 (height, width), stretched to uint8 (64, 64): what hashes and duplicates are judged on.

    Stretched, so that copies squeezed to another aspect ratio stay alike.
    """
    return cv2.resize(pixels, (THUMB_SIZE, THUMB_SIZE), interpolation=cv2.INTER_AREA)


def perceptual_hash(thumb: np.ndarray) -> bytes:
    """256 signs of the low 16 x 16 cosine coefficients of a thumb against their median, as 32 bytes.

    64 bits are too few: different patients' chests collide.
    """
    coefficients = cv2.dct(thumb.astype(np.float32))[:16, :16]
    return np.packbits(coefficients > np.median(coefficients)).tobytes()


def describe(radiograph: Radiograph) -> dict[str, float]:
    """The numbers in `cxr.manifest.DESCRIPTORS` of one radiograph, measured on its square image.

    `mean`, `contrast` (standard deviation), `p05`, `p95`, `border` (mean of the outer sixteenth) and `asymmetry`
    (left half minus right half) are in grey levels, `entropy` in bits, `sharpness` is log10 of the Laplacian's
    variance, `noise` the standard deviation by Immerkaer (1996), `aspect` width over height of the file.
    """
    image = radiograph.image
    size = image.shape[0]
    histogram = np.bincount(image.ravel(), minlength=256) / image.size
    cumulative = np.cumsum(histogram)
    mean = float(histogram @ np.arange(256))
    used = histogram[histogram > 0]
    ring = size // 16
    inner = cv2.mean(image[ring:-ring, ring:-ring])[0]
    inner_share = (size - 2 * ring) ** 2 / size**2
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    residual = cv2.filter2D(image, cv2.CV_32F, kernel)[1:-1, 1:-1]
    half = size // 2
    return {
        "aspect": radiograph.width / radiograph.height,
        "mean": mean,
        "contrast": float(np.sqrt(histogram @ (np.arange(256) - mean) ** 2)),
        "p05": float(np.searchsorted(cumulative, 0.05)),
        "p95": float(np.searchsorted(cumulative, 0.95)),
        "entropy": float(-(used * np.log2(used)).sum()),
        "sharpness": float(np.log10(cv2.Laplacian(image, cv2.CV_32F).var() + 1)),
        "noise": float(np.sqrt(np.pi / 2) / 6 * np.abs(residual).mean()),
        "border": (mean - inner * inner_share) / (1 - inner_share),
        "asymmetry": cv2.mean(image[:, :half])[0] - cv2.mean(image[:, half:])[0],
    }
