"""What choosing on the test split is worth: the same training, its epoch and its threshold chosen on val and on test.

Published figures often come from the epoch that was best on the images they are reported for. This measures by how much
that flatters, and chooses nothing for the pipeline. Run it where the stages up to `validate@manifest` have run on real
data, for a task of two classes (`dvc repro validate@manifest`):

    python -m benchmarks.selection --seeds 3
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve

from cxr.dataset.manifest import MANIFEST_COLUMNS, class_codes, read_table
from cxr.dataset.store import read_images
from cxr.evaluation import metrics
from cxr.params import Params, load_params
from cxr.tasks import TASKS
from stages.train import batches_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
IMAGES = Path("data/images")


def train(params: Params, seed: int) -> pd.DataFrame:
    """One row an epoch: `val_loss`, `accuracy` at 0.5 and at val's operating point, `best_threshold` chosen on test,
    and `auroc`, all of the test split."""
    from cxr.models import build_model
    from cxr.training.fit import fit, make_deterministic

    classes = TASKS[params.task].classes
    table = read_table(Path("data/manifest.parquet"), MANIFEST_COLUMNS)
    shown = table[(table["split"] == "train") & (table["copies"] > 0)]
    held = {split: table[table["split"] == split] for split in ("val", "test")}
    codes = {split: class_codes(rows, classes) for split, rows in held.items()}
    pixels = {split: read_images(IMAGES, rows) for split, rows in held.items()}
    make_deterministic(seed)
    batches = batches_of(shown, IMAGES, params.task, params.train, seed)
    model = build_model(params.train, pixels["val"].shape[1], len(classes))
    epochs: list[dict[str, float]] = []

    def measure(logs: dict[str, float]) -> None:
        scores = {
            split: model.predict(images[..., np.newaxis], batch_size=64, verbose=0)["probabilities"]
            for split, images in pixels.items()
        }
        sick, score = codes["test"] == 1, scores["test"][:, 1]
        point = metrics.operating_points(codes["val"], scores["val"])[1]
        fpr, tpr, _ = roc_curve(sick, score)
        epochs.append(
            {
                "val_loss": logs["val_loss"],
                "accuracy": float(((score >= 0.5) == sick).mean()),
                "at_operating_point": float(((score >= point) == sick).mean()),
                "best_threshold": float((tpr * sick.mean() + (1 - fpr) * (1 - sick.mean())).max()),
                "auroc": float(roc_auc_score(sick, score)),
            }
        )
        print({name: round(value, 4) for name, value in epochs[-1].items()}, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        fit(model, batches, pixels["val"], codes["val"], params.train, Path(scratch), measure)
    return pd.DataFrame(epochs)


def choices(epochs: pd.DataFrame) -> dict[str, float]:
    """By what was chosen where, the accuracy on test that would be reported."""
    honest = epochs.loc[epochs["val_loss"].idxmin()]
    return {
        "epoch on val, threshold 0.5": honest["accuracy"],
        "epoch on val, threshold on val": honest["at_operating_point"],
        "epoch on test, threshold 0.5": epochs["accuracy"].max(),
        "epoch on val, threshold on test": honest["best_threshold"],
        "epoch and threshold on test": epochs["best_threshold"].max(),
        "AUROC, epoch on val": honest["auroc"],
        "AUROC, epoch on test": epochs["auroc"].max(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    seeds = parser.parse_args().seeds
    params = load_params()
    found = []
    for seed in range(params.seed, params.seed + seeds):
        start = time.monotonic()
        found.append(choices(train(params, seed)))
        print(f"seed {seed}: {(time.monotonic() - start) / 60:.0f} min", flush=True)
    machine = f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    print(f"\n{params.train.model}, {params.task}, {seeds} seeds, {machine}\n")
    print("| chosen | mean | seeds |\n| --- | ---: | --- |")
    for name, values in pd.DataFrame(found).items():
        print(f"| {name} | {values.mean():.3f} | {', '.join(f'{value:.3f}' for value in values)} |")


if __name__ == "__main__":
    main()
