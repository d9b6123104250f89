"""A small convolutional network trained from scratch: blocks of convolution, batch norm, ReLU, pooling and dropout."""

import keras
from keras import layers


def features(x: keras.KerasTensor, widths: list[int], dropout: float) -> keras.KerasTensor:
    """One block per width; each halves the side, rounding down."""
    for i, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
        x = layers.MaxPooling2D(name=f"pool{i}")(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    return x
