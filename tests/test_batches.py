"""The input side of training: pixels from mapped shards, and batches that no thread and no interruption changes."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.dataset.store import Pixels, read_images
from cxr.params import load_params

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from cxr.training.batches import AHEAD, Batches

AUGMENT = load_params().train.augment.model_copy(update={"erase": 0.3, "mixup": 0.2, "horizontal_flip": True})
LABELS = np.arange(40) % 3
COPIES = 1 + np.arange(40) % 2  # 60 images an epoch, in 8 batches
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16)).astype(np.uint8)


class SlowImages:
    """Images that come after a time of chance, so that later batches are ready before earlier ones."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, 0

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        self.asked += 1
        time.sleep(random.uniform(0, self.seconds))  # noqa: S311
        return IMAGES[positions]


def batches_of(images=IMAGES, threads: int = 4) -> Batches:
    batches = Batches(images, LABELS, COPIES, np.linspace(0.5, 2, 40), 3, 8, AUGMENT, 7)
    batches._threads = ThreadPoolExecutor(threads)
    return batches


def same(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    return len(a) == len(b) and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    alone, batches = batches_of(), batches_of(SlowImages(0.01), threads)
    for epoch in range(3):
        for index in range(len(batches)):
            assert same(batches[index], alone.make(epoch, index))
        batches.on_epoch_end()


def test_a_later_start_goes_on_with_the_same_bytes():
    whole, resumed = batches_of(), batches_of()
    for epoch in range(3):
        whole.start(epoch)
        last = [whole[index] for index in range(len(whole))]
    resumed.start(2)
    assert all(same(resumed[index], last[index]) for index in range(len(last)))
    resumed.start(1)  # back again, as no fit goes
    assert same(resumed[0], whole.make(1, 0))
    assert not same(resumed[0], last[0])


def test_an_epoch_shows_every_image_as_often_as_asked_in_an_order_of_its_own():
    batches = Batches(IMAGES, LABELS, COPIES, np.arange(40.0), 3, 8, load_params().train.augment, 7)
    orders = []
    for epoch in range(2):
        rows = np.concatenate([batches.make(epoch, index)[2] for index in range(len(batches))]).astype(int)
        assert (np.bincount(rows) == COPIES).all()
        targets = np.concatenate([batches.make(epoch, index)[1] for index in range(len(batches))])
        assert (targets.argmax(axis=1) == LABELS[rows]).all()
        orders.append(rows)
    assert (orders[0] != orders[1]).any()
    assert len(batches[7][0]) == 4  # 60 = 7 * 8 + 4


def test_an_image_never_looks_the_same_twice():
    """One image, twice an epoch in batches of one: seed, epoch and index each change what is made of it."""
    zero, one = np.zeros(1, int), np.ones(1)
    views = [
        Batches(IMAGES[:1], zero, np.array([2]), one, 3, 1, AUGMENT, seed).make(epoch, index)[0].tobytes()
        for seed in (7, 8)
        for epoch in range(3)
        for index in range(2)
    ]
    assert len(set(views)) == len(views)


def test_the_last_batch_is_filled_up_for_all_devices():
    batches = batches_of()
    batches.multiple = 3
    images, targets, weights = batches[7]
    assert images.shape == (6, 16, 16, 1)
    assert (len(targets), len(weights)) == (6, 6)
    assert (weights[4:] == batches_of().make(0, 0)[2][:2]).all()


def test_batches_are_prepared_ahead_and_only_so_many():
    images = SlowImages(0)
    batches = batches_of(images)
    batches[0]
    time.sleep(0.2)  # nobody asks for more
    assert images.asked == AHEAD
    for index in range(1, len(batches)):
        batches[index]
    batches.on_epoch_end()
    for index in range(len(batches)):
        batches[index]
    time.sleep(0.1)
    assert images.asked == 2 * len(batches) + AHEAD - 1  # none twice, at the turn of the epoch neither


def test_two_readers_at_once_get_what_they_asked_for():
    """As where Keras drops an iterator whose thread still reads, and begins another."""
    batches = batches_of(SlowImages(0.002))
    expected = [batches.make(0, index) for index in range(len(batches))]
    with ThreadPoolExecutor(2) as readers:
        for found in readers.map(lambda _: [batches[index] for index in range(len(batches))], range(2)):
            assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_what_cannot_be_read_is_told_to_the_reader():
    class Gone(SlowImages):
        def __getitem__(self, positions: np.ndarray) -> np.ndarray:
            raise OSError("shard-00000.npy: no such file")

    with pytest.raises(OSError, match=r"shard-00000.npy"):
        batches_of(Gone(0))[0]


class Recorder(keras.Model):
    """Keeps what `fit` feeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[np.ndarray, ...]] = []

    def call(self, x):
        return x

    def train_step(self, data):
        self.seen.append(tuple(np.asarray(part) for part in data))
        return {"loss": 0.0}


def test_keras_feeds_the_batches_of_each_epoch_in_order():
    batches, model = batches_of(SlowImages(0.01)), Recorder()
    model.compile(loss="mse", run_eagerly=True)
    batches.start(5)
    model.fit(batches, epochs=8, initial_epoch=5, shuffle=False, verbose=0)
    assert len(model.seen) == 3 * len(batches)
    for k, found in enumerate(model.seen):
        epoch, index = divmod(k, len(batches))
        assert same(found, batches.make(6 + epoch, index))  # Keras ends an epoch before the first


def write_shards(root: Path) -> pd.DataFrame:
    """Two sources, three shards; the rows in an order that mixes them."""
    rows = []
    for source, shard, first, last in [("a", 0, 0, 16), ("a", 1, 16, 25), ("b", 0, 25, 40)]:
        (root / source).mkdir(exist_ok=True)
        np.save(root / source / f"shard-{shard:05d}.npy", IMAGES[first:last])
        rows += [(source, f"shard-{shard:05d}.npy", row) for row in range(last - first)]
    return pd.DataFrame(rows, columns=["source", "shard", "row"])


def test_pixels_are_indexed_as_the_array_of_all_is(tmp_path):
    order = np.random.default_rng(1).permutation(40)
    rows = write_shards(tmp_path).iloc[order]
    pixels = Pixels(tmp_path, rows)
    assert (len(pixels), pixels.shape) == (40, (40, 16, 16))
    assert (read_images(tmp_path, rows) == IMAGES[order]).all()
    some = np.array([3, 3, 39, 0])
    assert (pixels[some] == IMAGES[order][some]).all()
    assert pixels[some].dtype == np.uint8
    assert pixels[np.array([], int)].shape == (0, 16, 16)
    assert read_images(tmp_path, rows.iloc[:0]).shape == (0, 0, 0)
    a = Batches(pixels, LABELS, COPIES, np.ones(40), 3, 8, AUGMENT, 7)
    b = Batches(IMAGES[order], LABELS, COPIES, np.ones(40), 3, 8, AUGMENT, 7)
    assert all(same(a[index], b[index]) for index in range(len(a)))


def test_pixels_stay_in_their_files(tmp_path):
    pixels = Pixels(tmp_path, write_shards(tmp_path))
    stored = np.load(tmp_path / "b/shard-00000.npy", mmap_mode="r+")
    stored[3] = 200
    stored.flush()
    assert (pixels[np.array([28])] == 200).all()
    assert not pixels._shards[0].flags.writeable


def test_pixels_are_read_by_several_threads(tmp_path):
    pixels = Pixels(tmp_path, write_shards(tmp_path))
    together = threading.Barrier(4)

    def read(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        together.wait()
        drawn = [rng.integers(0, 40, 32) for _ in range(200)]
        return all((pixels[positions] == IMAGES[positions]).all() for positions in drawn)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(4)))
