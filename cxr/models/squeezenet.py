"""SqueezeNet 1.1 (Iandola et al. 2016), which `keras.applications` does not have, without its top."""

import keras
from keras import layers

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))  # squeeze, expand
POOLED_AFTER = (3, 5)  # the fires are numbered from 2 on


def squeezenet(shape: tuple[int, int, int]) -> keras.Model:
    """RGB as Caffe's networks take it, float (n, side, side, 3), to features (n, h, w, 512). Untrained."""
    inputs = keras.Input(shape)
    x = layers.Conv2D(64, 3, strides=2, activation="relu", name="conv1")(inputs)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for i, (squeeze, expand) in enumerate(FIRES, start=2):
        x = layers.Conv2D(squeeze, 1, activation="relu", name=f"fire{i}_squeeze1x1")(x)
        near = layers.Conv2D(expand, 1, activation="relu", name=f"fire{i}_expand1x1")(x)
        far = layers.Conv2D(expand, 3, padding="same", activation="relu", name=f"fire{i}_expand3x3")(x)
        x = layers.Concatenate(name=f"fire{i}_concat")([near, far])
        if i in POOLED_AFTER:
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{i}")(x)
    return keras.Model(inputs, x)
