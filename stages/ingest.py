"""Stream one source once: decode, square and shrink each image into shards; keep what is said of it as records."""

import csv
import hashlib
import logging
import os
import shutil
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import cv2
from tqdm import tqdm

from cxr.archives import Tree
from cxr.content import judge
from cxr.errors import CxrError, ImageError, SourceError, plain_errors
from cxr.images import Radiograph, describe, load_radiograph
from cxr.manifest import RECORD_COLUMNS, to_table, write_table
from cxr.params import IngestParams, SourceParams, load_params
from cxr.sources import READERS, Found, SetAside
from cxr.store import ShardWriter

Decoded = tuple[Radiograph, dict[str, float], str]


def ingest(source: str, reading: SourceParams, params: IngestParams, raw: Path, images: Path) -> None:
    """Read `raw` and write shards, `records.parquet` and `rejected.csv` to `images`, whole or not at all."""
    part = images.with_name(images.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        records, rejected = _ingest(source, reading, params, raw, part)
        if not records:
            raise SourceError(
                f"{raw}: none of {len(rejected)} files or rows gave an image; is this the source {source}?"
            )
        write_table(to_table(records, RECORD_COLUMNS), part / "records.parquet")
        with open(part / "rejected.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "reason", "detail"))
            writer.writerows((r.path, r.reason, r.detail) for r in rejected)
        shutil.rmtree(images, ignore_errors=True)
        part.rename(images)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(
        f"{source}: {len(records)} images ingested, {len(rejected)} files or rows left out (see {images}/rejected.csv)"
    )


def _ingest(
    source: str, reading: SourceParams, params: IngestParams, raw: Path, folder: Path
) -> tuple[list[dict], list[SetAside]]:
    records, rejected = [], []
    shards = ShardWriter(folder, params.shard_images)
    for item, decoded in tqdm(
        decode_all(READERS[reading.reader](Tree(raw), reading), params), desc=f"ingest {source}", unit=" files"
    ):
        if isinstance(item, SetAside):
            rejected.append(item)
        elif isinstance(decoded, ImageError):
            rejected.append(SetAside(item.path, "unreadable image", str(decoded)))
        elif decoded is not None:
            records.append(_record(source, item, decoded, *shards.add(decoded[0].image, decoded[0].thumb)))
    shards.close()
    return records, rejected


def decode_all(
    items: Iterable[Found | SetAside], params: IngestParams
) -> Iterator[tuple[Found | SetAside, Decoded | ImageError | None]]:
    """Decode in worker processes, in order, with a bounded number of files in memory."""
    workers = os.cpu_count() or 1
    # spawned, not forked: a fork copies the threads' locks of OpenCV and Arrow in whatever state they are
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=prepare_worker) as pool:
        waiting: deque[tuple[Found | SetAside, Future | None]] = deque()
        for item in items:
            future = pool.submit(decode, item.member.read(), params) if isinstance(item, Found) else None
            waiting.append((item, future))
            if len(waiting) > 8 * workers:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def _finished(item: Found | SetAside, future: Future | None) -> tuple[Found | SetAside, Decoded | ImageError | None]:
    try:
        return item, future.result() if future else None
    except BrokenProcessPool:
        raise CxrError(f"ingest: a worker process was killed near {item.path}; is memory short? Run again") from None


def prepare_worker() -> None:
    """One thread a worker, no word of a file in its log: pydicom's warnings may quote a patient's name."""
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def decode(data: bytes, params: IngestParams) -> Decoded | ImageError:
    """One file's radiograph, descriptors and SHA-256; the error is returned, for a worker's exception ends the pool."""
    try:
        radiograph = load_radiograph(data, params.pixels)
    except ImageError as error:
        return error
    return radiograph, describe(radiograph), hashlib.sha256(data).hexdigest()


def _record(source: str, found: Found, decoded: Decoded, shard: str, row: int) -> dict:
    radiograph, descriptors, sha256 = decoded
    return {
        "image_id": f"{source}/{found.path}",
        "source": source,
        "patient_id": f"{source}/{found.patient_id}",
        "view_position": found.view_position,
        "age_years": found.age_years,
        "sex": found.sex,
        "laterality": found.laterality,
        "findings": found.findings,
        "published_split": found.published_split,
        "licence": found.licence,
        "boxes": found.boxes,
        "width": radiograph.width,
        "height": radiograph.height,
        "bits": radiograph.bits,
        "sha256": sha256,
        "phash": radiograph.phash,
        "shard": shard,
        "row": row,
        "content_score": judge(radiograph.thumb).score,
        **descriptors,
    }


if __name__ == "__main__":
    with plain_errors():
        name = sys.argv[1]  # dvc.yaml names the sources
        p = load_params()
        ingest(name, p.sources[name], p.ingest, Path("data/raw") / name, Path("data/images") / name)
