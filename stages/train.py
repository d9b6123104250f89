"""Train on the train split; the val split chooses the epoch and nothing else."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import cxr
from cxr.errors import plain_errors
from cxr.labels import TASKS
from cxr.manifest import MANIFEST_COLUMNS, class_codes, read_table
from cxr.params import TaskName, TrainParams, load_params
from cxr.store import read_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train(
    task: TaskName, params: TrainParams, seed: int, manifest: Path, images: Path, model_path: Path, history: Path
) -> None:
    from dvclive.live import Live

    from cxr.models import build_model
    from cxr.training import distribution
    from cxr.training.fit import Batches, fit, make_deterministic

    place = distribution.connect()
    make_deterministic(seed)
    classes = TASKS[task].classes
    table = read_table(manifest, MANIFEST_COLUMNS)
    train_rows = table[(table["split"] == "train") & (table["copies"] > 0)]
    val_rows = table[table["split"] == "val"]
    train_images = read_images(images, train_rows)
    batches = Batches(
        train_images,
        class_codes(train_rows, classes),
        train_rows["copies"].to_numpy(),
        train_rows["weight"].to_numpy(),
        len(classes),
        params.batch_size,
        params.augment,
        seed,
    )
    model_path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = model_path.parent / "checkpoint" / settings_digest(task, params, seed, manifest)
    with distribution.scope(), tempfile.TemporaryDirectory(dir=model_path.parent) as folder, ExitStack() as stack:
        model = build_model(params, train_images.shape[1], len(classes))
        print(
            f"{params.model}: {model.count_params():,} parameters; {len(batches.order)} images an epoch, "
            f"{len(val_rows)} in val"
        )
        val = read_images(images, val_rows), class_codes(val_rows, classes)
        if not place.writes:
            fit(model, batches, *val, params, Path(folder) / "checkpoint", lambda logs: None)
            return
        for other in checkpoint.parent.glob("*"):
            if other != checkpoint or place.processes > 1:  # of several, each would go on from where it was
                shutil.rmtree(other)
        live = stack.enter_context(Live(str(history), save_dvc_exp=False, dvcyaml=None))

        def log_epoch(logs: dict[str, float]) -> None:
            for name, value in logs.items():
                live.log_metric(name, value)
            live.next_step()

        fit(model, batches, *val, params, checkpoint, log_epoch)
        live.summary["epochs_run"] = live.step
        live.make_summary()
        whole = Path(folder) / "model.keras"
        model.save(whole)
        make_repeatable(whole)
        whole.replace(model_path)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


def settings_digest(task: TaskName, params: TrainParams, seed: int, manifest: Path) -> str:
    """What a run depends on: one that was killed goes on only where all of it is the same."""
    import keras

    backend = import_module(keras.backend.backend())
    digest = hashlib.sha256(manifest.read_bytes())
    digest.update(f"{task} {seed} {keras.version()} {backend.__version__} {params.model_dump_json()}".encode())
    library = Path(cxr.__file__).parent
    for path in sorted([*library.glob("models/*.py"), *library.glob("training/*.py"), library / "augment.py"]):
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
