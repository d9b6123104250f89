"""Convolutional networks trained from scratch. Each takes grey levels scaled to -1 to 1, (n, side, side, 1)."""

import keras
from keras import layers, regularizers

NAM_WIDTHS = (32, 64, 64, 128, 256)
SMALL_WIDTHS = (32, 64, 128)


def plain(x: keras.KerasTensor, widths: list[int], dropout: float) -> keras.KerasTensor:
    """Blocks of convolution, batch norm, ReLU, pooling and dropout; each halves the side, rounding down."""
    for i, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
        x = layers.MaxPooling2D(name=f"pool{i}")(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    return x


def nam2022(x: keras.KerasTensor, dropout: float) -> keras.KerasTensor:
    """The five blocks of Nam (2022), who gives their kind and the whole network's size.

    Unpadded convolutions of these widths and a dense layer of 128 give exactly that size for 128 x 128 x 3: 558,849
    parameters, 557,761 trainable.
    """
    x = layers.Concatenate(name="rgb")([x] * 3)
    for i, width in enumerate(NAM_WIDTHS):
        x = layers.Conv2D(width, 3, activation="relu", name=f"conv{i}")(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.MaxPooling2D(name=f"pool{i}")(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    return x


def small(x: keras.KerasTensor, dropout: float) -> keras.KerasTensor:
    """The small CNN of the binary study at 128 x 128, as far as it is described: dropout, batch norm and L2."""
    for i, width in enumerate(SMALL_WIDTHS):
        x = layers.Conv2D(
            width, 3, padding="same", activation="relu", kernel_regularizer=regularizers.L2(1e-4), name=f"conv{i}"
        )(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.MaxPooling2D(name=f"pool{i}")(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    return x


def residual(x: keras.KerasTensor, widths: list[int], dropout: float) -> keras.KerasTensor:
    """A residual network (He et al. 2016): a stem of stride 2, then one block per width, each but the first halving."""
    x = layers.Conv2D(widths[0], 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = _normalised(x, "stem_norm")
    for i, width in enumerate(widths):
        stride = 1 if i == 0 else 2
        inner = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False, name=f"block{i}_conv0")(x)
        inner = _normalised(inner, f"block{i}_norm0")
        inner = layers.Dropout(dropout, name=f"block{i}_dropout")(inner)
        inner = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"block{i}_conv1")(inner)
        # zero at first: every block starts as its shortcut (Goyal et al. 2017)
        inner = layers.BatchNormalization(momentum=0.9, gamma_initializer="zeros", name=f"block{i}_norm1")(inner)
        if stride > 1:
            x = layers.AveragePooling2D(2, padding="same", name=f"block{i}_pool")(x)
        if x.shape[-1] != width:
            x = layers.Conv2D(width, 1, use_bias=False, name=f"block{i}_shortcut")(x)
        x = layers.ReLU(name=f"block{i}_relu")(layers.Add(name=f"block{i}_add")([x, inner]))
    return x


def _normalised(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=name)(x))
