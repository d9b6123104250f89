"""Networks from typed params. Every one takes uint8 (n, size, size, 1) and has the three named outputs."""

import keras

from cxr.models import cnn
from cxr.params import TrainParams


def build_model(params: TrainParams, size: int, classes: int) -> keras.Model:
    """An untrained model: uint8 (n, size, size, 1) in; a dict of `probabilities`, `embedding` and `heatmap` out.

    probabilities: float32 (n, classes). embedding: float32 (n, d), the mean of the last features. heatmap: float32
    (n, h, w, classes), each class's evidence by place; its mean over h and w is the class's logit (CAM, Zhou et al.
    2016, exact for a linear head on a mean).
    """
    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)
    features = cnn.features(scaled, params.widths, params.dropout)
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding")(features)
    # a dropped channel of the features is a dropped entry of their mean, and the 1x1 convolution is the linear head
    kept = keras.layers.SpatialDropout2D(params.head_dropout)(features)
    heatmap = keras.layers.Conv2D(classes, 1, dtype="float32", name="heatmap")(kept)
    logits = keras.layers.GlobalAveragePooling2D(name="logits")(heatmap)
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(inputs, {"probabilities": probabilities, "embedding": embedding, "heatmap": heatmap})
