# The types of OpenCV and pydicom leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
"""DICOM as a radiologist sees it: from the bytes of one file to grey levels, bone bright, and the tags of its header.

Stored values pass the header's modality transform (rescale or LUT) and its first VOI LUT or window, and MONOCHROME1 is
inverted (PS3.3, C.7.6.3.1.2, C.11.1, C.11.2 and C.11.6). All of it happens in a table of the 256 or 65,536 values that
fit into a pixel's bits; the pixels are looked up once. Grey that was stored as colour is shown as it is. What a header
says of its patient stays out of every error.
"""

import logging
import math
import struct
import warnings
from io import BytesIO
from typing import Any, BinaryIO

import cv2
import numpy as np
import pydicom
from pydicom import Dataset, uid
from pydicom.encaps import get_frame
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from cxr.errors import ImageError

PIXEL_TAGS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"  # inflates up to 1029:1 before anything can be checked
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
SHAPES = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}  # each with what it belongs to
IN_COLOUR = "the DICOM image is in colour; photometric interpretation MONOCHROME1 or 2, or grey as RGB, is expected"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # as which grey films are stored, too
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
GREY_STEPS = 64  # the grey of a colour image may differ between its channels by one in so many: no eye tells it
FIRST_ELEMENT_BYTES = 1024  # the most that one of the first elements of a header may hold
MAX_FIRST_NUMBER = 0x3010  # of such an element; higher ones are private
MAX_CLIPPED = 0.95  # a window that turns more of the pixels black or white belongs to another version of the image


def is_dicom(start: bytes) -> bool:
    """Whether a file that starts with these 132 bytes or more is DICOM; its name does not tell.

    Some archives write a file without its preamble, or as the bare data set: it then begins with an element of the
    groups 0002 or 0008, and another follows, or these bytes end before it does.
    """
    if start[128:132] == b"DICM":
        return True
    first = _element(start, 0)
    if first is None or first[0] not in (0x0002, 0x0008):
        return False
    group, number, end = first
    if end >= len(start):
        return True
    second = _element(start, end)
    return second is not None and (group, number) < second[:2]


def _element(start: bytes, place: int) -> tuple[int, int, int] | None:
    """Group, number and end of the little endian element at `place`, explicit or implicit; None where it is none."""
    if place + 8 > len(start):
        return (0xFFFF, 0xFFFF, len(start)) if place else None  # nothing speaks against it
    group, number, kind, length = struct.unpack_from("<HH2sH", start, place)
    word, header = kind.decode("latin-1"), 8
    if word in EXPLICIT_VR_LENGTH_32:
        header = 12
        (length,) = struct.unpack_from("<I", start.ljust(place + 12, b"\0"), place + 8)
    elif word not in EXPLICIT_VR_LENGTH_16:  # implicit
        (length,) = struct.unpack_from("<I", start, place + 4)
    if number > MAX_FIRST_NUMBER or length % 2 or length > FIRST_ELEMENT_BYTES:
        return None
    return group, number, place + header + length


def silence() -> None:
    """No word of a file in this process's log: pydicom's warnings quote what they read, a patient's name perhaps.

    Pillow's, on damaged EXIF, name no file.
    """
    for module in ("pydicom", "PIL"):
        warnings.filterwarnings("ignore", module=module)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def read_tags(file: BinaryIO, tags: list[str]) -> Dataset:
    """The elements `tags` of a header; pixels are not read. Raises ImageError for a header that cannot be read."""
    return _read(file, stop_before_pixels=True, specific_tags=tags)


def _read(file: BinaryIO, **how: Any) -> Dataset:
    if DEFLATED_SYNTAX in file.read(4096):
        raise ImageError("DICOM with the deflated transfer syntax is refused; send it uncompressed or as JPEG")
    file.seek(0)
    try:
        return pydicom.dcmread(file, force=True, **how)
    except Exception:  # pydicom raises many types on malformed data, and quotes it
        raise ImageError("the DICOM header cannot be read: it is damaged or cut off") from None


def text_of(dataset: Dataset, tag: str) -> str:
    """The value of one element as text, empty where the header lacks it or holds no text there."""
    try:
        value = dataset.get(tag)
    except Exception:  # pydicom converts on access; malformed values raise many types
        return ""
    return "" if value is None else str(value).strip()


def read_dicom(data: bytes) -> Dataset:
    """The elements of a file, whose pixels are not decoded.

    Raises ImageError for what is no single image of 1 to 16 bits meant to be looked at. Colour passes: it may be grey.
    """
    dataset = _read(BytesIO(data))
    lacking = next((tag for tag in PIXEL_TAGS if not text_of(dataset, tag)), None)
    if lacking:
        raise ImageError(f"the DICOM header describes no image: it lacks {lacking}")
    frames = text_of(dataset, "NumberOfFrames") or "1"
    if frames != "1":
        raise ImageError(f"the DICOM file holds {frames if frames.isdecimal() else 'several'} frames; one is expected")
    samples = 3 if dataset.PhotometricInterpretation in COLOUR else 1
    if dataset.PhotometricInterpretation not in (*MONOCHROME, *COLOUR) or dataset.SamplesPerPixel != samples:
        raise ImageError(IN_COLOUR)
    numbers = [dataset[tag].value for tag in PIXEL_TAGS if tag != "PhotometricInterpretation"]
    if not all(isinstance(number, int) for number in numbers):
        raise ImageError("the DICOM header cannot be read: a size or depth is no number")
    allocated, stored, high = dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit
    if allocated not in (8, 16) or not 1 <= stored <= high + 1 <= allocated or dataset.PixelRepresentation > 1:
        raise ImageError(f"DICOM pixels of {stored} bits in {allocated}, the highest {high}; 8 or 16 are expected")
    if text_of(dataset, "PresentationIntentType") == "FOR PROCESSING":
        raise ImageError("the DICOM image is raw detector data (FOR PROCESSING); send the image for presentation")
    return dataset


def decode_dicom(dataset: Dataset) -> tuple[np.ndarray, tuple[int, int]]:
    """uint8 (height, width), 0 to 255, of a file that `read_dicom` accepted; padded borders are cut off.

    With it comes the row and column of the file at which it begins.

    A window becomes 0 to 255, whatever the pixels are. Without a VOI transform, or with one that leaves hardly any grey
    levels, up to 8 bits are used as they are, and more bits are stretched over the values that occur.
    Raises ImageError where pixels cannot be decoded or are not those that the header describes, and for colour.
    """
    try:
        pixels = stored_pixels(dataset)
    except ImageError:
        raise
    except Exception:  # codecs and pydicom raise many types on malformed data, and quote it
        raise ImageError("the DICOM pixel data cannot be decoded: it is damaged, or not what its header says") from None
    try:
        return (_grey_of_colour(dataset, pixels), (0, 0)) if pixels.ndim == 3 else _to_grey(dataset, pixels)
    except ImageError:
        raise
    except Exception:  # pydicom converts on access; malformed values raise many types
        raise ImageError(
            "the DICOM image cannot be shown: a window, rescale or table of its header cannot be read"
        ) from None


def is_inverse(dataset: Dataset) -> bool:
    """Whether low values are bright: as PresentationLUTShape says, and where it says nothing, for MONOCHROME1.

    The standard allows INVERSE with MONOCHROME1 and IDENTITY with MONOCHROME2 alone (PS3.3, C.8.11.3). Devices write
    the other pairs all the same, and viewers differ: dcm4che follows the shape, as is done here.
    """
    shape = text_of(dataset, "PresentationLUTShape").upper()
    return shape == "INVERSE" if shape in SHAPES else dataset.PhotometricInterpretation == "MONOCHROME1"


def shape_against_photometric(dataset: Dataset) -> str | None:
    """How PresentationLUTShape and PhotometricInterpretation contradict each other, and which was followed; or None."""
    shape, photometric = (
        text_of(dataset, tag).upper() for tag in ("PresentationLUTShape", "PhotometricInterpretation")
    )
    if SHAPES.get(shape, photometric) == photometric or photometric not in MONOCHROME:
        return None
    return f"PresentationLUTShape is {shape} with {photometric}, which DICOM forbids; the shape was followed"


def _grey_of_colour(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    """uint8 (height, width) of an image whose three channels (height, width, 3) hold one grey. Raises ImageError.

    Windows are for MONOCHROME alone and are left out, though many programs write them. Codecs give luma and chroma or
    the three colours, whichever the header says, so that both are tried on compressed pixels.
    """
    most = (1 << dataset.BitsStored) - 1
    first, *others = cv2.split(pixels)
    grey_as_rgb, grey_as_luma = first, np.full_like(first, (most + 1) // 2)
    expected = [grey_as_rgb] if dataset.PhotometricInterpretation == "RGB" else [grey_as_luma]
    if dataset["PixelData"].is_undefined_length:
        expected = [grey_as_rgb, grey_as_luma]
    for level in expected:
        if all(cv2.absdiff(other, level).max() <= most // GREY_STEPS for other in others):
            contents = np.arange(np.iinfo(first.dtype).max + 1)
            return cv2.LUT(first, np.uint8(np.minimum(contents, most) * 255 // most))
    raise ImageError(IN_COLOUR)


def _to_grey(dataset: Dataset, pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    values, padding = _stored_values(dataset, pixels.dtype)
    counts = cv2.calcHist([pixels], [0], None, [len(values)], [0, len(values)]).ravel()
    used = (counts > 0) & ~padding
    if not used.any():
        raise ImageError("the DICOM image holds nothing but padding")
    values = _modality(dataset, values)
    if not np.isfinite(values).all():
        raise ImageError("the DICOM header's rescale slope and intercept give no finite values")
    grey = _seen_through_voi(dataset, values, np.where(used, counts, 0))
    if grey is None:
        ends = values if dataset.BitsStored <= 8 else values[used]
        low, high = ends.min(), ends.max()
        grey = np.round(np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    if is_inverse(dataset):
        grey = 255 - grey
    grey[padding] = 0
    rendered = cv2.LUT(pixels, grey)
    return _without_padded_border(rendered, pixels, padding) if counts[padding].any() else (rendered, (0, 0))


def _stored_values(dataset: Dataset, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel content, 0 to 255 or 65,535: the stored value, and whether it is padding.

    Bits above or below the stored ones may hold anything, old overlays for one, and are left out; padding may use them.
    """
    content = np.arange(np.iinfo(dtype).max + 1)
    stored = content >> (dataset.HighBit + 1 - dataset.BitsStored) & ((1 << dataset.BitsStored) - 1)
    if dataset.PixelRepresentation == 1:
        stored = np.where(stored >> (dataset.BitsStored - 1), stored - (1 << dataset.BitsStored), stored)
        content = np.where(content >> (dataset.BitsAllocated - 1), content - len(content), content)
    if dataset.get("PixelPaddingValue") is None:
        return stored, np.zeros(len(stored), bool)
    value = dataset.PixelPaddingValue
    limit = dataset.get("PixelPaddingRangeLimit")
    # the two may be written unsigned beside signed pixels, and the other way round
    low, high = sorted(_wrapped(int(end), content) for end in (value, value if limit is None else limit))
    return stored, ((content >= low) & (content <= high)) | ((stored >= low) & (stored <= high))


def _wrapped(number: int, content: np.ndarray) -> int:
    """The number that the bits of `number` mean among `content`."""
    return int(content[number % len(content)])


def _modality(dataset: Dataset, values: np.ndarray) -> np.ndarray:
    if dataset.get("ModalityLUTSequence"):
        return _look_up(dataset, dataset.ModalityLUTSequence[0], values).astype(np.float64)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    with np.errstate(over="ignore"):  # what is not finite is refused
        return values * float(1 if slope is None else slope) + float(intercept or 0)


def _seen_through_voi(dataset: Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
    """uint8 grey of each value; None without a VOI transform, or with one that leaves too little of the picture."""
    level = _voi(dataset, values)
    if level is None:
        return None
    grey = np.round(level * 255).astype(np.uint8)
    clipped = counts[(grey == 0) | (grey == 255)].sum() / counts.sum()
    return grey if clipped <= MAX_CLIPPED else None


def _voi(dataset: Dataset, values: np.ndarray) -> np.ndarray | None:
    """0 to 1 of each value by the first VOI LUT, else by the first window; None where neither can be used."""
    if dataset.get("VOILUTSequence"):
        seen = _look_up(dataset, dataset.VOILUTSequence[0], values)
        # the bits that a descriptor claims are often not those of its table: the largest entry tells
        return seen / ((1 << int(seen.max()).bit_length()) - 1 or 1)
    center, width = (_first(dataset.get(tag)) for tag in ("WindowCenter", "WindowWidth"))
    function = text_of(dataset, "VOILUTFunction").upper() or "LINEAR"
    if center is None or width is None or not np.isfinite([center, width]).all():
        return None
    if width < (1 if function == "LINEAR" else 1e-9):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-9)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _first(value: object) -> float | None:
    """The first of one or several numbers; the others are alternatives to choose from by hand."""
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)


def _look_up(dataset: Dataset, item: Dataset, values: np.ndarray) -> np.ndarray:
    """The entries of a modality or VOI LUT for `values`; below and above its table, the first and the last.

    pydicom's own function indexes with the type of the entries: tables of 8 bits with more than 256 entries come out
    wrong.
    """
    entries, first, _ = (int(number) for number in item.LUTDescriptor)
    entries = entries or 1 << 16
    if dataset.PixelRepresentation == 1 and first > 32767:  # written unsigned
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        words = "<u2" if little else ">u2"
        data = np.frombuffer(data, words if len(data) >= 2 * entries else np.uint8)
    table = np.atleast_1d(np.asarray(data)).astype(np.int64)[:entries]
    return table[np.clip(np.round(values) - first, 0, len(table) - 1).astype(np.int64)]


def _without_padded_border(
    rendered: np.ndarray, pixels: np.ndarray, padding: np.ndarray
) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut off the rows and columns at the border that hold padding alone; see `decode_dicom`."""
    shown = cv2.LUT(pixels, np.uint8(~padding))
    rows, columns = (np.flatnonzero(cv2.reduce(shown, axis, cv2.REDUCE_MAX)) for axis in (1, 0))
    kept = rendered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(kept), (int(rows[0]), int(columns[0]))


def stored_pixels(dataset: Dataset) -> np.ndarray:
    """uint8 or uint16 (rows, columns) or (rows, columns, 3): the allocated bits as they lie in the file.

    Raises ImageError.
    """
    if "PixelData" not in dataset:
        raise ImageError("the DICOM file holds no pixel data")
    shape = (dataset.Rows, dataset.Columns) + (3,) * (dataset.SamplesPerPixel == 3)
    syntax = dataset.file_meta.get("TransferSyntaxUID", uid.UID(""))
    if dataset["PixelData"].is_undefined_length:
        pixels = _decompress(get_frame(dataset.PixelData, 0, number_of_frames=1), syntax, dataset)
    else:
        _check_length(dataset)
        if syntax not in NATIVE:  # absent, or another's than that of these pixels
            implicit, little = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = NATIVE[0 if implicit else 1 if little else 2]
        dataset.pixel_array_options(correct_unused_bits=False, raw=True)
        pixels = dataset.pixel_array
    bytes_each = dataset.BitsAllocated // 8
    if pixels.shape != shape or pixels.dtype.itemsize > bytes_each:
        raise ImageError(f"the DICOM pixel data of shape {pixels.shape} is not one image as its header says")
    whole = np.ascontiguousarray(pixels, f"={pixels.dtype.kind}{bytes_each}")
    return whole.view(f"=u{bytes_each}")


def _check_length(dataset: Dataset) -> None:
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else dataset.SamplesPerPixel
    needed = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
    found = len(dataset.PixelData)
    if not needed <= found <= needed + max(needed // dataset.Rows, 1):  # up to a row may be padding
        raise ImageError(
            f"the DICOM header's {dataset.Rows} rows of {dataset.Columns} columns take {needed} bytes, the pixel data "
            f"holds {found}; the file is cut off or its header is wrong"
        )


def _decompress(frame: bytes, syntax: uid.UID, dataset: Dataset) -> np.ndarray:
    import imagecodecs  # 0.1 s, and only compressed DICOM needs it

    shape = dataset.Rows, dataset.Columns
    if syntax == uid.RLELossless:
        dtype = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        planes = (3, *shape) if dataset.SamplesPerPixel == 3 else shape
        whole = bytearray(math.prod(planes) * dtype.itemsize)
        pixels = np.frombuffer(imagecodecs.dicomrle_decode(frame, dtype=dtype, out=whole), dtype).reshape(planes)
        return np.moveaxis(pixels, 0, 2) if pixels.ndim == 3 else pixels
    if not syntax or syntax in NATIVE:
        raise ImageError("the DICOM pixel data is compressed, and the header does not say how; export the file anew")
    if syntax not in (*JPEG, *JPEG_LS, *JPEG_2000):
        raise ImageError("the DICOM transfer syntax is not supported; send JPEG, JPEG-LS, JPEG 2000, RLE or raw")
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ImageError("the compressed DICOM pixel data is truncated")
    size = _siz(frame) if syntax in JPEG_2000 else _sof(frame)
    if size != shape:  # before a decoder believes it: 65,535 x 65,535 pixels are 8 GB
        raise ImageError(
            f"the compressed DICOM pixel data has {size[0]} rows of {size[1]} columns, but its header says "
            f"{shape[0]} rows of {shape[1]} columns"
        )
    if syntax in JPEG_2000:
        return imagecodecs.jpeg2k_decode(frame)
    if syntax in JPEG_LS:
        return imagecodecs.jpegls_decode(frame)
    # the components as they are: which colours they mean is often written wrongly, and the decoder would guess
    colours = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"} if dataset.SamplesPerPixel == 3 else {}
    return imagecodecs.jpeg8_decode(frame, **colours)


def _siz(frame: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG 2000 codestream claims; a JP2 header before it, though not allowed, is met."""
    place = frame.find(b"\xff\x4f\xff\x51")
    if place < 0:
        raise ImageError("the compressed DICOM pixel data is no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, place + 8)
    return bottom - top, right - left


def _sof(frame: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG or JPEG-LS codestream claims."""
    place = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", frame, place)
        if mark != 0xFF:
            raise ImageError("the compressed DICOM pixel data is damaged before its first scan")
        if kind == 0xFF:  # fill byte
            place += 1
        elif kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns
        else:
            place += 2 + length
