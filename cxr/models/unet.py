# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""A U-Net of separable convolutions with residuals: for every pixel, whether it shows the region that is looked for.

After `Image segmentation with a U-Net-like architecture` of keras.io, whose blocks are Xception's (Chollet 2017), with
the connections across that gave the U-Net its name (Ronneberger et al. 2015): on the way up, each block also reads
the features of the same size from the way down. Without them, edges would be as coarse as the smallest features.
"""

from typing import Any

import keras
from keras import layers, ops

DOWN = (64, 128, 256)  # filters of the blocks behind a stem of 32, each of which halves the side
STEM = 32
UP = (256, 128, 64, 32)  # of the blocks that double it
SIDES = 2 ** (1 + len(DOWN))  # the image's side must be a multiple, or the ways down and up do not meet


def unet(inputs: keras.KerasTensor, scaled: keras.KerasTensor, dropout: float) -> keras.Model:
    """The model with the three outputs that every model has (see `cxr.models.build_model`), here for every pixel.

    `scaled`: grey levels -1 to 1, (n, side, side, 1); the side is a multiple of SIDES. heatmap: float32
    (n, side, side, 2), of each pixel the logits -z/2 and z/2 of background and region, whose softmax is 1 - sigmoid(z)
    and sigmoid(z). probabilities: float32 (n, 2), the mean of that softmax over all pixels: the share of the image that
    each covers. embedding: float32 (n, 256), the mean of the bottom's features. `dropout`: of those features.
    """
    x = _norm(layers.Conv2D(STEM, 3, strides=2, padding="same", use_bias=False, name="stem")(scaled), "stem_norm")
    across = []
    for i, width in enumerate(DOWN):
        across.append(x)
        inner = _separable(x, width, f"down{i}_0")
        inner = _separable(inner, width, f"down{i}_1")
        inner = layers.MaxPooling2D(3, strides=2, padding="same", name=f"down{i}_pool")(inner)
        shortcut = layers.Conv2D(width, 1, strides=2, padding="same", name=f"down{i}_shortcut")(x)
        x = layers.Add(name=f"down{i}")([inner, shortcut])
    bottom = layers.ReLU(name="bottom")(x)
    x = layers.SpatialDropout2D(dropout, name="dropout")(x)
    for i, width in enumerate(UP):
        inner = _separable(x, width, f"up{i}_0")
        inner = _separable(inner, width, f"up{i}_1")
        inner = layers.UpSampling2D(name=f"up{i}_inner")(inner)
        shortcut = layers.Conv2D(width, 1, name=f"up{i}_shortcut")(x)
        x = layers.Add(name=f"up{i}")([inner, layers.UpSampling2D(name=f"up{i}_outer")(shortcut)])
        if across:
            x = layers.Concatenate(name=f"across{i}")([x, across.pop()])
    z = layers.Conv2D(1, 3, padding="same", dtype="float32", name="out")(layers.ReLU(name="last")(x))
    heatmap = TwoSided(name="heatmap")(z)
    return keras.Model(
        inputs,
        {
            "probabilities": Shares(name="probabilities")(heatmap),
            "embedding": layers.GlobalAveragePooling2D(dtype="float32", name="embedding")(bottom),
            "heatmap": heatmap,
        },
    )


def _separable(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    x = layers.ReLU(name=f"{name}_relu")(x)
    return _norm(layers.SeparableConv2D(width, 3, padding="same", use_bias=False, name=name)(x), f"{name}_norm")


def _norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.9, name=name)(x)


@keras.saving.register_keras_serializable("cxr")
class TwoSided(layers.Layer):
    """One logit z to the two logits -z/2 and z/2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"dtype": "float32"} | options))

    def call(self, z: Any) -> Any:
        return ops.concatenate([-z / 2, z / 2], axis=-1)


@keras.saving.register_keras_serializable("cxr")
class Shares(layers.Layer):
    """Logits of each pixel (n, h, w, classes) to the mean of their softmax, (n, classes)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"dtype": "float32"} | options))

    def call(self, logits: Any) -> Any:
        return ops.mean(ops.softmax(logits, axis=-1), axis=(1, 2))
