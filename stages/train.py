"""Train on the train split; the val split chooses the epoch and nothing else."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
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
    from cxr.training.batches import Batches

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train(
    task: TaskName, params: TrainParams, seed: int, manifest: Path, images: Path, model_path: Path, history: Path
) -> None:
    from dvclive.live import Live

    from cxr.models import build_model, in_float32
    from cxr.models.ensemble import combine
    from cxr.training import distribution
    from cxr.training.fit import fit, make_deterministic

    place = distribution.connect()
    classes = TASKS[task].classes
    table = read_table(manifest, MANIFEST_COLUMNS)
    train_rows = table[(table["split"] == "train") & (table["copies"] > 0)]
    val_rows = table[table["split"] == "val"]
    for name, rows in (("train", train_rows), ("val", val_rows)):
        if absent := set(TASKS[task].needed) - set(rows["label"]):
            raise CxrError(
                f"train: no {name} image of class {', '.join(sorted(absent))} in {manifest}; add a source that has "
                "some, or change assemble or task"
            )
    answers = read_masks(images, val_rows) if TASKS[task].localises else class_codes(val_rows, classes)
    val = read_images(images, val_rows), answers
    model_path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = model_path.parent / "checkpoint" / settings_digest(task, params, seed, manifest)
    with distribution.scope(), tempfile.TemporaryDirectory(dir=model_path.parent) as folder, ExitStack() as stack:
        if place.writes:
            for other in checkpoint.parent.glob("*"):
                if other != checkpoint or place.processes > 1:  # of several, each would go on from where it was
                    shutil.rmtree(other)
            live = stack.enter_context(Live(str(history), save_dvc_exp=False, dvcyaml=None))
        else:
            live, checkpoint = None, Path(folder) / "checkpoint"

        def log_epoch(member: int, logs: dict[str, float]) -> None:
            if live is None:
                return
            for name, value in logs.items():
                live.log_metric(f"member{member}/{name}" if params.ensemble > 1 else name, value)
            live.next_step()

        members = []
        for member in range(params.ensemble):
            make_deterministic(seed + member)
            batches = batches_of(train_rows, images, task, params, seed + member)
            model = build_model(params, val[0].shape[1], len(classes))
            if member == 0:
                print(
                    f"{params.model}: {model.count_params():,} parameters; {len(batches.shown)} images an epoch, "
                    f"{len(val_rows)} in val"
                )
            fit(model, batches, *val, params, checkpoint / str(member), partial(log_epoch, member))
            members.append(in_float32(model, params, len(classes)))
        if live is None:
            return
        model = combine(members, params)
        live.summary["epochs_run"] = live.step
        live.make_summary()
        whole = Path(folder) / "model.keras"
        model.save(whole)
        make_repeatable(whole)
        whole.replace(model_path)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


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
    """What a run depends on: one that was killed goes on only where all of it is the same."""
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


def make_repeatable(path: Path) -> None:
    """Take the time of saving and memory addresses out of a .keras archive: equal weights are then an equal file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    members["metadata.json"] = json.dumps({k: v for k, v in metadata.items() if k != "date_saved"}).encode()
    shared: dict[bytes, bytes] = {}  # Keras tells shared objects by their address; any number tells them apart
    members["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: shared.setdefault(found[0], str(len(shared)).encode()),
        members["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        train(
            p.task, p.train, p.seed, Path("data/manifest.parquet"), Path("data/images"),
            Path("models/model.keras"), Path("reports/training"),
        )  # fmt: skip
