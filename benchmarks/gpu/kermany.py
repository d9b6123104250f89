"""Kermany's published folders, read as they are; see `cxr.sources.kermany` for what the source is."""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from cxr.errors import CxrError
from cxr.pixels.resize import shrink

NORMAL, BACTERIAL, VIRAL = "Normal", "Bacterial", "Viral"
TYPES = {"bacteria": BACTERIAL, "virus": VIRAL}
PNEUMONIA_NAME = re.compile(r"person\d+_(bacteria|virus)")  # numbers restart for each type: the whole is a patient
NORMAL_NAME = re.compile(r"(NORMAL2-)?IM-\d+")

TASKS = {  # the classes are those of `cxr.dataset.labels.TASKS`
    "pneumonia": {NORMAL: 0, BACTERIAL: 1, VIRAL: 1},
    "pneumonia-type": {NORMAL: 0, BACTERIAL: 1, VIRAL: 2},
}


@dataclass(frozen=True)
class Films:
    """`images`: uint8 (n, size, size). `findings` (NORMAL, BACTERIAL, VIRAL) and `patients`: str (n,)."""

    images: np.ndarray
    findings: np.ndarray
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> "Films":
        return Films(self.images[rows], self.findings[rows], self.patients[rows])

    def labels(self, task: str) -> np.ndarray:
        """int (n,)"""
        return np.array([TASKS[task][finding] for finding in self.findings])


def find_root(folder: Path) -> Path:
    """Where train/ and test/ lie. Raises CxrError where they do not."""
    needed = [f"{split}/{finding}" for split in ("train", "test") for finding in ("NORMAL", "PNEUMONIA")]
    for root in (folder, folder / "chest_xray"):
        if all((root / each).is_dir() for each in needed):
            return root
    raise CxrError(f"{folder}: expected Kermany's folders {', '.join(needed)} here or in chest_xray/")


@lru_cache(2)
def load(root: Path, split: str, size: int, most: int | None) -> Films:
    """The films of one published split, at most so many of each finding; of train files with the same bytes the first.

    Grey, stretched and resampled as ingest does by default. Raises CxrError for a file whose name tells no patient or
    that cannot be decoded.
    """
    files: dict[str, list[tuple[Path, str]]] = {NORMAL: [], BACTERIAL: [], VIRAL: []}
    for path in sorted((root / split).glob("*/*.jp*g")):
        pattern = NORMAL_NAME if path.parent.name == "NORMAL" else PNEUMONIA_NAME
        match = pattern.match(path.name)
        if match is None:
            raise CxrError(f"{path}: no patient in the file name; expected IM-N, NORMAL2-IM-N or personN_type_N")
        files[TYPES.get(match[1], NORMAL)].append((path, match[0]))
    chosen = [(finding, *file) for finding, those in files.items() for file in those[:most]]
    if not chosen:
        raise CxrError(f"{root / split}: no JPEG in NORMAL/ or PNEUMONIA/; fetch the data again")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        read = list(threads.map(lambda file: read_film(file[1], size), chosen))
    films = Films(
        np.stack([image for image, _ in read]),
        np.array([finding for finding, _, _ in chosen]),
        np.array([patient for _, _, patient in chosen]),
    )
    if split == "test":
        return films
    _, first = np.unique([digest for _, digest in read], return_index=True)
    return films[np.sort(first)]


def read_film(path: Path, size: int) -> tuple[np.ndarray, str]:
    """uint8 (size, size), and the SHA-256 of the file."""
    data = path.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if pixels is None:
        raise CxrError(f"{path}: OpenCV cannot decode it; fetch it again, or take it away")
    return shrink(pixels, size, size), hashlib.sha256(data).hexdigest()


def val_rows(films: Films, fraction: float, seed: int) -> np.ndarray:
    """Bool (n,): whole patients, of each finding as many as make up that fraction of its images, or just more."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(films), bool)
    for finding in np.unique(films.findings):
        rows = np.flatnonzero(films.findings == finding)
        patients, patient = np.unique(films.patients[rows], return_inverse=True)
        order = rng.permutation(len(patients))
        counts = np.bincount(patient)[order]
        before = np.cumsum(counts) - counts
        held[rows] = np.isin(patient, order[before < fraction * len(rows)])
    return held
