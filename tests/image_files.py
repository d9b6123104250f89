"""The bytes of small radiograph-like files, drawn for tests."""

from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder


def draw(height: int = 150, width: int = 200, seed: int = 0) -> np.ndarray:
    """uint8 (height, width): a bright body with two darker ellipses, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.7) ** 2 < 1
    return np.uint8(np.clip(np.where(lungs, 70, 190) + rng.normal(0, 8, y.shape), 0, 255))


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def dicom(
    pixels: np.ndarray,
    patient_name: str = "TEST^PATIENT",
    syntax: str = uid.ExplicitVRLittleEndian,
    frame: bytes | None = None,
    meta: bool = True,
    **elements: Any,
) -> bytes:
    """uint8, uint16 or int16 (height, width) as a file of the transfer syntax `syntax`, MONOCHROME2.

    uint8 (height, width, 3) is RGB. `frame` stands in for the compressed pixels; `meta` is whether the file has its
    preamble and meta information; `elements` are added to the header or take the place of its own.
    """
    bits = pixels.dtype.itemsize * 8
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid.generate_uid(entropy_srcs=["test"])
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.PatientName = patient_name
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, int(pixels.dtype.kind == "i")
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    for name, value in elements.items():
        setattr(dataset, name, value)
    if "HighBit" not in elements:
        dataset.HighBit = dataset.BitsStored - 1
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.PixelData = encapsulate([frame or compress(pixels, syntax, dataset.BitsStored)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        stored = np.moveaxis(pixels, 2, 0) if elements.get("PlanarConfiguration") else pixels
        dataset.PixelData = stored.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    stream = BytesIO()
    if meta:
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    else:
        transfer = dataset.file_meta.TransferSyntaxUID
        del dataset.file_meta
        implicit, little = transfer.is_implicit_VR, transfer.is_little_endian
        pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=little)
    return stream.getvalue()


def compress(pixels: np.ndarray, syntax: str, bits: int) -> bytes:
    """One frame of the transfer syntax; lossy ones keep close to `pixels`."""
    import imagecodecs  # plain files are written without it

    if syntax == uid.RLELossless:
        described = {
            "rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": 3 if pixels.ndim == 3 else 1,
            "photometric_interpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2", "number_of_frames": 1,
            "pixel_representation": int(pixels.dtype.kind == "i"), "planar_configuration": 0,
            "bits_allocated": pixels.dtype.itemsize * 8, "bits_stored": bits,
        }  # fmt: skip
        return get_encoder(uid.RLELossless).encode(pixels, **described)
    content = pixels.view(f"u{pixels.dtype.itemsize}")
    if syntax == uid.JPEGBaseline8Bit:
        return cv2.imencode(".jpg", content, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    if syntax == uid.JPEGExtended12Bit:
        return imagecodecs.jpeg8_encode(content, level=95, bitspersample=bits)
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return imagecodecs.jpeg8_encode(content, lossless=True, bitspersample=bits)
    if syntax == uid.JPEGLSLossless:
        return imagecodecs.jpegls_encode(content)
    if syntax == uid.JPEGLSNearLossless:
        return imagecodecs.jpegls_encode(content, level=1)
    if syntax in (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        return imagecodecs.htj2k_encode(content)
    return imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0, reversible=True)


def damaged_dicom() -> bytes:
    """JPEG Lossless without the marker of its Huffman table: no decoder can read it, and some end their process."""
    data = bytearray(dicom(draw(60, 80), syntax=uid.JPEGLosslessSV1))
    data[data.rfind(b"\xff\xc4")] = 0
    return bytes(data)
