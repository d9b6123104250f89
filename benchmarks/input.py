"""The input side of training beside the usual way: `python -m benchmarks.input FOLDER [--images N]`.

FOLDER holds Kermany's JPEGs as Kaggle publishes them (train/NORMAL, train/PNEUMONIA). Ours are `Batches` over mapped
shards of these images, with the augmentation of `params.yaml`. The usual way is Keras's image_dataset_from_directory
on the JPEGs and a stack of Keras's augmentation layers of the same ranges, in its best form: whole batches, mapped in
parallel and prefetched by tf.data; once more with the decoded images cached in memory. JPEGs of 224 x 224, such as
`../shared/real` holds, favour the usual way: published ones have many times more pixels to decode.

An epoch fed by either is set against one of as many steps on one batch that tf.data holds in memory. All ways take
turns, so that a busy machine is busy for all of them, and a ratio is one of two neighbours in time.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxr.dataset.store import Pixels
from cxr.models import build_model
from cxr.params import load_params
from cxr.pixels.radiograph import load_radiograph
from cxr.training.batches import Batches
from cxr.training.fit import make_deterministic
from cxr.training.recipe import make_loss, make_optimizer

PARAMS = load_params()
AUGMENT, BATCH = PARAMS.train.augment, 32
CLASSES = ("NORMAL", "PNEUMONIA")
SIZES = (224, 128)
EPOCH_SIZE = 128
ROUNDS = 5
SECONDS = 2.0  # of each measurement of an input side
NETWORKS = {
    "residual, 0.9 M parameters": {"model": "residual", "widths": [32, 64, 128, 192]},
    "cnn of 8-8-8 filters": {"model": "cnn", "widths": [8, 8, 8]},
}

Pairs = list[tuple[float, float]]  # by the clock, and by the processors' time


def choose(folder: Path, n: int, scratch: Path) -> list[Path]:
    """`n` of the train split's JPEGs, linked below `scratch` in a folder per class."""
    files = sorted(path for name in CLASSES for path in (folder / "train" / name).glob("*.jpeg"))
    if not files:
        raise SystemExit(f"{folder}: no train/NORMAL/*.jpeg or train/PNEUMONIA/*.jpeg; expected Kaggle's chest_xray")
    chosen = np.random.default_rng(0).permutation(len(files))[:n]
    links = []
    for i in chosen:
        link = scratch / "jpegs" / files[i].parent.name / files[i].name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(files[i].resolve())
        links.append(link)
    return links


def write_shards(paths: list[Path], size: int, root: Path) -> pd.DataFrame:
    """The squares that ingest makes of these files, in shards; their places."""
    pixels = PARAMS.ingest.pixels.model_copy(update={"size": size})
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(lambda path: load_radiograph(path.read_bytes(), pixels).image, paths))
    per_shard = PARAMS.ingest.shard_images
    (root / f"{size}").mkdir(parents=True)
    for start in range(0, len(images), per_shard):
        np.save(root / f"{size}" / f"shard-{start // per_shard:05d}.npy", images[start : start + per_shard])
    number = np.arange(len(images))
    shards = [f"shard-{i // per_shard:05d}.npy" for i in number]
    return pd.DataFrame({"source": f"{size}", "shard": shards, "row": number % per_shard})


def our_batches(paths: list[Path], size: int, root: Path) -> Batches:
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    pixels, ones = Pixels(root, write_shards(paths, size, root)), np.ones(len(paths), int)
    return Batches(pixels, labels, ones, ones, len(CLASSES), BATCH, AUGMENT, PARAMS.seed)


def usual_batches(scratch: Path, size: int, cached: bool) -> tf.data.Dataset:
    layers = keras.Sequential(
        [
            keras.layers.RandomRotation(AUGMENT.rotation_degrees / 360, fill_mode="nearest"),
            keras.layers.RandomZoom((-AUGMENT.zoom_fraction, AUGMENT.zoom_fraction), fill_mode="nearest"),
            keras.layers.RandomTranslation(AUGMENT.shift_fraction, AUGMENT.shift_fraction, fill_mode="nearest"),
            keras.layers.RandomBrightness(AUGMENT.brightness),
            keras.layers.RandomContrast(AUGMENT.contrast),
        ]
    )
    images = keras.utils.image_dataset_from_directory(
        scratch / "jpegs", label_mode="categorical", color_mode="grayscale", batch_size=BATCH,
        image_size=(size, size), seed=PARAMS.seed, verbose=False,
    )  # fmt: skip
    if cached:
        images = images.cache()

    def change(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cast(layers(x, training=True), tf.uint8), y  # as the model takes it

    return images.map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


# The input side alone


def rate(batches: Iterable) -> tuple[float, float]:
    """Images a second and a processor second, once the queues are full, over SECONDS at least."""
    endless = iter(batches)
    for _ in range(16):
        next(endless)
    images, start, processor = 0, time.perf_counter(), time.process_time()
    while (seconds := time.perf_counter() - start) < SECONDS:
        images += len(next(endless)[0])
    return images / seconds, images / (time.process_time() - processor)


def gathered(batches: Batches) -> Iterator[tuple[np.ndarray]]:
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(batches.images))
        for start in range(0, len(order), BATCH):
            yield (batches.images[order[start : start + BATCH]],)


def one_thread(batches: Batches) -> Iterator[tuple]:
    while True:
        for index in range(len(batches)):
            yield batches.make(0, index)


def all_threads(batches: Batches) -> Iterator[tuple]:
    while True:
        yield from batches
        batches.on_epoch_end()


def compare_inputs(size: int, paths: list[Path], scratch: Path) -> None:
    ours = our_batches(paths, size, scratch / "shards")
    usual, cached = (usual_batches(scratch, size, cached) for cached in (False, True))
    for _ in cached:  # fills the cache
        pass
    ways: dict[str, Callable[[], Iterable]] = {
        "gather alone, one thread": lambda: gathered(ours),
        "gather and augment, one thread": lambda: one_thread(ours),
        "gather and augment, as fed": lambda: all_threads(ours),
        "usual way": lambda: usual.repeat(),
        "usual way, decoded images cached": lambda: cached.repeat(),
    }
    rates: dict[str, Pairs] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            rates[name].append(rate(way()))
    print(f"\nInput side alone, {size} x {size}\n")
    print("| | images/s | beside the usual way | images a processor second | beside the usual way |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, found in rates.items():
        print(row(name, found, rates["usual way"], ",.0f", ".1f"), flush=True)


def row(name: str, these: Pairs, those: Pairs, form: str, ratio_form: str) -> str:
    cells = [name]
    for a, b in zip(zip(*these, strict=True), zip(*those, strict=True), strict=True):
        cells += [f"{statistics.median(a):{form}}", ratio(a, b, ratio_form)]
    return f"| {' | '.join(cells)} |"


def ratio(these: Sequence[float], those: Sequence[float], form: str) -> str:
    """Median (least, most) of neighbours' ratios."""
    found = sorted(a / b for a, b in zip(these, those, strict=True))
    return f"{statistics.median(found):{form}} ({found[0]:{form}}, {found[-1]:{form}})"


# Whole epochs


class Clock(keras.callbacks.Callback):
    """Seconds and processor seconds of the last epoch, from its first request for data to its last step."""

    taken = (0.0, 0.0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start = now()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.taken = tuple(end - start for start, end in zip(self.start, now(), strict=True))


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def time_epoch(model: keras.Model, data: Batches | tf.data.Dataset) -> tuple[float, float]:
    clock = Clock()
    model.fit(data, epochs=1, shuffle=False, verbose=0, callbacks=[clock])
    return clock.taken


def build(network: dict, steps: int) -> keras.Model:
    params = PARAMS.train.model_copy(update=network)
    model = build_model(params, EPOCH_SIZE, len(CLASSES))
    model = keras.Model(model.input, model.output["probabilities"])
    model.compile(
        make_optimizer(params, params.learning_rate, 1, steps), make_loss(params, False), metrics=["accuracy"]
    )
    return model


def compare_epochs(name: str, network: dict, feeds: dict[str, Batches | tf.data.Dataset], note: str) -> None:
    model = build(network, len(feeds["ours"]))
    for data in feeds.values():  # traced, and the machine warm
        time_epoch(model, data)
    taken: dict[str, Pairs] = {feed: [] for feed in feeds}
    for _ in range(ROUNDS):
        for feed, data in feeds.items():
            taken[feed].append(time_epoch(model, data))
    for feed, found in taken.items():
        print(row(f"{name}{note} | {feed}", found, taken["one batch in memory"], ".2f", ".3f"), flush=True)


def compare_all_epochs(paths: list[Path], scratch: Path) -> None:
    ours = our_batches(paths, EPOCH_SIZE, scratch / "epochs")
    constant = tf.data.Dataset.from_tensors(ours.make(0, 0)).repeat(len(ours))
    feeds = {"one batch in memory": constant, "ours": ours}
    usual = {
        "usual way": usual_batches(scratch, EPOCH_SIZE, cached=False),
        "usual way, decoded images cached": usual_batches(scratch, EPOCH_SIZE, cached=True),
    }
    print(f"\nEpochs of {len(paths)} images, {EPOCH_SIZE} x {EPOCH_SIZE}, {len(ours)} steps\n")
    print("| network | fed by | seconds | beside one batch | processor seconds | beside one batch |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, network in NETWORKS.items():
        compare_epochs(name, network, feeds | usual, "")
    make_deterministic(PARAMS.seed)  # not before: it takes tf.data's threads away from the usual way
    for name, network in NETWORKS.items():
        compare_epochs(name, network, feeds, ", repeatable to the bit as in `train`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Kermany's chest_xray")
    parser.add_argument("--images", type=int, default=1024, help="JPEGs of the train split, drawn from all")
    parser.add_argument("--only", choices=["input", "epochs"])
    arguments = parser.parse_args()
    keras.utils.set_random_seed(PARAMS.seed)
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, {time.strftime('%Y-%m-%d')}")
    print(f"{arguments.images} JPEGs, batches of {BATCH}, medians of {ROUNDS} rounds, ratios with (least, most)")
    with tempfile.TemporaryDirectory() as folder:
        paths = choose(arguments.folder, arguments.images, Path(folder))
        if arguments.only != "epochs":
            for size in SIZES:
                compare_inputs(size, paths, Path(folder))
        if arguments.only != "input":
            compare_all_epochs(paths, Path(folder))


if __name__ == "__main__":
    main()
