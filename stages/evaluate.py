# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""Measure the model on the test split and never judge: numbers, points, pictures, and the drift reference."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.dataset.manifest import DESCRIPTORS, MANIFEST_COLUMNS, class_codes, read_table, write_table
from cxr.dataset.store import read_images, read_masks
from cxr.errors import plain_errors
from cxr.evaluation import metrics, plots
from cxr.files import write_csv, write_json
from cxr.params import EvaluateParams, load_params
from cxr.release.drift import drift_table
from cxr.tasks import TASKS, TaskName

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

INSIDE = 0.5  # probability from which on a pixel is the region's: the loss draws masks to this, none is chosen
BLOCK = 256  # images whose masks are in memory at a time
SHOWN = 5  # images each of the worst, the median and the best


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
    """Write `metrics_path`, the points and pictures in `reports`, and the drift `reference` of the test split.

    `images`: the folder of the shards. `official_test`: sources whose published test list is a slice of its own. Of a
    task that tells classes, val chooses each class's operating point.
    """
    from cxr.models import load_model

    chosen = TASKS[task]
    table = read_table(manifest, MANIFEST_COLUMNS)
    model = load_model(model_path)

    def predict(rows: pd.DataFrame) -> dict[str, np.ndarray]:
        pixels = read_images(images, rows)
        return model.predict(pixels[..., np.newaxis], batch_size=params.batch_size, verbose=0)

    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    rows = table[table["split"] == "test"].reset_index(drop=True)
    slices = slices_of(rows, official_test)
    if chosen.localises:
        thresholds = [INSIDE] * len(chosen.classes)
        measured, y_score = localise(rows, slices, chosen.classes, predict, images, params, seed, reports)
    else:
        val_rows = table[table["split"] == "val"].reset_index(drop=True)
        val_score = predict(val_rows)["probabilities"]
        thresholds = metrics.operating_points(class_codes(val_rows, chosen.classes), val_score)
        measured, y_score = classify(
            rows, slices, chosen.classes, thresholds, predict(rows), read_images(images, rows), params, seed, reports
        )
    write_json(metrics_path, {"slices": measured})
    write_json(reports / "operating_points.json", dict(zip(chosen.classes, thresholds, strict=True)))
    write_table(drift_table(rows[list(DESCRIPTORS)], y_score, chosen.classes), reference)
    print(summary(measured))


def classify(
    rows: pd.DataFrame,
    slices: dict[str, np.ndarray],
    classes: tuple[str, ...],
    thresholds: list[float],
    outputs: dict[str, np.ndarray],
    pixels: np.ndarray,
    params: EvaluateParams,
    seed: int,
    reports: Path,
) -> tuple[dict[str, dict], np.ndarray]:
    """Measures of each slice, and the scores."""
    y_true, y_score, groups = class_codes(rows, classes), outputs["probabilities"], rows["group"].to_numpy()
    measured = {}
    for name, chosen in slices.items():
        measured[name] = metrics.measure(y_true[chosen], y_score[chosen], thresholds, classes)
        measured[name]["interval_95"] = metrics.bootstrap_interval(
            y_true[chosen], y_score[chosen], groups[chosen], classes, params.bootstrap_samples, seed
        )
    write_points(reports, rows, y_true, y_score, classes)
    draw_confusion(y_true, y_score, slices, classes, reports / "confusion.png")
    draw_curves(y_true, y_score, classes, reports / "curves.png")
    draw_heatmaps(rows["source"], y_true, outputs, classes, pixels, reports / "heatmaps.png")
    return measured, y_score


def localise(
    rows: pd.DataFrame,
    slices: dict[str, np.ndarray],
    classes: tuple[str, ...],
    predict: Callable[[pd.DataFrame], dict[str, np.ndarray]],
    images: Path,
    params: EvaluateParams,
    seed: int,
    reports: Path,
) -> tuple[dict[str, dict], np.ndarray]:
    """Measures of each slice by the overlap of the found masks with the true ones, and the shares of the classes."""
    overlaps, scores, shown = [], [], []
    for start in range(0, len(rows), BLOCK):  # two logits a pixel of a whole test split would fill the memory
        outputs = predict(rows[start : start + BLOCK])
        found = outputs["heatmap"][..., 1] > 0
        overlaps.append(metrics.overlaps(read_masks(images, rows[start : start + BLOCK]) > 0, found))
        scores.append(outputs["probabilities"])
        shown.append(found.any(axis=(1, 2)))
    overlap, y_score = pd.concat(overlaps, ignore_index=True), np.concatenate(scores)
    y_true, groups = class_codes(rows, classes), rows["group"].to_numpy()
    measured = {}
    for name, chosen in slices.items():
        of_slice = overlap.iloc[chosen].reset_index(drop=True)
        measured[name] = metrics.measure_overlaps(of_slice, y_true[chosen], classes)
        measured[name]["interval_95"] = metrics.overlap_intervals(
            of_slice, groups[chosen], params.bootstrap_samples, seed
        )
    answers = table_of_answers(rows, y_true, np.concatenate(shown).astype(int), y_score, classes).join(overlap.round(4))
    write_csv(reports / "predictions.csv", answers)
    draw_masks(reports, answers, rows, images, predict)
    return measured, y_score


def slices_of(rows: pd.DataFrame, official_test: list[str]) -> dict[str, np.ndarray]:
    """Positions of the rows of each slice: the test split, each source, and each published test list that was kept."""
    slices = {"test": np.arange(len(rows))}
    for source in sorted(rows["source"].unique()):
        slices[f"test/{source}"] = np.flatnonzero(rows["source"] == source)
        if source in official_test:
            official = (rows["source"] == source) & (rows["published_split"] == "test")
            slices[f"test/{source}/official"] = np.flatnonzero(official.fillna(False))
    return slices


def write_points(
    reports: Path, rows: pd.DataFrame, y_true: np.ndarray, y_score: np.ndarray, classes: tuple[str, ...]
) -> None:
    """The points that `dvc plots` draws, and every test image's answer."""
    for folder, points in (("roc", metrics.roc_points), ("pr", metrics.pr_points)):
        (reports / folder).mkdir()
        for k, name in enumerate(classes):
            write_csv(reports / folder / f"{name}.csv", points(y_true == k, y_score[:, k]))
    answers = table_of_answers(rows, y_true, y_score.argmax(axis=1), y_score, classes)
    write_csv(reports / "confusion.csv", answers[["actual", "predicted"]])
    write_csv(reports / "predictions.csv", answers)
    write_csv(reports / "calibration.csv", metrics.calibration_bins(y_true, y_score))


def table_of_answers(
    rows: pd.DataFrame, y_true: np.ndarray, predicted: np.ndarray, y_score: np.ndarray, classes: tuple[str, ...]
) -> pd.DataFrame:
    """A row for each of `rows`: its true class, the predicted one, and the score of each."""
    names = np.array(classes)
    told = {"actual": names[y_true], "predicted": names[predicted]}
    told |= {f"score_{name}": y_score[:, k].round(6) for k, name in enumerate(classes)}
    return rows[["image_id", "source", "view_position", "group"]].assign(**told)


def draw_confusion(
    y_true: np.ndarray, y_score: np.ndarray, slices: dict[str, np.ndarray], classes: tuple[str, ...], path: Path
) -> None:
    """A confusion matrix of each slice."""
    figure, axes = plots.panels(1, len(slices), 3.6, 4.1)
    for axis, (name, chosen) in zip(axes[0], slices.items(), strict=True):
        counts = metrics.confusion(y_true[chosen], y_score[chosen], classes)
        plots.confusion(axis, counts, classes, f"{name}, {len(chosen)} images")
    plots.save(figure, path)


def draw_curves(y_true: np.ndarray, y_score: np.ndarray, classes: tuple[str, ...], path: Path) -> None:
    """ROC and precision-recall curves of each class, and the calibration of all."""
    figure, axes = plots.panels(1, 3, 4.2)
    for k, name in enumerate(classes):
        positive = y_true == k
        label = f"{name} ({positive.sum()} of {len(y_true)})"
        roc, pr = metrics.roc_points(positive, y_score[:, k]), metrics.pr_points(positive, y_score[:, k])
        plots.curve(axes[0, 0], roc, "fpr", "tpr", label, plots.COLOURS[k])
        plots.curve(axes[0, 1], pr, "recall", "precision", label, plots.COLOURS[k])
    plots.reliability(axes[0, 2], metrics.calibration_bins(y_true, y_score), "calibration, 15 bins of equal mass")
    plots.save(figure, path)


def draw_heatmaps(
    sources: pd.Series,
    y_true: np.ndarray,
    outputs: dict[str, np.ndarray],
    classes: tuple[str, ...],
    pixels: np.ndarray,
    path: Path,
) -> None:
    """The two most and two least confident images of each class: where the evidence is right, where wrong."""
    y_score = outputs["probabilities"]
    figure, axes = plots.panels(len(classes), 4, 2.6, 2.9)
    for k, name in enumerate(classes):
        of_class = np.flatnonzero(y_true == k)
        order = of_class[np.argsort(-y_score[of_class, k], kind="stable")]
        for axis in axes[k]:
            axis.axis("off")
        for axis, row in zip(axes[k], [*order[:2], *order[2:][-2:]], strict=False):
            called = int(y_score[row].argmax())
            title = f"{name}: p {y_score[row, k]:.2f}\ncalled {classes[called]} ({sources[row]})"
            plots.heatmap(axis, pixels[row], outputs["heatmap"][row, :, :, called], title)
    plots.save(figure, path)


def draw_masks(
    reports: Path,
    answers: pd.DataFrame,
    rows: pd.DataFrame,
    images: Path,
    predict: Callable[[pd.DataFrame], dict[str, np.ndarray]],
) -> None:
    """The worst, median and best images with both outlines, and how the Dice coefficients spread."""
    order = answers["dice"].to_numpy().argsort(kind="stable")
    middle = max((len(order) - SHOWN) // 2, 0)
    picked = {"worst": order[:SHOWN], "median": order[middle:][:SHOWN], "best": order[::-1][:SHOWN]}
    figure, axes = plots.panels(len(picked), SHOWN, 2.6, 2.9)
    for row, (which, chosen) in zip(axes, picked.items(), strict=True):
        shown = rows.iloc[chosen]
        true, found = read_masks(images, shown) > 0, predict(shown)["heatmap"][..., 1] > 0
        for axis in row:
            axis.axis("off")
        for k, pixels in enumerate(read_images(images, shown)):
            title = f"{which}: Dice {answers['dice'].iloc[chosen[k]]:.3f} ({shown['source'].iloc[k]})"
            plots.outlines(row[k], pixels, (true[k], found[k]), title)
    plots.save(figure, reports / "overlays.png")

    sources = sorted(answers["source"].unique())
    figure, axes = plots.panels(1, len(sources), 4.2, 3.2)
    for axis, source in zip(axes[0], sources, strict=True):
        values = answers.loc[answers["source"] == source, "dice"]
        plots.histogram(axis, values, "Dice", f"{source}, {len(values)} images, mean {values.mean():.3f}")
    plots.save(figure, reports / "dice.png")


def summary(measured: dict[str, dict]) -> str:
    """The measures that a person looks at first, a line for each slice."""
    names = ["n", "accuracy", "balanced_accuracy", "auroc_macro", "ece", "dice", "mean_iou"]
    names = [name for name in names if name in measured["test"]]
    return pd.DataFrame({k: {n: v[n] for n in names} for k, v in measured.items()}).T.astype({"n": int}).to_string()


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        evaluate(
            p.task, p.evaluate, list(p.assemble.official_test), p.seed, Path("data/manifest.parquet"),
            Path("data/images"), Path("models/model.keras"), Path("reports/metrics.json"), Path("reports/evaluation"),
            Path("reports/reference.parquet"),
        )  # fmt: skip
