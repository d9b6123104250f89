"""What can be read without the lungs, after each value of `ingest.pixels`: `python -m benchmarks.shortcuts [FOLDER]`.

FOLDER holds the real sources as FOLDER/kermany, FOLDER/nih and FOLDER/covid; without it the demo is drawn, with a seed
of its own. Nothing of a published test split is read. Gradient-boosted trees, cross-validated by patient, are asked
two questions: Normal or Pneumonia within Kermany, and which of the three sources. They see

file    width, height, aspect, bytes, bytes per pixel and bits of the file; no value of `ingest.pixels` changes
        them, and a model never sees them: it is what there is to leak
square  what is left of these in the square: its bytes as PNG and as JPEG, and the bars of a letterbox
ring    the outer sixteenth of the square, in 60 means
inside  the rest of it, in 196 means: what the film itself tells, for comparison

A figure is the AUROC (of three classes: each against the rest, averaged) and its standard deviation over the folds; 0.5
is nothing. The price is the share of the lungs that is cut off, by the masks in FOLDER/covid/lung-masks: on average and
in the worst image.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # small models on threads that wait for a shared core take ten times as long

import cv2
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cxr.demo import draw_source
from cxr.errors import ImageError
from cxr.params import Params, PixelParams, load_params
from cxr.pixels.canonical import cut_off, inside
from cxr.pixels.header import read_header
from cxr.pixels.radiograph import load_radiograph
from cxr.raw.archives import Tree
from cxr.sources import READERS, Found

SEED, FOLDS = 20261, 5
SIZE, GRID = 128, 16
PER_CLASS, PER_SOURCE = 600, 260
DRAWN = {"kermany": 800, "nih": 300, "covid": 300}

PLAIN = {"square": "letterbox", "crop": "none", "margin": 0.0, "grey": "none", "reencode": 0}
VARIANTS: list[dict] = [
    {},
    {"square": "stretch"},
    {"square": "crop"},
    {"crop": "border"},
    {"crop": "collimation"},
    {"margin": 0.03},
    {"margin": 0.05},
    {"margin": 0.1},
    {"grey": "percentile"},
    {"grey": "equalise"},
    {"grey": "clahe"},
    {"reencode": 90},
    {"reencode": 50},
    {"crop": "collimation", "grey": "percentile"},
    {"square": "stretch", "grey": "percentile"},
    {"square": "stretch", "crop": "collimation", "grey": "percentile"},
    {"square": "stretch", "crop": "collimation", "margin": 0.03, "grey": "percentile"},
    {"square": "stretch", "crop": "collimation", "margin": 0.03, "grey": "percentile", "reencode": 90},
    {"square": "stretch", "crop": "collimation", "margin": 0.1, "grey": "equalise", "reencode": 90},
    {"square": "crop", "crop": "collimation", "margin": 0.05, "grey": "percentile", "reencode": 90},
]


@dataclass(frozen=True)
class Sample:
    """One file with what is asked of it."""

    data: bytes
    source: str
    patient: str
    pneumonia: bool


@dataclass(frozen=True)
class Question:
    """`rows` of the samples, their classes and their patients."""

    name: str
    rows: np.ndarray
    y: np.ndarray
    patients: np.ndarray


def main() -> None:
    started = time.perf_counter()
    params = load_params()
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else draw_demo(Path(scratch))
        samples = [s for source in DRAWN for s in read_samples(source, folder / source, params, rng)]
        masked = read_masks(folder / "covid")
    questions = [ask_pneumonia(samples), ask_source(samples, rng)]
    for q in questions:
        counts = ", ".join(f"{n} {name}" for name, n in zip(*np.unique(q.y, return_counts=True), strict=True))
        print(f"{q.name}: {counts}; {len(np.unique(q.patients))} patients; file {measure(q, file_facts(samples))}")
    print(f"lungs: masks of {len(masked)} images\n")
    seen = ("square", "ring", "inside")
    print("| pixels |" + "".join(f" {q.name}: {part} |" for q in questions for part in seen) + " lungs cut off |")
    print("| --- |" + " --- |" * (len(seen) * len(questions) + 1))
    for changes in VARIANTS:
        pixels = params.ingest.pixels.model_copy(update={"size": SIZE} | PLAIN | changes)
        features = features_of(load_all(samples, pixels))
        cells = [in_words(changes), *(measure(q, x) for q in questions for x in features), price(masked, pixels)]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


def in_words(changes: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in changes.items()) or "letterbox alone"


def draw_demo(folder: Path) -> Path:
    for source, images in DRAWN.items():
        (folder / source).mkdir()
        draw_source(source, folder / source, images, SEED)
    return folder


def read_samples(source: str, root: Path, params: Params, rng: np.random.Generator) -> Iterator[Sample]:
    """Readable images outside the published test split, at most so many with pneumonia and so many without."""
    section = params.sources[source]
    items = [item for item in READERS[section.reader](Tree(root), section) if isinstance(item, Found)]
    items = [item for item in items if item.published_split != "test"]
    pneumonia = np.array(["pneumonia" in item.findings.lower() for item in items])
    chosen = set(draw(pneumonia, PER_CLASS if source == "kermany" else PER_SOURCE, rng))
    kept = {items[row].path: bool(pneumonia[row]) for row in chosen}
    for item in READERS[section.reader](Tree(root), section):  # again, since archives are read as they are walked
        if not isinstance(item, Found) or item.path not in kept:
            continue
        try:
            data = item.member.read()
            load_radiograph(data, params.ingest.pixels)
        except ImageError:
            continue
        yield Sample(data, source, f"{source}/{item.patient_id}", kept[item.path])


def draw(y: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of at most so many of each class, in order."""
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(y == value))[:most] for value in np.unique(y)]))


def ask_pneumonia(samples: list[Sample]) -> Question:
    rows = np.array([i for i, sample in enumerate(samples) if sample.source == "kermany"])
    y = np.array(["Pneumonia" if samples[i].pneumonia else "Normal" for i in rows])
    return Question("Pneumonia", rows, y, np.array([samples[i].patient for i in rows]))


def ask_source(samples: list[Sample], rng: np.random.Generator) -> Question:
    sources = np.array([sample.source for sample in samples])
    rows = draw(sources, PER_SOURCE, rng)
    return Question("source", rows, sources[rows], np.array([samples[i].patient for i in rows]))


def read_masks(covid: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images at half size with their lungs, uint8 and bool (height, width); none where there are no masks."""
    pairs = []
    for path in sorted((covid / "lung-masks").glob("*")):
        pixels = cv2.imread(str(covid / "covid-chestxray-dataset/images" / path.name), cv2.IMREAD_REDUCED_GRAYSCALE_2)
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if pixels is not None and mask is not None:
            pairs.append((pixels, cv2.resize(mask, pixels.shape[::-1], interpolation=cv2.INTER_NEAREST) > 127))
    return pairs


def price(masked: list[tuple[np.ndarray, np.ndarray]], pixels: PixelParams) -> str:
    if not masked:
        return ""
    lost = [1 - inside(lungs, cut_off(image, pixels)).sum() / lungs.sum() for image, lungs in masked]
    return f"{np.mean(lost):.1%}, {np.max(lost):.1%}"


def load_all(samples: list[Sample], pixels: PixelParams) -> np.ndarray:
    """uint8 (n, size, size), by the path that ingest and the service take."""
    with ThreadPoolExecutor() as threads:
        return np.stack(list(threads.map(lambda sample: load_radiograph(sample.data, pixels).image, samples)))


def file_facts(samples: list[Sample]) -> np.ndarray:
    rows = []
    for sample in samples:
        header, size = read_header(sample.data), len(sample.data)
        area = header.width * header.height
        rows.append([header.width, header.height, header.width / header.height, size, size / area, header.bits])
    return np.array(rows, float)


def features_of(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of uint8 (n, size, size): facts of the square (n, 4), the ring (n, 60), the inside (n, 196)."""
    facts, grids = [], []
    for image in images:
        lit = image > 0
        bars = [int(lit.any(axis=axis).argmax()) for axis in (0, 1)]
        facts.append([len(cv2.imencode(".png", image)[1]), len(cv2.imencode(".jpg", image)[1]), *bars])
        grids.append(cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA))
    ring = np.ones((GRID, GRID), bool)
    ring[1:-1, 1:-1] = False
    grid = np.array(grids, float)
    return np.array(facts, float), grid[:, ring], grid[:, ~ring]


def measure(question: Question, features: np.ndarray) -> str:
    x, y = features[question.rows], question.y
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    found = []
    for fit, held in folds.split(x, y, question.patients):
        model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=SEED).fit(x[fit], y[fit])
        scores = model.predict_proba(x[held])
        scores = scores[:, 1] if scores.shape[1] == 2 else scores
        found.append(roc_auc_score(y[held], scores, multi_class="ovr"))
    return f"{np.mean(found):.3f} ± {np.std(found):.3f}"


if __name__ == "__main__":
    main()
