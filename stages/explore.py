# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportCallIssue=false
"""What a person wants to see first: counts, samples, and the mean, contrast and deviation of the classes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.dataset.manifest import DESCRIPTORS, MANIFEST_COLUMNS, read_table
from cxr.dataset.store import read_images, read_masks
from cxr.errors import plain_errors
from cxr.evaluation import plots
from cxr.files import write_csv
from cxr.params import load_params
from cxr.tasks import TASKS, TaskName

SAMPLES = 8  # images shown of each class


def explore(task: TaskName, seed: int, manifest: Path, images: Path, reports: Path) -> None:
    """Write tables and pictures into `reports`, in place of what is there; the test split is counted and not shown."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    region = TASKS[task].region
    table = read_table(manifest, MANIFEST_COLUMNS)
    train = table[table["split"] == "train"]  # test stays unseen
    classes = tuple(name for name in TASKS[task].classes if (train["label"] == name).any())  # lungs are in every image

    counts = table.groupby(["source", "split", "label"]).size().rename("images").reset_index()
    write_csv(reports / "counts.csv", counts)
    by_source = table.pivot_table(index="source", columns="label", values="row", aggfunc="size", fill_value=0)
    figure, axes = plots.panels(1, 1, 5.5, 3.6)
    plots.stacked_counts(axes[0, 0], by_source.reindex(columns=list(classes), fill_value=0))
    plots.save(figure, reports / "counts.png")

    medians = train.groupby("label")[list(DESCRIPTORS)].median().round(3).reset_index()
    write_csv(reports / "descriptors.csv", medians)
    draw_samples(train, classes, images, seed, reports / "samples.png", region is not None)
    draw_statistics(train, classes, images, reports)
    if region:
        draw_masks(train, images, region, reports / "masks.png")


def draw_samples(
    train: pd.DataFrame, classes: tuple[str, ...], images: Path, seed: int, path: Path, masked: bool
) -> None:
    """A row of images a class, with the outlines of their masks where they are `masked`."""
    figure, axes = plots.panels(len(classes), SAMPLES, 1.7, 1.95)
    for row, name in zip(axes, classes, strict=True):
        of_class = train[train["label"] == name]
        shown = of_class.sample(min(SAMPLES, len(of_class)), random_state=seed).sort_values("source")
        for axis in row:
            axis.axis("off")
        masks = read_masks(images, shown) > 0 if masked else [None] * len(shown)
        for axis, source, pixels, mask in zip(row, shown["source"], read_images(images, shown), masks, strict=False):
            plots.outlines(axis, pixels, [] if mask is None else [mask], f"{name}\n{source}")
    plots.save(figure, path)


def draw_masks(train: pd.DataFrame, images: Path, region: str, path: Path) -> None:
    """Where the region lies, and how much of the image it covers."""
    mean, _ = mean_and_deviation(train, images, read_masks)
    figure, axes = plots.panels(1, 2, 3.6, 3.2)
    plots.image(axes[0, 0], mean / 255, f"share of {len(train)} masks of {region}", "viridis", vmin=0, vmax=1)
    plots.histogram(axes[0, 1], train["mask_share"], "share of the image", f"{len(train)} masks")
    plots.save(figure, path)


def draw_statistics(train: pd.DataFrame, classes: tuple[str, ...], images: Path, reports: Path) -> None:
    """Mean and standard deviation of each class, and the difference of each pair of means, in grey levels."""
    means, deviations = {}, {}
    for name in classes:
        means[name], deviations[name] = mean_and_deviation(train[train["label"] == name], images)
    pairs = [(a, b) for i, a in enumerate(classes) for b in classes[i + 1 :]]
    figure, axes = plots.panels(3, max(len(classes), len(pairs)), 2.6, 2.8)
    for axis in axes.flat:
        axis.axis("off")
    for k, name in enumerate(classes):
        plots.image(axes[0, k], means[name], f"mean {name}", vmin=0, vmax=255)
        plots.image(axes[1, k], deviations[name], f"standard deviation {name}", "magma", vmin=0, vmax=100)
    for k, (a, b) in enumerate(pairs):
        plots.image(axes[2, k], means[b] - means[a], f"mean {b} − {a}", "RdBu_r", vmin=-60, vmax=60)
    plots.save(figure, reports / "means.png")


def mean_and_deviation(
    rows: pd.DataFrame, images: Path, read: Callable[[Path, pd.DataFrame], np.ndarray] = read_images, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel, float64 (size, size), in blocks of images: memory does not grow with their number."""
    total = squares = np.zeros(())
    for start in range(0, len(rows), block):
        pixels = read(images, rows.iloc[start : start + block]).astype(np.float64)
        total, squares = total + pixels.sum(axis=0), squares + (pixels**2).sum(axis=0)
    mean = total / len(rows)
    return mean, np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        explore(p.task, p.seed, Path("data/manifest.parquet"), Path("data/images"), Path("reports/explore"))
