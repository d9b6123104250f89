"""The bytes of small radiograph-like files, drawn for tests."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


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


def dicom(pixels: np.ndarray, patient_name: str = "TEST^PATIENT") -> bytes:
    """uint8 or uint16 (height, width) as an uncompressed MONOCHROME2 file."""
    bits = pixels.dtype.itemsize * 8
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.PatientName = patient_name
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelData = pixels.tobytes()
    stream = BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def lossless_jpeg_dicom(pixels: np.ndarray, folder: Path) -> bytes:
    """`dicom(pixels)` in the JPEG Lossless transfer syntax, which GDCM alone reads."""
    plain, compressed = folder / "plain.dcm", folder / "lossless.dcm"
    plain.write_bytes(dicom(pixels))
    subprocess.run([Path(sys.executable).with_name("gdcmconv"), "--jpeg", plain, compressed], check=True)
    return compressed.read_bytes()


def aborting_dicom(folder: Path) -> bytes:
    """A damaged file on which GDCM ends its process: the JPEG lacks the marker of its Huffman table."""
    data = bytearray(lossless_jpeg_dicom(draw(60, 80), folder))
    data[data.rfind(b"\xff\xc4")] = 0
    return bytes(data)
