"""DICOM in every transfer syntax: the time of one film, and what damaged files do to the process.

`python -m benchmarks.dicom` renders a film of 2048 x 2500 in 12 bits with a rescale and a window. `usual` is the same
codec followed by pydicom's transforms on the pixels and a stretch to 8 bits, the recipe of its documentation.
`python -m benchmarks.dicom --damaged N` gives N damaged copies of a small file in each syntax to a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.filebase import DicomBytesIO
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from cxr.errors import ImageError
from cxr.pixels import dicom
from tests.image_files import dicom as dicom_file
from tests.image_files import draw

SYNTAXES = (
    uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGExtended12Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
    uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless,
)  # fmt: skip
HEADER = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 3500, "RescaleSlope": 1, "RescaleIntercept": 0}
ROUNDS = 5


def film() -> np.ndarray:
    """uint16 (2500, 2048) of 12 bits: smooth structure and grain."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.uniform(0, 4000, (50, 40)).astype(np.float32), (2048, 2500), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 4095).astype(np.uint16)


def usual(data: bytes) -> np.ndarray:
    dataset = pydicom.dcmread(DicomBytesIO(data))
    pixels = apply_voi_lut(apply_modality_lut(dicom.stored_pixels(dataset), dataset), dataset)
    return ((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255).astype(np.uint8)


def ours(data: bytes) -> np.ndarray:
    return dicom.decode_dicom(dicom.read_dicom(data))[0]


def seconds(function: Callable[[bytes], object], data: bytes) -> float:
    started = time.perf_counter()
    function(data)
    return time.perf_counter() - started


def speed() -> None:
    print("| transfer syntax | MB | usual, ms | ours, ms | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for syntax in SYNTAXES:
        data = dicom_file(film(), syntax=syntax, **HEADER)
        rounds = [(seconds(usual, data), seconds(ours, data)) for _ in range(ROUNDS)]
        before, now = (min(column) * 1000 for column in zip(*rounds, strict=True))
        name = uid.UID(syntax).keyword
        print(f"| {name} | {len(data) / 1e6:.1f} | {before:.0f} | {now:.0f} | {before / now:.1f} |")


def damage(data: bytes, seed: int) -> bytes:
    """A few bits flipped, or bytes replaced, taken out or put in: half of them in the codestream's own header."""
    rng = np.random.default_rng(seed)
    broken = bytearray(data)
    start = data.find(b"\xe0\x7f\x10\x00")  # the element of the pixels
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(start, min(len(broken), start + 200) if rng.random() < 0.5 else len(broken)))
        how = rng.integers(4)
        if how == 0:
            broken[place] ^= 1 << int(rng.integers(8))
        elif how == 1:
            broken[place] = int(rng.integers(256))
        elif how == 2:
            del broken[place : place + int(rng.integers(1, 20))]
        else:
            broken[place:place] = rng.bytes(int(rng.integers(1, 8)))
    return bytes(broken)


def try_damaged(syntax: str, count: int) -> None:
    """Runs in a process of its own, which a decoder may end."""
    dicom.silence()
    data = dicom_file((draw(60, 80).astype(np.uint16)) * 16, syntax=syntax, BitsStored=12)
    shown, slowest = 0, 0.0
    for seed in range(count):
        started = time.perf_counter()
        try:
            ours(damage(data, seed))
            shown += 1
        except ImageError:
            pass
        slowest = max(slowest, time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{shown} | {count - shown} | {slowest:.2f} | {peak}")


def damaged(count: int) -> None:
    print("| transfer syntax | ended the process | shown | refused | slowest, s | peak MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for syntax in SYNTAXES:
        command = [sys.executable, "-m", "benchmarks.dicom", "--damaged", str(count), "--syntax", syntax]
        done = subprocess.run(command, capture_output=True, text=True)
        told = done.stdout.strip() or "| | |"
        print(f"| {uid.UID(syntax).keyword} | {'yes' if done.returncode else 'no'} | {told} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damaged", type=int, default=0)
    parser.add_argument("--syntax")
    arguments = parser.parse_args()
    if arguments.syntax:
        try_damaged(arguments.syntax, arguments.damaged)
    elif arguments.damaged:
        damaged(arguments.damaged)
    else:
        speed()
