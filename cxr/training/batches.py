"""Batches of the train split, prepared in threads ahead of the step. What trains with them may be any backend."""

import functools
import math
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import keras
import numpy as np

from cxr.training.augment import augment, mix, move

if TYPE_CHECKING:
    from cxr.params import AugmentParams

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
AHEAD = 8  # batches: what one step longer than others does not use up


class Images(Protocol):
    """An array of images or `cxr.dataset.store.Pixels`."""

    def __len__(self) -> int: ...
    def __getitem__(self, positions: np.ndarray, /) -> np.ndarray: ...


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches of one epoch after another: images, targets and weights.

    A batch depends on seed, epoch and index alone, not on the threads that prepare it. The threads run side by side,
    because OpenCV does most of the work. Keras's own workers are not used: under JAX they feed batches that were
    prepared before the first epoch into that epoch.

    `images`: uint8 (n, size, size) when indexed. `labels`: int (n,). `copies`: how often an epoch shows each image.
    `weights`: float (n,), of each image in the loss. A batch: uint8 (k, size, size, 1), float32 (k, classes) and
    float32 (k,), of which each epoch's last has a smaller k. With `masks`, uint8 (n, size, size) when indexed, the
    targets are these, moved with their images: uint8 (k, size, size, 1), 1 inside and 0 outside.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        copies: np.ndarray,
        weights: np.ndarray,
        classes: int,
        batch_size: int,
        augmentation: "AugmentParams",
        seed: int,
        masks: Images | None = None,
    ) -> None:
        super().__init__()
        self.images = images
        self.masks = masks
        self.targets = np.eye(classes, dtype=np.float32)[labels]
        self.weights = weights.astype(np.float32)
        self.shown = np.repeat(np.arange(len(images)), copies)
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0
        self.multiple = 1  # of rows in a batch: the last is filled up with the epoch's first
        self._order = functools.lru_cache(2)(self._shuffle)
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1))  # four feed what one GPU takes
        self._begun: dict[int, Future[Batch]] = {}  # by number over all epochs
        self._lock = threading.Lock()

    def start(self, epoch: int) -> None:
        """Make the batches those of `epoch`."""
        self.epoch = epoch

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; Keras also does so before the first one that it fits."""
        self.start(self.epoch + 1)

    def __len__(self) -> int:
        return math.ceil(len(self.shown) / self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """A batch of the present epoch. Those behind it are begun, at the epoch's end those of the next one."""
        with self._lock:
            first = self.epoch * len(self) + index
            self._begun = {
                number: self._begun.get(number) or self._threads.submit(self.make, *divmod(number, len(self)))
                for number in range(first, first + AHEAD)
            }
            batch = self._begun.pop(first)
        return batch.result()

    def make(self, epoch: int, index: int) -> Batch:
        """One batch, in the thread that asks for it."""
        order = self._order(epoch)
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        rows = np.concatenate([rows, order[: -len(rows) % self.multiple]])
        rng = np.random.default_rng((self.seed, epoch, index))
        images = augment(self.images[rows], self.augmentation, rng)
        if self.masks is not None:
            moved = move(self.masks[rows], self.augmentation, np.random.default_rng((self.seed, epoch, index)))
            return images[..., np.newaxis], (moved > 0).astype(np.uint8)[..., np.newaxis], self.weights[rows]
        images, targets = mix(images, self.targets[rows], self.augmentation, rng)
        return images[..., np.newaxis], targets, self.weights[rows]

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.shown)
