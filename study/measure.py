# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""What a finished run has to show: size, latency, learning curves, feature maps, and the evaluation's pictures.

`python -m study.measure FOLDER`, in the run's workspace, after `dvc repro evaluate`.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr.dataset.manifest import MANIFEST_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.errors import plain_errors
from cxr.evaluation import plots
from cxr.files import write_json
from cxr.params import Params, load_params
from cxr.release.model import OpenVinoModel
from cxr.tasks import TASKS

if TYPE_CHECKING:
    import keras

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"  # OpenVINO reads its graphs and not those of JAX, whatever trained

FIRST, LAST, CHANNELS = 9, 3, 8  # layers and channels that are shown
IDLE = ("InputLayer", "Dropout", "SpatialDropout2D", "Identity")
CALLS = 50


def measure(p: Params, manifest: Path, images: Path, model_path: Path, reports: Path, folder: Path) -> None:
    """Write `measured.json` and the pictures into `folder`, in place of what is there."""
    from cxr.models import load_model

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = load_model(model_path)
    table = read_table(manifest, MANIFEST_COLUMNS)
    shown = table[(table["split"] == "test") & (table["label"] != TASKS[p.task].classes[0])].head(1)
    pixels = read_images(images, shown)
    measured = {
        "measures": json.loads((reports / "metrics.json").read_text())["slices"],
        "parameters": model.count_params(),
        "epochs_run": json.loads((reports / "training/metrics.json").read_text())["epochs_run"],
        "latency_ms": latency_ms(model, pixels),
    }
    for picture in (reports / "evaluation").glob("*.png"):
        shutil.copyfile(picture, folder / picture.name)
    draw_learning(reports / "training/plots/metrics", folder / "learning.png")
    draw_features(activations(model, pixels), folder / "features.png")
    write_json(folder / "measured.json", measured)


def latency_ms(model: "keras.Model", pixels: np.ndarray) -> float:
    """Median milliseconds of one image, uint8 (1, size, size), in OpenVINO, which serves the packaged model."""
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/model.xml", format="openvino", verbose=False)
        served = OpenVinoModel(Path(folder) / "model.xml")
        served(pixels)
        milliseconds = []
        for _ in range(CALLS):
            start = time.perf_counter()
            served(pixels)
            milliseconds.append(1000 * (time.perf_counter() - start))
    return round(median(milliseconds), 3)


def activations(model: "keras.Model", pixels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Name and output, float (h, w, channels), of every layer that has places, in the order in which they are computed.

    `pixels`: uint8 (1, size, size). Layers before the first with weights (scaling, channel copies) and those that do
    nothing in prediction (dropout) are left out, and so is all from the first head on. `model` is used up: its layers
    go on recording.
    """
    found: list[tuple[str, np.ndarray]] = []

    def recorded(layer: "keras.Layer") -> Any:
        call = layer.call

        @wraps(call)
        def wrapper(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            if len(getattr(result, "shape", ())) == 4 and result.shape[1] > 1 and (layer.weights or found):
                found.append((layer.name, np.asarray(result[0], np.float32)))
            return result

        return wrapper

    for layer in leaves(model):
        if type(layer).__name__ not in IDLE:
            layer.call = recorded(layer)
    model(pixels[..., np.newaxis], training=False)
    return found


def leaves(model: "keras.Model") -> Iterator["keras.Layer"]:
    """The layers of a network, and of the networks in it, up to the first head: of an ensemble, the first member's."""
    import keras

    from cxr.models.heads import Head

    for layer in model.layers:
        if isinstance(layer, Head):
            return
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def draw_features(layers: list[tuple[str, np.ndarray]], path: Path) -> None:
    """A row for each of the first nine and the last three layers: the channels that vary most over the places."""
    chosen = layers if len(layers) <= FIRST + LAST else layers[:FIRST] + layers[-LAST:]
    figure, axes = plots.panels(len(chosen), CHANNELS, 1.4, 1.6)
    for row, (name, maps) in zip(axes, chosen, strict=True):
        height, width, channels = maps.shape
        for axis in row:
            axis.axis("off")
        strongest = np.argsort(-maps.std(axis=(0, 1)), kind="stable")[:CHANNELS]
        for axis, channel in zip(row, strongest, strict=False):
            plots.image(axis, maps[:, :, channel], colours="viridis")
            axis.set_title(f"channel {channel}", fontsize=8, loc="left")
        row[0].set_title(f"{name}, {height} × {width} × {channels}\nchannel {strongest[0]}", fontsize=8, loc="left")
    plots.save(figure, path)


def draw_learning(points: Path, path: Path) -> None:
    """Every measure of val by epoch, beside the same on train, from DVCLive's tables; of an ensemble, each member's."""
    tables = sorted(points.rglob("val_*.tsv"))
    names = sorted({table.stem.removeprefix("val_") for table in tables}, reverse=True)  # the loss first
    figure, axes = plots.panels(1, len(names), 4.2, 3.2)
    for axis, name in zip(axes[0], names, strict=True):
        for table in (table for table in tables if table.stem == f"val_{name}"):
            for split, colour, file in (
                ("train", plots.COLOURS[0], table.with_name(f"{name}.tsv")),
                ("val", plots.COLOURS[1], table),
            ):
                values = pd.read_csv(file, sep="\t")
                axis.plot(values["step"] + 1, values[file.stem], "o-", markersize=3, label=split, color=colour)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if name != "loss":
            axis.set_ylim(0, 1.01)
        lines = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # one each, of all members
        axis.legend(lines.values(), lines.keys(), frameon=False, fontsize=8)
    plots.save(figure, path)


if __name__ == "__main__":
    with plain_errors():
        measure(
            load_params(), Path("data/manifest.parquet"), Path("data/images"), Path("models/model.keras"),
            Path("reports"), Path(sys.argv[1]),
        )  # fmt: skip
