"""One network trained from one seed, and measured once on the official test images."""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.gpu.clock import Clock
from benchmarks.gpu.kermany import TASKS, Films, load, val_rows
from benchmarks.gpu.metrics import measure
from benchmarks.gpu.presets import as_params
from cxr.files import write_whole
from cxr.models import build_model
from cxr.models.ensemble import combine
from cxr.training.batches import Batches
from cxr.training.fit import fit, make_deterministic

VAL_FRACTION = 0.15  # of the train images, as in params.yaml
SPLIT_SEED = 1  # one split for all seeds, so that they differ by their training alone


@dataclass(frozen=True)
class Job:
    """`most`: see `kermany.load`. `epochs`: most of them. `folder` takes what a killed training goes on with."""

    preset: dict[str, Any]
    seed: int
    data: Path
    most: int | None
    epochs: int | None
    folder: Path


class TimedBatches(Batches):
    """Batches whose epochs are pieces of work. Keras begins one when all of the epoch before is saved."""

    def __init__(self, clock: Clock, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clock = clock
        self.began: float | None = None
        self.last_s: float | None = None  # of the epoch before; the first is one piece with what came before it

    def on_epoch_begin(self) -> None:
        if self.last_s is not None:
            self.clock.next_piece(expected=2 * self.last_s)
        self.began = time.perf_counter()


def train_and_test(job: Job, clock: Clock) -> dict:
    """Raises OutOfTime between two epochs where the time is over; the same job then goes on."""
    preset = job.preset
    make_deterministic(job.seed)
    recipe = preset["train"] | {"epochs": min(preset["train"]["epochs"], job.epochs or preset["train"]["epochs"])}
    params = as_params(recipe)
    films = load(job.data, "train", preset["size"], job.most)
    held = val_rows(films, VAL_FRACTION, SPLIT_SEED)
    train, val = films[~held], films[held]
    labels = train.labels(preset["task"])
    per_class = np.bincount(labels, minlength=classes_of(preset["task"]))
    weights = len(labels) / (len(per_class) * per_class[labels])  # balance: class-weight of params.yaml
    batches = TimedBatches(
        clock, train.images, labels, np.ones(len(train), int), weights, len(per_class), params.batch_size,
        params.augment, job.seed,
    )  # fmt: skip
    model = build_model(params, preset["size"], len(per_class))
    log = EpochLog(batches, job.folder / "seconds.json")
    fit(model, batches, val.images, val.labels(preset["task"]), params, job.folder, log)
    shipped = build_model(  # releases compute in float32
        as_params(recipe | {"precision": "float32", "weights": "none"}), preset["size"], len(per_class)
    )
    shipped.set_weights(model.get_weights())
    answering = combine([shipped], params.views, False)
    return {
        "preset": preset["name"],
        "task": preset["task"],
        "seed": job.seed,
        "size": preset["size"],
        "published": preset["published"],
        "precision": recipe["precision"],
        "parameters": model.count_params(),
        "train_images": len(train),
        "val_images": len(val),
        "epochs": len(log.val_losses),
        "best_epoch": int(np.argmin(log.val_losses)) + 1,
        "seconds_per_epoch": statistics.median(log.seconds),
        "images_per_s": len(train) / statistics.median(log.seconds),
        **test(answering, load(job.data, "test", preset["size"], job.most), preset["task"]),
    }


class EpochLog:
    """What `fit` tells of every epoch: the val loss of all, and the seconds, val and saving included, of those here."""

    def __init__(self, batches: TimedBatches, path: Path) -> None:
        self.batches, self.path = batches, path
        self.seconds: list[float] = json.loads(path.read_text()) if path.exists() else []
        self.val_losses: list[float] = []

    def __call__(self, logs: dict[str, float]) -> None:
        self.val_losses.append(logs["val_loss"])
        if self.batches.began is not None:  # no epoch of an earlier run, which is only told again
            self.batches.last_s = time.perf_counter() - self.batches.began
            self.seconds.append(self.batches.last_s)
            write_whole(self.path, json.dumps(self.seconds).encode())


def classes_of(task: str) -> int:
    return max(TASKS[task].values()) + 1


def test(model: keras.Model, films: Films, task: str) -> dict:
    probabilities = keras.Model(model.input, model.output["probabilities"])
    scores = probabilities.predict(films.images[..., np.newaxis], batch_size=64, verbose=0)
    y_true = films.labels(task)
    return {
        "test_images": len(films),
        **measure(y_true, scores),
        "y_true": y_true.tolist(),
        "probabilities": scores.round(5).tolist(),
    }
