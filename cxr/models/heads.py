# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""The head of every network: from the last features to probabilities, an embedding and an exact heatmap.

For one image, pooling, dense layers with ReLU and a linear output are linear once it is known which units are on and
where the maxima are. So a class's logit is a sum over places, and the heatmap holds the terms of that sum:
for global average pooling the class activation map of Zhou et al. (2016), for the others what Draelos and Carin (2020)
call HiResCAM. It costs one pass forward and no gradient, so that an exported model answers with it.
"""

from math import prod
from typing import TYPE_CHECKING, Any

import keras
from keras import layers, ops

if TYPE_CHECKING:
    from cxr.params import HeadParams


@keras.saving.register_keras_serializable("cxr")
class Head(layers.Layer):
    """Features, float (n, h, w, c), to a dict of `logits` (n, classes), `embedding` (n, d) and `heatmap`
    (n, h, w, classes), all float32.

    embedding: the input of the output layer. heatmap: each class's evidence by place, of which the mean over h and w is
    the class's logit; what belongs to no place (biases) is spread evenly. A `sigmoid` output is one node z for two
    classes, whose logits are -z/2 and z/2: their softmax is 1 - sigmoid(z) and sigmoid(z).
    """

    def __init__(self, classes: int, pool: str, dense: list[int], dropout: float, output: str, **options: Any) -> None:
        super().__init__(**({"dtype": "float32"} | options))
        self.classes, self.pool, self.dense, self.rate, self.output_kind = classes, pool, dense, dropout, output
        own: Any = self.dtype_policy  # not the one of the network before it, which may be bfloat16
        self.hidden = [
            layers.Dense(width, activation="relu", dtype=own, name=f"dense{i}") for i, width in enumerate(dense)
        ]
        self.out = layers.Dense(1 if output == "sigmoid" else classes, dtype=own, name="out")
        self.dropout = layers.Dropout(dropout, dtype=own)

    def build(self, shape: tuple) -> None:
        width = prod(shape[1:]) if self.pool == "flatten" else shape[-1]
        for dense in [*self.hidden, self.out]:
            dense.build((None, width))
            width = dense.units
        self.built = True

    def call(self, features: Any, training: bool = False) -> dict[str, Any]:
        _, h, w, c = features.shape
        places = ops.reshape(features, (-1, h * w, c))
        x = self._pooled(places)
        on = []
        for dense in self.hidden:
            x = dense(self.dropout(x, training=training))
            on.append(ops.cast(x > 0, x.dtype))
        logits = self.out(self.dropout(x, training=training))

        # what each pooled feature adds to each logit: the output's weights, taken back through the units that are on
        weights: Any = ops.expand_dims(self.out.kernel, 0)
        bias: Any = ops.expand_dims(self.out.bias, 0)
        for dense, mask in zip(reversed(self.hidden), reversed(on), strict=True):
            weights = weights * mask[:, :, None]
            bias = bias + ops.sum(ops.reshape(dense.bias, (1, -1, 1)) * weights, axis=1)
            weights = ops.matmul(dense.kernel, weights)
        heatmap = self._evidence(places, weights) + bias[:, None]

        if self.output_kind == "sigmoid":
            logits, heatmap = (ops.concatenate([-each / 2, each / 2], axis=-1) for each in (logits, heatmap))
        return {"logits": logits, "embedding": x, "heatmap": ops.reshape(heatmap, (-1, h, w, self.classes))}

    def _pooled(self, places: Any) -> Any:
        if self.pool == "gap":
            return ops.mean(places, axis=1)
        if self.pool == "max":
            return ops.max(places, axis=1)
        return ops.reshape(places, (-1, places.shape[1] * places.shape[2]))

    def _evidence(self, places: Any, weights: Any) -> Any:
        """(n, h * w, outputs), of which the mean over places is the pooled features times `weights`."""
        n = places.shape[1]
        if self.pool == "gap":
            return ops.matmul(places, weights)
        if self.pool == "max":
            at_maximum = ops.cast(places == ops.max(places, axis=1, keepdims=True), places.dtype)
            share = ops.divide(at_maximum, ops.sum(at_maximum, axis=1, keepdims=True))
            return n * ops.matmul(places * share, weights)
        by_place = ops.reshape(weights, (-1, n, places.shape[2], weights.shape[-1]))
        return n * ops.sum(places[..., None] * by_place, axis=2)

    def get_config(self) -> dict[str, Any]:
        own = {
            "classes": self.classes, "pool": self.pool, "dense": self.dense, "dropout": self.rate,
            "output": self.output_kind,
        }  # fmt: skip
        return super().get_config() | own


def attach(inputs: keras.KerasTensor, features: keras.KerasTensor, params: "HeadParams", classes: int) -> keras.Model:
    """The model of `inputs` with the three outputs that every model has (see `cxr.models.build_model`)."""
    answer = Head(classes, params.pool, params.dense, params.dropout, params.output, name="head")(features)
    return keras.Model(
        inputs,
        {
            "probabilities": layers.Softmax(name="probabilities", dtype="float32")(answer["logits"]),
            "embedding": layers.Identity(name="embedding", dtype="float32")(answer["embedding"]),
            "heatmap": layers.Identity(name="heatmap", dtype="float32")(answer["heatmap"]),
        },
    )
