"""Three tiny sources in their published layouts: a dozen patients each, one planted fault of each kind.

Brightness of a blob tells the class, so that one epoch can learn something; nothing here looks like a chest.
"""

import csv
import io
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
PATIENTS = 16  # per class and source


def picture(seed: int, bright: float, width: int = 96, height: int = 80) -> np.ndarray:
    """uint8 (height, width): a smooth texture of the seed's own with a blob of the given brightness (0 to 1)."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(
        rng.uniform(40, 160, (7, 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    y, x = np.mgrid[0:height, 0:width]
    blob = np.exp(-(((x - width / 2) / 16) ** 2) - ((y - height / 2) / 14) ** 2)
    return np.clip(texture + bright * 90 * blob, 0, 255).astype(np.uint8)


def encode(image: np.ndarray, extension: str) -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()


def write_kermany(folder: Path) -> None:
    """A zip. Faults: a truncated JPEG, one file twice under two patients across the published splits, junk."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        for n in range(PATIENTS):
            split = "test" if n % 4 == 0 else "train"
            for path, bright in (
                (f"NORMAL/IM-{n:04d}-0001.jpeg", 0.0),
                (f"PNEUMONIA/person{n}_bacteria_{n}.jpeg", 1.0),
                (f"PNEUMONIA/person{n}_virus_{n}.jpeg", 0.9),
            ):
                seed = 1000 * n + len(path) + int(100 * bright)
                archive.writestr(f"chest_xray/{split}/{path}", encode(picture(seed, bright), ".jpg"))
        twice = encode(picture(77, 0.0), ".jpg")
        archive.writestr("chest_xray/train/NORMAL/NORMAL2-IM-0095-0001.jpeg", twice)
        archive.writestr("chest_xray/test/NORMAL/NORMAL2-IM-0096-0001.jpeg", twice)
        archive.writestr("chest_xray/train/NORMAL/IM-0900-0001.jpeg", encode(picture(5, 0), ".jpg")[:-200])
        archive.writestr("__MACOSX/chest_xray/train/NORMAL/._IM-0900-0001.jpeg", b"junk")


def write_nih(folder: Path) -> None:
    """A tar.gz beside the table. Faults: a row without an image, an image without a row, several images a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    table, lists = [NIH_HEADER], {"train_val_list.txt": [], "test_list.txt": []}
    with tarfile.open(folder / "images_001.tar.gz", "w:gz") as archive:
        for n in range(2 * PATIENTS):
            finding, bright = (("No Finding", 0.0), ("Infiltration|Pneumonia", 1.0))[n % 2]
            for follow_up in range(1 + n % 2):
                name = f"{n:08d}_{follow_up:03d}.png"
                _add(archive, f"images/{name}", encode(picture(50_000 + 10 * n + follow_up, bright, 90, 90), ".png"))
                table.append(f"{name},{finding},{follow_up},{n},{30 + n},{'MF'[n % 2]},PA,90,90,0.14,0.14\n")
                lists["test_list.txt" if n % 5 == 0 else "train_val_list.txt"].append(name)
        _add(archive, "images/99999999_000.png", encode(picture(1, 0, 90, 90), ".png"))
    table.append("00000777_000.png,No Finding,0,777,50,F,PA,90,90,0.14,0.14\n")
    table.append("00000778_000.png,Hernia,0,778,411,F,AP,90,90,0.14,0.14\n")
    (folder / "Data_Entry_2017_v2020.csv").write_text("".join(table))
    for name, images in lists.items():
        (folder / name).write_text("\n".join(images))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def write_covid(folder: Path) -> None:
    """A folder. Faults: a lateral, a CT, a `todo`, an unstated view, and a rescaled copy of an NIH image."""
    images = folder / "covid-chestxray-dataset/images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []

    def add(patient: int, finding: str, view: str, modality: str, name: str, image: np.ndarray) -> None:
        (images / name).write_bytes(encode(image, Path(name).suffix))
        rows.append([patient, "F", 60, finding, view, modality, "images", name, "CC BY 4.0"])

    for n in range(PATIENTS):
        add(n, "COVID-19", "AP Supine", "X-ray", f"covid-{n}.png", picture(9000 + n, -0.8, 110, 100))
        add(100 + n, "Streptococcus", "PA", "X-ray", f"strep-{n}.jpg", picture(9100 + n, 1.0, 110, 100))
    add(200, "COVID-19", "L", "X-ray", "lateral.png", picture(1, 0))
    add(201, "COVID-19", "Axial", "CT", "ct.png", picture(2, 0))
    add(202, "todo", "PA", "X-ray", "todo.png", picture(3, 0))
    add(203, "COVID-19", "", "X-ray", "unstated.png", picture(4, 0))
    copy = cv2.resize(picture(50_000, 0.0, 90, 90), (140, 140), interpolation=cv2.INTER_CUBIC)
    add(204, "No Finding", "PA", "X-ray", "copy-of-nih-0.jpg", copy)
    with open(folder / "covid-chestxray-dataset/metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patientid", "sex", "age", "finding", "view", "modality", "folder", "filename", "license"])
        writer.writerows([*rows, [300, "M", 50, "COVID-19", "PA", "X-ray", "images", "absent.png", ""]])


WRITERS = {"kermany": write_kermany, "nih": write_nih, "covid": write_covid}
