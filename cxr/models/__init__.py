"""Networks from typed params. Every one takes uint8 (n, size, size, 1) and has the three named outputs."""

from pathlib import Path

import keras

from cxr.errors import CxrError
from cxr.models import cnn, transfer
from cxr.models.heads import attach
from cxr.params import TrainParams

NAM_SIDE = 94  # pixels: five unpadded blocks leave one


def build_model(params: TrainParams, size: int, classes: int) -> keras.Model:
    """An untrained model: uint8 (n, size, size, 1) in; a dict of `probabilities`, `embedding` and `heatmap` out.

    probabilities: float32 (n, classes), rows sum to 1. embedding: float32 (n, d), what the last linear layer reads.
    heatmap: float32 (n, h, w, classes), each class's evidence by place; its mean over h and w is the class's logit.
    Scaling and channel copies are layers inside. Raises CxrError where `size` is too small for the network, where its
    weights cannot be had, or where the head does not fit the classes.
    """
    if size < (least := min_side(params)):
        raise CxrError(f"ingest.pixels.size: {params.model} takes images of {least} pixels and more, found {size}")
    if params.head.output == "sigmoid" and classes != 2:
        raise CxrError(f"train.head.output: a sigmoid node tells two classes, the task has {classes}; use softmax")
    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    if params.model in transfer.BACKBONES:
        return attach(inputs, transfer.features(inputs, params.model, params.weights), params.head, classes)
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    if params.model == "nam2022":
        x = cnn.nam2022(scaled, params.dropout)
    elif params.model == "small":
        x = cnn.small(scaled, params.dropout)
    else:
        network = {"cnn": cnn.plain, "residual": cnn.residual}[params.model]
        x = network(scaled, params.widths, params.dropout)
    return attach(inputs, x, params.head, classes)


def min_side(params: TrainParams) -> int:
    """Pixels a side, the least that the network takes."""
    if params.model in transfer.BACKBONES:
        return transfer.BACKBONES[params.model].min_side
    return {"nam2022": NAM_SIDE, "small": 8}.get(params.model, 2 ** len(params.widths))


def load_model(path: Path) -> keras.Model:
    """A model that `train` saved, for prediction."""
    return keras.saving.load_model(path, compile=False)
