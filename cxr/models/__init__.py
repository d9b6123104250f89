# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
"""Networks from typed params. Every one takes uint8 (n, size, size, 1) and has the three named outputs."""

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from cxr.errors import CxrError
from cxr.files import writing
from cxr.models import cnn, transfer
from cxr.models.heads import attach
from cxr.models.unet import SIDES, unet

if TYPE_CHECKING:
    from cxr.params import TrainParams

NAM_SIDE = 94  # pixels: five unpadded blocks leave one


def build_model(params: "TrainParams", size: int, classes: int) -> keras.Model:
    """An untrained model: uint8 (n, size, size, 1) in; a dict of `probabilities`, `embedding` and `heatmap` out.

    probabilities: float32 (n, classes), rows sum to 1. embedding: float32 (n, d), what the last linear layer reads.
    heatmap: float32 (n, h, w, classes), each class's evidence by place; its mean over h and w is the class's logit.
    Those of `unet` are of every pixel, see `cxr.models.unet`. Scaling and channel copies are layers inside. Raises
    CxrError where `size` does not fit the network, where its weights cannot be had, or where the head does not fit the
    classes.
    """
    if size < (least := min_side(params)):
        raise CxrError(f"ingest.pixels.size: {params.model} takes images of {least} pixels and more, found {size}")
    if params.head.output == "sigmoid" and classes != 2:
        raise CxrError(f"train.head.output: a sigmoid node separates two classes, the task has {classes}; use softmax")
    if params.model == "unet" and size % SIDES:
        raise CxrError(f"ingest.pixels.size: unet takes images of a multiple of {SIDES} pixels a side, found {size}")
    with _policy("float32" if params.precision == "float32" else "mixed_bfloat16"):
        return _build(params, size, classes)


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    """Layers made inside compute in `name`; `keras.applications` offers no other way."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build(params: "TrainParams", size: int, classes: int) -> keras.Model:
    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    if params.model in transfer.BACKBONES:
        return attach(inputs, transfer.features(inputs, params.model, params.weights), params.head, classes)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    if params.model == "unet":
        return unet(inputs, scaled, params.dropout)
    if params.model == "nam2022":
        x = cnn.nam2022(scaled, params.dropout)
    elif params.model == "small":
        x = cnn.small(scaled, params.dropout)
    else:
        network = {"cnn": cnn.plain, "residual": cnn.residual}[params.model]
        x = network(scaled, params.widths, params.dropout)
    return attach(inputs, x, params.head, classes)


def in_float32(model: keras.Model, params: "TrainParams", classes: int) -> keras.Model:
    """`model`, which `params` built, as one that computes in float32: what ships answers alike on every machine."""
    if params.precision == "float32":
        return model
    same = build_model(
        params.model_copy(update={"precision": "float32", "weights": "none"}), model.input.shape[1], classes
    )
    same.set_weights(model.get_weights())
    return same


def min_side(params: "TrainParams") -> int:
    """Pixels a side, the least that the network takes."""
    if params.model in transfer.BACKBONES:
        return transfer.BACKBONES[params.model].min_side
    return {"nam2022": NAM_SIDE, "small": 8, "unet": 2 * SIDES}.get(params.model, 2 ** len(params.widths))


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whose bytes depend on the network and its weights alone, for `load_model` or Keras.

    Keras's own `save` adds the time and memory addresses, so no two files would be alike, and every later stage would
    run again. The three members of the file are those of `save`: https://keras.io/guides/serialization_and_saving.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        weights = Path(folder) / "model.weights.h5"
        model.save_weights(weights)
        members = {
            "metadata.json": json.dumps({"keras_version": keras.version()}),
            "config.json": model.to_json(),
            weights.name: weights.read_bytes(),
        }
    with writing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of no date


def load_model(path: Path) -> keras.Model:
    """A model that `save_model` wrote, for prediction."""
    from cxr.models import ensemble  # noqa: F401  # Keras must know the layers of one that was combined

    return keras.saving.load_model(path, compile=False)
