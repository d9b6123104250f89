"""A tiny source of films with lung masks, in the layout of covid-chestxray-dataset."""

import csv
import os
from pathlib import Path

import numpy as np

from tests.image_files import jpeg, png

PATIENTS = 24
HEADER = ["patientid", "sex", "age", "finding", "view", "modality", "folder", "filename", "license"]
LONG_AGO = (1e9, 1e9)  # a file of just now could change again within a tick of the clock, and is read again


def film(seed: int, height: int = 100, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (height, width): two dark lungs of the seed's own place and size in a grey body; and their mask, 0 or 255.

    The body is uneven enough for films of two seeds to be told apart.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    down, right, tall, wide = rng.uniform([-0.15, -0.1, 0.5, 0.2], [0.15, 0.1, 0.75, 0.32])
    lungs = ((np.abs(x - right) - 0.42) / wide) ** 2 + ((y - down) / tall) ** 2 < 1
    waves = sum(rng.normal(0, 12) * np.cos(rng.uniform(1, 5) * x + rng.uniform(1, 5) * y) for _ in range(6))
    pixels = np.where(lungs, 70, 180) + waves + rng.normal(0, 5, y.shape)
    return np.uint8(np.clip(pixels, 0, 255)), np.uint8(255) * lungs


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, LONG_AGO)


def write_masked(folder: Path, patients: int = PATIENTS) -> Path:
    """Two films a patient, the first with a mask. Faults: a mask of another shape, a grey one, one without an image."""
    rows = []
    for n in range(patients):
        for k in range(2):
            pixels, mask = film(100 * n + k)
            name = f"film-{n}-{k}.{'jpg' if n % 2 else 'png'}"
            write(folder / "dataset/images" / name, (jpeg if n % 2 else png)(pixels))
            if k == 0:
                write(folder / "lung-masks" / name, png(mask))
            rows.append([n, "F", 60, "COVID-19", "PA", "X-ray", "images", name, "CC BY 4.0"])
    write(folder / "lung-masks/film-0-1.png", png(np.full((100, 80), 255, np.uint8)))
    write(folder / "lung-masks/film-1-1.jpg", png(film(101)[1] // 255))
    write(folder / "lung-masks/absent.png", png(film(7)[1]))
    with open(folder / "dataset/metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    os.utime(folder / "dataset/metadata.csv", LONG_AGO)
    return folder
