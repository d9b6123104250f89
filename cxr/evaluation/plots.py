# The types of Matplotlib take what is passed on for any other option.
# pyright: reportArgumentType=false
"""Pictures for a person: each function draws on given axes and returns them; the caller saves."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr.files import writing

OUTLINES = ("#19c3b2", "#ff6a00")  # of the true mask, and of the one that was found
COLOURS = ("#3b6ea8", "#d1802f", "#a83b52", "#4f8f5b", "#7a5ea8")  # one per class, in the task's order


def panels(rows: int, columns: int, width: float = 3.2, height: float | None = None) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns axes, the array always two-dimensional; sizes in inches an axis."""
    return plt.subplots(
        rows, columns, figsize=(width * columns, (height or width) * rows), squeeze=False, layout="constrained"
    )


def image(axes: Axes, pixels: np.ndarray, title: str = "", colours: str = "gray", **limits: float) -> Axes:
    axes.imshow(pixels, cmap=colours, **limits)
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    return axes


def heatmap(axes: Axes, pixels: np.ndarray, evidence: np.ndarray, title: str = "") -> Axes:
    """Positive evidence, float (h, w), laid over uint8 (size, size) pixels."""
    size = pixels.shape[0]
    image(axes, pixels, title, vmin=0, vmax=255)
    shown = np.maximum(evidence, 0)
    axes.imshow(
        shown, cmap="inferno", alpha=0.45 * (shown / max(float(shown.max()), 1e-6)), interpolation="bilinear",
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
    )  # fmt: skip
    return axes


def outlines(axes: Axes, pixels: np.ndarray, masks: Sequence[np.ndarray], title: str = "") -> Axes:
    """The edges of the true mask and of the one that was found, bool (size, size), on uint8 (size, size) pixels."""
    image(axes, pixels, title, vmin=0, vmax=255)
    for mask, colour in zip(masks, OUTLINES, strict=False):
        if mask.any() and not mask.all():  # matplotlib warns where there is no edge
            axes.contour(mask.astype(float), [0.5], colors=[colour], linewidths=1)
    return axes


def histogram(axes: Axes, values: pd.Series, measure: str, title: str) -> Axes:
    """Images by a measure from 0 to 1, in bins of 0.02."""
    axes.hist(values, bins=np.linspace(0, 1, 51).tolist(), color=COLOURS[0])
    axes.set(xlim=(0, 1), xlabel=measure, ylabel="images")
    axes.set_title(title, fontsize=10)
    return axes


def stacked_counts(axes: Axes, table: pd.DataFrame) -> Axes:
    """Images by source (rows) and class (columns), a bar per source."""
    bottom = np.zeros(len(table))
    for name, colour in zip(table.columns, COLOURS, strict=False):
        values = table[name].to_numpy()
        bars = axes.bar(table.index, values, bottom=bottom, label=name, color=colour)
        axes.bar_label(bars, [str(v) if v else "" for v in values], label_type="center", color="white", fontsize=8)
        bottom += values
    axes.set_ylabel("images")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def confusion(axes: Axes, counts: np.ndarray, classes: Sequence[str], title: str) -> Axes:
    """Counts (rows true, columns predicted), shaded by the share of the true class."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(counts):
        axes.text(
            j, i, f"{n}\n{share[i, j]:.0%}", ha="center", va="center", color="white" if share[i, j] > 0.5 else "black"
        )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    return axes


def curve(axes: Axes, points: pd.DataFrame, x: str, y: str, label: str, colour: str) -> Axes:
    axes.plot(points[x], points[y], label=label, color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x, ylabel=y, aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="lower left" if x == "recall" else "lower right")
    return axes


def reliability(axes: Axes, bins: pd.DataFrame, title: str) -> Axes:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(bins["confidence"], bins["accuracy"], "o-", color=COLOURS[0])
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.set_title(title, fontsize=10)
    return axes


def save(figure: Figure, path: Path) -> None:
    """Write a PNG and free the figure; without the library's version in it, so that equal runs give equal bytes."""
    with writing(path) as part:
        figure.savefig(part, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
