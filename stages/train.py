# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportReturnType=false
"""Train on the train split; the val split chooses the epoch and nothing else."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import cxr
from cxr.dataset.manifest import MANIFEST_COLUMNS, class_codes, read_table
from cxr.dataset.store import Pixels, read_images, read_masks
from cxr.errors import CxrError, plain_errors
from cxr.params import TrainParams, load_params
from cxr.tasks import TASKS, TaskName

if TYPE_CHECKING:
    import keras
    from dvclive.live import Live

    from cxr.training.batches import Batches

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train(
    task: TaskName, params: TrainParams, seed: int, manifest: Path, images: Path, model_path: Path, history: Path
) -> None:
    """Fit the members of the ensemble one after the other and write them as one model.

    `images`: the folder of the shards. `history`: the folder of DVCLive's curves. `checkpoint` beside `model_path`
    keeps what a killed run needs to go on, until the model is written. Of several machines, number 0 alone writes.
    Raises CxrError where a split lacks a class, and for what cannot be built or fitted.
    """
    from dvclive.live import Live

    from cxr.models import save_model
    from cxr.models.ensemble import combine
    from cxr.training import distribution

    place = distribution.connect()
    train_rows, val_rows = rows_of_splits(task, manifest)
    model_path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = model_path.parent / "checkpoint" / settings_digest(task, params, seed, manifest)
    with distribution.scope(), ExitStack() as stack:
        if place.writes:
            drop_others(checkpoint, place.processes)
            live = stack.enter_context(Live(str(history), save_dvc_exp=False, dvcyaml=None))
        else:
            live, checkpoint = None, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        members = fit_members(task, params, seed, train_rows, val_rows, images, checkpoint, partial(log_epoch, live))
        if live is None:
            return
        live.summary["epochs_run"] = live.step
        live.make_summary()
        save_model(combine(members, params.views, TASKS[task].localises), model_path)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


def rows_of_splits(task: TaskName, manifest: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of train that an epoch shows, and those of val. Raises CxrError where they lack a class of the task."""
    table = read_table(manifest, MANIFEST_COLUMNS)
    train_rows = table[(table["split"] == "train") & (table["copies"] > 0)]
    val_rows = table[table["split"] == "val"]
    for name, rows in (("train", train_rows), ("val", val_rows)):
        if absent := set(TASKS[task].needed) - set(rows["label"]):
            raise CxrError(
                f"train: no {name} image of class {', '.join(sorted(absent))} in {manifest}; add a source with "
                "such images, or change assemble or task"
            )
    return train_rows, val_rows


def drop_others(checkpoint: Path, processes: int) -> None:
    """Remove checkpoints of other settings. With several processes, remove all: each would resume at its own epoch."""
    for other in checkpoint.parent.glob("*"):
        if other != checkpoint or processes > 1:
            shutil.rmtree(other)


def log_epoch(live: "Live | None", prefix: str, logs: dict[str, float]) -> None:
    """Add an epoch to DVCLive's curves, in the process that writes them."""
    if live is not None:
        for name, value in logs.items():
            live.log_metric(prefix + name, value)
        live.next_step()


def fit_members(
    task: TaskName,
    params: TrainParams,
    seed: int,
    train_rows: pd.DataFrame,
    val_rows: pd.DataFrame,
    images: Path,
    checkpoint: Path,
    log: Callable[[str, dict[str, float]], None],
) -> list["keras.Model"]:
    """The trained members, which compute in float32, each from a seed of its own.

    `log` takes the prefix of a member's measures and those of each epoch.
    """
    from cxr.models import build_model, in_float32
    from cxr.training.fit import fit, make_deterministic

    chosen = TASKS[task]
    pixels = read_images(images, val_rows)
    answers = read_masks(images, val_rows) if chosen.localises else class_codes(val_rows, chosen.classes)
    members = []
    for member in range(params.ensemble):
        make_deterministic(seed + member)
        batches = batches_of(train_rows, images, task, params, seed + member)
        model = build_model(params, pixels.shape[1], len(chosen.classes))
        if member == 0:
            print(
                f"{params.model}: {model.count_params():,} parameters; {len(batches.shown)} images an epoch, "
                f"{len(val_rows)} in val"
            )
        prefix = f"member{member}/" if params.ensemble > 1 else ""
        fit(model, batches, pixels, answers, params, checkpoint / str(member), partial(log, prefix))
        members.append(in_float32(model, params, len(chosen.classes)))
    return members


def batches_of(rows: pd.DataFrame, images: Path, task: TaskName, params: TrainParams, seed: int) -> "Batches":
    """The batches of `rows` of the manifest, with their masks where the task is to find a region."""
    from cxr.training.batches import Batches

    asked = TASKS[task]
    return Batches(
        Pixels(images, rows), class_codes(rows, asked.classes), rows["copies"].to_numpy(), rows["weight"].to_numpy(),
        len(asked.classes), params.batch_size, params.augment, seed,
        Pixels(images, rows, "masks") if asked.localises else None,
    )  # fmt: skip


def settings_digest(task: TaskName, params: TrainParams, seed: int, manifest: Path) -> str:
    """A digest of all that a run depends on: a killed run goes on only if it is the same."""
    import keras

    backend = import_module(keras.backend.backend())
    digest = hashlib.sha256(manifest.read_bytes())
    digest.update(f"{task} {seed} {keras.version()} {backend.__version__} {params.model_dump_json()}".encode())
    library = Path(cxr.__file__).parent
    if params.weights not in ("none", "imagenet") and Path(params.weights).exists():
        digest.update(Path(params.weights).read_bytes())
    for path in sorted([*library.glob("models/*.py"), *library.glob("training/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        train(
            p.task, p.train, p.seed, Path("data/manifest.parquet"), Path("data/images"),
            Path("models/model.keras"), Path("reports/training"),
        )  # fmt: skip
