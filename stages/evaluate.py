"""Measure the model on the test split and never judge: numbers, points, pictures, and the drift reference."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from cxr import metrics, plots
from cxr.drift import drift_table
from cxr.errors import plain_errors
from cxr.labels import TASKS
from cxr.manifest import DESCRIPTORS, MANIFEST_COLUMNS, class_codes, read_table, write_table
from cxr.params import EvaluateParams, TaskName, load_params
from cxr.store import read_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def evaluate(
    task: TaskName,
    params: EvaluateParams,
    official_test: list[str],
    seed: int,
    manifest: Path,
    images: Path,
    model_path: Path,
    metrics_path: Path,
    reports: Path,
    reference: Path,
) -> None:
    from cxr.models import load_model

    classes = TASKS[task].classes
    table = read_table(manifest, MANIFEST_COLUMNS)
    model = load_model(model_path)

    def run(split: str) -> tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]:
        rows = table[table["split"] == split].reset_index(drop=True)
        y_true = class_codes(rows, classes)
        pixels = read_images(images, rows)
        return rows, y_true, model.predict(pixels[..., np.newaxis], batch_size=params.batch_size, verbose=0)

    _, val_true, val_outputs = run("val")
    thresholds = metrics.operating_points(val_true, val_outputs["probabilities"])
    rows, y_true, outputs = run("test")
    y_score = outputs["probabilities"]

    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    slices = slices_of(rows, official_test)
    measured = {}
    for name, chosen in slices.items():
        measured[name] = metrics.measure(y_true[chosen], y_score[chosen], thresholds, classes)
        measured[name]["interval_95"] = metrics.bootstrap_interval(
            y_true[chosen], y_score[chosen], rows["group"].to_numpy()[chosen], classes, params.bootstrap_samples, seed
        )
    write_json(metrics_path, {"slices": measured})
    write_json(reports / "operating_points.json", dict(zip(classes, thresholds, strict=True)))
    write_points(reports, rows, y_true, y_score, classes)
    draw(reports, rows, slices, y_true, outputs, classes, read_images(images, rows))
    write_table(drift_table(rows[list(DESCRIPTORS)], y_score, classes), reference)
    print(summary(measured))


def slices_of(rows: pd.DataFrame, official_test: list[str]) -> dict[str, np.ndarray]:
    """Positions of the rows of each slice: the test split, each source, and each published test list that was kept."""
    slices = {"test": np.arange(len(rows))}
    for source in sorted(rows["source"].unique()):
        slices[f"test/{source}"] = np.flatnonzero(rows["source"] == source)
        if source in official_test:
            official = (rows["source"] == source) & (rows["published_split"] == "test")
            slices[f"test/{source}/official"] = np.flatnonzero(official.fillna(False))
    return slices


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def write_points(
    reports: Path, rows: pd.DataFrame, y_true: np.ndarray, y_score: np.ndarray, classes: tuple[str, ...]
) -> None:
    """The points that `dvc plots` draws, and every test image's answer."""
    for folder, points in (("roc", metrics.roc_points), ("pr", metrics.pr_points)):
        (reports / folder).mkdir()
        for k, name in enumerate(classes):
            points(y_true == k, y_score[:, k]).to_csv(reports / folder / f"{name}.csv", index=False)
    names = np.array(classes)
    answers = rows[["image_id", "source", "view_position", "group"]].assign(
        actual=names[y_true], predicted=names[y_score.argmax(axis=1)]
    )
    answers[["actual", "predicted"]].to_csv(reports / "confusion.csv", index=False)
    for k, name in enumerate(classes):
        answers[f"score_{name}"] = y_score[:, k].round(6)
    answers.to_csv(reports / "predictions.csv", index=False)
    metrics.calibration_bins(y_true, y_score).to_csv(reports / "calibration.csv", index=False)


def draw(
    reports: Path,
    rows: pd.DataFrame,
    slices: dict[str, np.ndarray],
    y_true: np.ndarray,
    outputs: dict[str, np.ndarray],
    classes: tuple[str, ...],
    pixels: np.ndarray,
) -> None:
    y_score = outputs["probabilities"]
    figure, axes = plots.panels(1, len(slices), 3.6, 4.1)
    for axis, (name, chosen) in zip(axes[0], slices.items(), strict=True):
        counts = metrics.confusion(y_true[chosen], y_score[chosen], classes)
        plots.confusion(axis, counts, classes, f"{name}, {len(chosen)} images")
    plots.save(figure, reports / "confusion.png")

    figure, axes = plots.panels(1, 3, 4.2)
    for k, name in enumerate(classes):
        positive = y_true == k
        label = f"{name} ({positive.sum()} of {len(rows)})"
        plots.curve(axes[0, 0], metrics.roc_points(positive, y_score[:, k]), "fpr", "tpr", label, plots.COLOURS[k])
        plots.curve(
            axes[0, 1], metrics.pr_points(positive, y_score[:, k]), "recall", "precision", label, plots.COLOURS[k]
        )
    plots.reliability(axes[0, 2], metrics.calibration_bins(y_true, y_score), "calibration, 15 bins of equal mass")
    plots.save(figure, reports / "curves.png")

    columns = 4  # two most and two least confident images of each class: where the evidence is right, where wrong
    figure, axes = plots.panels(len(classes), columns, 2.6, 2.9)
    for k, name in enumerate(classes):
        of_class = np.flatnonzero(y_true == k)
        order = of_class[np.argsort(-y_score[of_class, k], kind="stable")]
        for axis in axes[k]:
            axis.axis("off")
        for axis, row in zip(axes[k], [*order[:2], *order[2:][-2:]], strict=False):
            called = int(y_score[row].argmax())
            title = f"{name}: p {y_score[row, k]:.2f}\ncalled {classes[called]} ({rows['source'][row]})"
            plots.heatmap(axis, pixels[row], outputs["heatmap"][row, :, :, called], title)
    plots.save(figure, reports / "heatmaps.png")


def summary(measured: dict[str, dict]) -> str:
    names = ["n", "accuracy", "balanced_accuracy", "auroc_macro", "ece"]
    return pd.DataFrame({k: {n: v[n] for n in names} for k, v in measured.items()}).T.astype({"n": int}).to_string()


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        evaluate(
            p.task, p.evaluate, list(p.assemble.official_test), p.seed, Path("data/manifest.parquet"),
            Path("data/images"), Path("models/model.keras"), Path("reports/metrics.json"), Path("reports/evaluation"),
            Path("reports/reference.parquet"),
        )  # fmt: skip
