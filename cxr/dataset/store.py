"""Pixels at rest: append-only shards below `data/images/<source>/`, memory-mapped when read.

A shard is three files: `shard-00000.npy`, uint8 (n, size, size), the squares that the model reads;
`thumbs-00000.npy`, uint8 (n, 64, 64), see `cxr.pixels.thumbs`; and `facts-00000.parquet`, what decoding found out about
each file, unreadable ones included. Where one of its images has a mask there is a fourth: `masks-00000.npy`, uint8
(n, size, size), see `cxr.pixels.masks`, with zeros for the others. The facts are written last; a shard
without them does not count. A whole shard is never written again, so a killed run goes on after the last one, and new
images cost only themselves. A new mask of an old image costs one more decoding of that image.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.dataset.manifest import FACT_COLUMNS, read_table, to_table, write_table
from cxr.files import write_whole

Key = tuple[str, str | None]  # SHA-256 of a file's bytes, and of those that its mask is made of
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
            # `facts` and `records` go before the pixels they speak of
            for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".npy", path)):
                path.unlink()
            write_whole(told, text.encode())
        whole = sorted(folder.glob("facts-*.parquet"))
        for path in folder.glob("*-*.npy"):
            if not (folder / f"facts-{path.stem.partition('-')[2]}.parquet").exists():
                path.unlink()
        self._tables = [read_table(path, FACT_COLUMNS) for path in whole]
        self._next_shard = int(whole[-1].stem.partition("-")[2]) + 1 if whole else 0
        self._images: list[np.ndarray] = []
        self._thumbs: list[np.ndarray] = []
        self._masks: list[np.ndarray | None] = []
        self._facts: list[dict] = []
        facts = self.facts()
        of_masks = facts["mask_sha256"].astype(object).where(facts["mask_sha256"].notna(), None)
        keys: list[Key] = list(zip(facts["sha256"], of_masks, strict=True))
        self._position = {key: i for i, key in enumerate(keys)}
        self._key = dict(zip(facts["path"], keys, strict=True))
        self._digests = {digest for key in keys for digest in key}

    def __len__(self) -> int:
        return len(self._position)

    def position_of(self, key: Key | None) -> int:
        """Where the facts about these bytes stand in `facts`, -1 where they are new."""
        return self._position.get(key, -1) if key else -1

    def key_of(self, path: str) -> Key | None:
        """What the file at `path` and its mask were when they were decoded."""
        return self._key.get(path)

    def holds(self, sha256: str) -> bool:
        """Whether a file of these bytes, an image or a mask, was decoded before."""
        return sha256 in self._digests

    def add(
        self, path: str, key: Key, facts: dict | None = None, image: np.ndarray | None = None,
        thumb: np.ndarray | None = None, mask: np.ndarray | None = None,
    ) -> int:  # fmt: skip
        """Take one decoded file (see `stages.ingest.decode.Decoded`); returns its position in `facts`.

        Bytes that are known already are not kept twice.
        """
        known = self._position.get(key)
        if known is not None or facts is None:
            return self._position[key]
        place = {"shard": None, "row": -1}
        if image is not None and thumb is not None:
            place = {"shard": f"shard-{self._next_shard:05d}.npy", "row": len(self._images)}
            self._images.append(image)
            self._thumbs.append(thumb)
            self._masks.append(mask)
        sha256, mask_sha256 = key
        told = {"path": path, "sha256": sha256, "mask_sha256": mask_sha256}
        self._facts.append(NO_FACTS | facts | place | told)
        self._position[key] = len(self._position)
        if len(self._images) == self.shard_images:
            self.flush()
        return self._position[key]

    def flush(self) -> None:
        """Write what is still in memory as a shard, shorter than the others perhaps."""
        if not self._facts:
            return
        if self._images:
            for kind, images in (("shard", self._images), ("thumbs", self._thumbs)):
                write_whole(self.folder / f"{kind}-{self._next_shard:05d}.npy", npy_header(images), *images)
        if any(mask is not None for mask in self._masks):
            masks = [np.zeros_like(self._images[0]) if mask is None else mask for mask in self._masks]
            write_whole(self.folder / f"masks-{self._next_shard:05d}.npy", npy_header(masks), *masks)
        table = to_table(self._facts, FACT_COLUMNS)
        write_table(table, self.folder / f"facts-{self._next_shard:05d}.parquet")
        self._tables.append(table)
        self._images, self._thumbs, self._masks, self._facts = [], [], [], []
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


class Pixels:
    """The images of `rows` (columns source, shard, row) in the memory-mapped shards below `root`/<source>/.

    It is indexed as an array of `shape` (n, size, size) is: `pixels[positions]` reads them, as uint8 (k, size, size).
    Several threads may read at once.
    """

    def __init__(self, root: Path, rows: pd.DataFrame, kind: str = "shard") -> None:
        names = rows["source"] + "/" + rows["shard"].str.replace("shard", kind)
        self._shard, opened = pd.factorize(names)
        # plain arrays over the mapped files: np.memmap takes longer to index than an image to copy
        self._shards = [np.asarray(np.load(root / name, mmap_mode="r")) for name in opened]
        self._row = rows["row"].to_numpy()
        self.shape = (len(rows), *(self._shards[0].shape[1:] if self._shards else (0, 0)))

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        images = np.empty((len(positions), *self.shape[1:]), np.uint8)
        for image, shard, row in zip(images, self._shard[positions], self._row[positions], strict=True):
            image[:] = self._shards[shard][row]
        return images


def read_images(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """The images of `rows` (columns source, shard, row) below `root`/<source>/, as uint8 (n, size, size)."""
    return Pixels(root, rows)[np.arange(len(rows))]


def read_masks(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """The masks of `rows`, which have one, as uint8 (n, size, size), 0 or 255; see `cxr.pixels.masks`."""
    return Pixels(root, rows, "masks")[np.arange(len(rows))]


def read_thumbs(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """The thumbs of `rows`, as uint8 (n, 64, 64)."""
    return Pixels(root, rows, "thumbs")[np.arange(len(rows))]
