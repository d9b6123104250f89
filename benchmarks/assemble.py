"""What `assemble` takes at the size of all sources together, and how that grows with the number of images.

`python -m benchmarks.assemble FOLDER` reads the real tables and names below FOLDER: NIH's 112,120 rows with its two
lists, Kermany's and the COVID collections' files, RSNA's classes. The films are made, as 42 GB are not at hand: two
real ones laid over each other, shifted and turned, those of one patient alike, and their hashes about as close to each
other as those of real films (the first line says how close). Copies are planted: all of RSNA's, and a few in NIH. The
stage runs in a process of its own on shards of thumbs as ingest leaves them. The last column is the processor seconds
over n log n, as a multiple of the first row's.
"""

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml

from cxr.dataset.manifest import DESCRIPTORS, RECORD_COLUMNS, write_table
from cxr.params import PublishedSource
from cxr.pixels.thumbs import perceptual_hash, to_thumb
from cxr.raw.archives import Tree
from cxr.sources import READERS, Found

ROOT = Path(__file__).resolve().parent.parent
SIZES = (15_000, 30_000, 60_000, 120_000)
SOURCES = ("nih", "kermany", "covid", "rsna")
SHARD = 1024
FILMS = 3000  # real ones that the made ones are mixed from
TWINS = 0.002  # share of NIH's images that are another's copy
REJECTED = "path,reason,detail,score,shard,row\n"


# The records


def read_records(folder: Path) -> pd.DataFrame:
    """What the sources say of all their images: image_id, source, patient_id, findings, published_split."""
    entries = pd.read_csv(folder / "nih/Data_Entry_2017_v2020.csv", dtype=str)
    test = set((folder / "nih/test_list.txt").read_text().split())
    nih = pd.DataFrame(
        {
            "path": "images/" + entries["Image Index"],
            "patient_id": entries["Patient ID"],
            "findings": entries["Finding Labels"],
            "published_split": ["test" if name in test else "train" for name in entries["Image Index"]],
        }
    )
    classes = pd.read_csv(folder / "rsna/stage_2_detailed_class_info.csv").drop_duplicates("patientId")
    rsna = pd.DataFrame(
        {
            "path": "stage_2_train_images/" + classes["patientId"] + ".dcm",
            "patient_id": classes["patientId"],
            "findings": classes["class"],
            "published_split": None,
        }
    )
    tables = {"nih": nih, "kermany": read_source(folder, "kermany"), "covid": read_source(folder, "covid")}
    rows = pd.concat([table.assign(source=name) for name, table in (tables | {"rsna": rsna}).items()])
    rows["image_id"] = rows["source"] + "/" + rows["path"]
    rows["patient_id"] = rows["source"] + "/" + rows["patient_id"]
    return rows.drop(columns="path").reset_index(drop=True)


def read_source(folder: Path, source: str) -> pd.DataFrame:
    reader = READERS[source](Tree(folder / source), PublishedSource(reader=source, origin=str(folder)))
    said = ["path", "patient_id", "findings", "published_split"]
    return pd.DataFrame(
        [[getattr(item, name) for name in said] for item in reader if isinstance(item, Found)], columns=said
    )


def choose(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first `n` images: NIH, Kermany and COVID in their shares, whole patients; RSNA's for what is missing."""
    own = rows[rows["source"] != "rsna"]
    share = min(n / 120_000, 1)
    parts = [part.iloc[: round(share * len(part))] for _, part in own.groupby("source", sort=False)]
    return pd.concat([*parts, rows[rows["source"] == "rsna"].iloc[: n - sum(map(len, parts))]], ignore_index=True)


# The films


def read_films(folder: Path, rng: np.random.Generator) -> np.ndarray:
    """Thumbs of real films, uint8 (n, 64, 64)."""
    files = sorted((folder / "kermany").rglob("*.jpeg")) + sorted((folder / "nih/images").glob("*.png"))
    chosen = rng.choice(len(files), FILMS, replace=False)
    return np.stack([to_thumb(cv2.imread(str(files[i]), cv2.IMREAD_GRAYSCALE)) for i in chosen])


def moved(film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As another breath and another place before the detector would show it."""
    turn, (across, down) = np.deg2rad(rng.normal(0, 3)), 1 + rng.normal(0, 0.05, 2)
    linear = np.array([[np.cos(turn) * across, -np.sin(turn) * down], [np.sin(turn) * across, np.cos(turn) * down]])
    middle = np.full(2, (len(film) - 1) / 2)
    shift = middle - linear @ middle + rng.normal(0, 0.04, 2) * len(film)
    return cv2.warpAffine(film, np.c_[linear, shift].astype(np.float32), film.shape, borderMode=cv2.BORDER_REFLECT_101)


def over(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    return cv2.addWeighted(first, weight, second, 1 - weight, 0)


def make_films(rows: pd.DataFrame, films: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A thumb for each row, uint8 (n, 64, 64), and how many of them are copies of others."""

    def any_film() -> np.ndarray:
        return films[rng.integers(len(films))]

    thumbs = np.empty((len(rows), *films.shape[1:]), np.uint8)
    chests: dict[str, np.ndarray] = {}
    for i, patient in enumerate(rows["patient_id"]):
        if patient not in chests:
            chests[patient] = over(moved(any_film(), rng), moved(any_film(), rng), rng.uniform(0.5, 0.8))
        thumbs[i] = over(moved(chests[patient], rng), any_film(), 0.75)
    nih = np.flatnonzero(rows["source"] == "nih")
    copies = np.flatnonzero(rows["source"] == "rsna")
    copies = np.concatenate([copies, rng.choice(nih[len(nih) // 2 :], round(TWINS * len(nih)), replace=False)])
    for i, original in zip(copies, rng.choice(nih[: len(nih) // 2], len(copies), replace=False), strict=True):
        gamma = (np.arange(256) / 255) ** rng.uniform(0.8, 1.25) * 255 * rng.uniform(0.9, 1)
        again = cv2.imencode(".jpg", cv2.LUT(thumbs[original], gamma.astype(np.uint8)), [cv2.IMWRITE_JPEG_QUALITY, 80])
        thumbs[i] = cv2.imdecode(again[1], cv2.IMREAD_GRAYSCALE)
    return thumbs, len(copies)


def closeness(thumbs: np.ndarray) -> str:
    """Bits between hashes: below which one pair in 100,000 and one in 1,000 lie, and the median pair."""
    hashes = np.frombuffer(b"".join(perceptual_hash(thumb) for thumb in thumbs), np.uint8).reshape(len(thumbs), -1)
    signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
    distances = (256 - (signs @ signs.T)[np.triu_indices(len(signs), 1)]) / 2
    return ", ".join(f"{np.percentile(distances, q):.0f}" for q in (0.001, 0.1, 50))


# The run


def write_repository(folder: Path, rows: pd.DataFrame, thumbs: np.ndarray, rng: np.random.Generator) -> None:
    """Shards and records as ingest leaves them, and a params.yaml that names the sources."""
    for source in SOURCES:
        images = folder / "data/images" / source
        here = (rows["source"] == source).to_numpy()
        table = rows[here].reset_index(drop=True)
        place = table.index.to_numpy()
        table["sha256"] = [rng.bytes(32).hex() for _ in place]
        table["phash"] = [perceptual_hash(thumb) for thumb in thumbs[here]]
        table["shard"] = [f"shard-{i // SHARD:05d}.npy" for i in place]
        table["row"] = place % SHARD
        table[["width", "height", "bits", "content_score"]] = (1024, 1024, 8, 1.0)
        table[list(DESCRIPTORS)] = rng.random((len(table), len(DESCRIPTORS)), np.float32)
        write_table(table.reindex(columns=list(RECORD_COLUMNS)).astype(RECORD_COLUMNS), images / "records.parquet")
        for start in range(0, len(table), SHARD):
            np.save(images / f"thumbs-{start // SHARD:05d}.npy", thumbs[here][start : start + SHARD])
        (images / "rejected.csv").write_text(REJECTED)
    (folder / "data/reviewed_pairs.csv").write_text("image_a,image_b,verdict\n")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["sources"] = {source: {"reader": source, "origin": "/data"} for source in SOURCES}
    params["assemble"] |= {"official_test": ["kermany", "nih"], "label_priority": ["rsna"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run(folder: Path) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak resident MB of the stage in a process of its own, start included."""
    command = [sys.executable, "-m", "stages.assemble"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"assemble ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the real sources")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="images; above 118,000 more and more of RSNA's"
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rows, films = read_records(arguments.folder), read_films(arguments.folder, rng)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}")
    made, _ = make_films(rows.iloc[:FILMS], films, rng)
    print(f"bits between hashes at 1e-5, 1e-3 and half of all pairs: real {closeness(films)}, made {closeness(made)}\n")
    print("| images | copies planted | seconds | processor seconds | peak MB | per n log n |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    first = None
    for n in arguments.sizes:
        chosen = choose(rows, n)
        thumbs, planted = make_films(chosen, films, rng)
        with tempfile.TemporaryDirectory() as scratch:
            write_repository(Path(scratch), chosen, thumbs, rng)
            del thumbs
            seconds, processor, peak = run(Path(scratch))
        rate = processor / (len(chosen) * math.log(len(chosen)))
        first = first or rate
        print(
            f"| {len(chosen):,} | {planted:,} | {seconds:.1f} | {processor:.1f} | {peak:,.0f} | {rate / first:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
