"""Train on the train split; the val split chooses the epoch and nothing else."""

import json
import os
import re
import tempfile
import zipfile
from pathlib import Path

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
    from keras.callbacks import LambdaCallback

    from cxr.models import build_model
    from cxr.training import Batches, fit, make_deterministic

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
    model = build_model(params, train_images.shape[1], len(classes))
    print(
        f"{params.model}: {model.count_params():,} parameters; {len(batches.order)} images an epoch, "
        f"{len(val_rows)} in val"
    )

    model_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=model_path.parent) as folder,
        Live(str(history), save_dvc_exp=False, dvcyaml=None) as live,
    ):

        def log_epoch(epoch: int, logs: dict[str, float]) -> None:
            for name, value in logs.items():
                live.log_metric(name, float(value))
            live.next_step()

        fit(
            model, batches, read_images(images, val_rows), class_codes(val_rows, classes), params,
            Path(folder) / "best.weights.h5", [LambdaCallback(on_epoch_end=log_epoch)],
        )  # fmt: skip
        live.summary["epochs_run"] = live.step
        live.make_summary()
        whole = Path(folder) / "model.keras"
        model.save(whole)
        make_repeatable(whole)
        whole.replace(model_path)


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
