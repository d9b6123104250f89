"""Pixels at rest: append-only shards below `data/images/<source>/`, memory-mapped when read.

A shard is three files: `shard-00000.npy`, uint8 (n, size, size), the squares that the model reads;
`thumbs-00000.npy`, uint8 (n, 64, 64), see `cxr.thumbs`; and `facts-00000.parquet`, what decoding found out about each
file, unreadable ones included. The facts are written last: a shard without them is not there. A whole shard is never
written again, so that a run that was killed goes on behind the last one, and new images cost only themselves.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.manifest import FACT_COLUMNS, read_table, to_table, write_table

NO_FACTS = dict.fromkeys(FACT_COLUMNS) | {"width": 0, "height": 0, "bits": 0}  # of a file without an image


class ShardStore:
    """The shards of one source. `facts` is one table (FACT_COLUMNS) over all of them, in the order of writing."""

    def __init__(self, folder: Path, recipe: dict, shard_images: int) -> None:
        """Open `folder`; what another `recipe` made, or what was left half-written, is removed."""
        self.folder = folder
        self.shard_images = shard_images
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):
            part.unlink()
        told = folder / "recipe.json"
        text = json.dumps(recipe, indent=2, sort_keys=True) + "\n"
        if not told.exists() or told.read_text() != text:
            for path in sorted(folder.iterdir()):  # `facts` and `records` go before the pixels they speak of
                path.unlink()
            write_whole(told, text.encode())
        whole = sorted(folder.glob("facts-*.parquet"))
        for path in [*folder.glob("shard-*.npy"), *folder.glob("thumbs-*.npy")]:
            if not (folder / f"facts-{path.stem.partition('-')[2]}.parquet").exists():
                path.unlink()
        self._tables = [read_table(path, FACT_COLUMNS) for path in whole]
        self._next_shard = int(whole[-1].stem.partition("-")[2]) + 1 if whole else 0
        self._images: list[np.ndarray] = []
        self._thumbs: list[np.ndarray] = []
        self._facts: list[dict] = []
        facts = self.facts()
        self._position = {sha256: i for i, sha256 in enumerate(facts["sha256"])}
        self._digest = dict(zip(facts["path"], facts["sha256"], strict=True))

    def __len__(self) -> int:
        return len(self._position)

    def position_of(self, sha256: str | None) -> int:
        """Where the facts about these bytes stand in `facts`, -1 where they are new."""
        return self._position.get(sha256, -1) if sha256 else -1

    def digest_of(self, path: str) -> str | None:
        """SHA-256 that the file at `path` had when it was decoded."""
        return self._digest.get(path)

    def add(
        self, path: str, sha256: str, facts: dict | None = None, image: np.ndarray | None = None,
        thumb: np.ndarray | None = None,
    ) -> int:  # fmt: skip
        """Take one decoded file (see `cxr.decoding.Decoded`); returns its position in `facts`.

        Bytes that are known already are not kept twice.
        """
        known = self._position.get(sha256)
        if known is not None or facts is None:
            return self._position[sha256]
        place = {"shard": None, "row": -1}
        if image is not None and thumb is not None:
            place = {"shard": f"shard-{self._next_shard:05d}.npy", "row": len(self._images)}
            self._images.append(image)
            self._thumbs.append(thumb)
        self._facts.append(NO_FACTS | facts | place | {"path": path, "sha256": sha256})
        self._position[sha256] = len(self._position)
        if len(self._images) == self.shard_images:
            self.flush()
        return self._position[sha256]

    def flush(self) -> None:
        """Write what is still in memory as a shard, shorter than the others perhaps."""
        if not self._facts:
            return
        if self._images:
            for kind, images in (("shard", self._images), ("thumbs", self._thumbs)):
                write_whole(self.folder / f"{kind}-{self._next_shard:05d}.npy", npy_header(images), *images)
        table = to_table(self._facts, FACT_COLUMNS)
        write_table(table, self.folder / f"facts-{self._next_shard:05d}.parquet")
        self._tables.append(table)
        self._images, self._thumbs, self._facts = [], [], []
        self._next_shard += 1

    def facts(self) -> pd.DataFrame:
        """All that was flushed."""
        return pd.concat(self._tables, ignore_index=True) if self._tables else to_table([], FACT_COLUMNS)


def npy_header(images: list[np.ndarray]) -> bytes:
    """The start of a .npy file of `images` one behind the other: np.save would copy them twice."""
    header = io.BytesIO()
    shape = (len(images), *images[0].shape)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def write_whole(path: Path, *parts: bytes | np.ndarray) -> None:
    """Write under a temporary name, then rename, so that no half-written file is taken for whole."""
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())  # the facts that follow must not outlive it in a power cut
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_images(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """Gather the images of `rows` (columns source, shard, row) from `root`/<source>/, as uint8 (n, size, size)."""
    return _gather(root, rows, "shard")


def read_thumbs(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """Gather the thumbs of `rows`, as uint8 (n, 64, 64)."""
    return _gather(root, rows, "thumbs")


def _gather(root: Path, rows: pd.DataFrame, kind: str) -> np.ndarray:
    images: np.ndarray | None = None
    position = np.arange(len(rows))
    sources, shards, places = (rows[name].to_numpy() for name in ("source", "shard", "row"))
    for source, shard in dict.fromkeys(zip(sources, shards, strict=True)):
        here = position[(sources == source) & (shards == shard)]
        pixels = np.load(root / source / shard.replace("shard", kind), mmap_mode="r")
        if images is None:
            images = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
        images[here] = pixels[places[here]]
    return images if images is not None else np.empty((0, 0, 0), np.uint8)
