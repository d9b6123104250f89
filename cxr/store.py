"""Pixels at rest: shards of uint8 (n, size, size), memory-mapped when read.

Beside `shard-00000.npy`, which the model reads, lies `thumbs-00000.npy`, uint8 (n, 64, 64): see `cxr.images`.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd


class ShardWriter:
    """Writes images in order into `shard-00000.npy`, `shard-00001.npy`, ... of at most `shard_images` each."""

    def __init__(self, folder: Path, shard_images: int) -> None:
        self.folder = folder
        self.shard_images = shard_images
        self._images: list[np.ndarray] = []
        self._thumbs: list[np.ndarray] = []
        self._shards = 0

    def add(self, image: np.ndarray, thumb: np.ndarray) -> tuple[str, int]:
        """Take one uint8 (size, size) image; returns the shard's file name and the row in it."""
        place = f"shard-{self._shards:05d}.npy", len(self._images)
        self._images.append(image)
        self._thumbs.append(thumb)
        if len(self._images) == self.shard_images:
            self.close()
        return place

    def close(self) -> None:
        """Write what is still in memory."""
        if self._images:
            for images, kind in ((self._images, "shard"), (self._thumbs, "thumbs")):
                whole = io.BytesIO()  # np.save to a full disk raises an error that does not say so
                np.save(whole, np.stack(images))
                (self.folder / f"{kind}-{self._shards:05d}.npy").write_bytes(whole.getbuffer())
            self._images, self._thumbs = [], []
            self._shards += 1


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
