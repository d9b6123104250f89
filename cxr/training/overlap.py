"""What a model that localises is trained on and watched by: how far its mask and the true one overlap.

Throughout, `masks` are (n, side, side, 1), 1 inside and 0 outside, and `logits` (n, side, side, 2), of background and
region.
"""

from typing import Any

import keras
from keras import ops

PIXEL = 1.0  # added to both sides of the fraction: an empty mask that is found empty loses nothing


@keras.saving.register_keras_serializable("cxr")
class SoftDice(keras.losses.Loss):
    """One minus the Dice coefficient of probabilities, 2 |p t| / (|p|^2 + |t|^2), of each image.

    Milletari F et al., 3DV 2016, 565-571. Keras's own Dice loss adds nothing to an empty mask's fraction, so that
    images without the region teach nothing.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        p, truth = ops.sigmoid(y_pred[..., 1] - y_pred[..., 0]), y_true[..., 0]
        total = _sum(ops.square(p)) + _sum(ops.square(truth))
        return 1 - (2 * _sum(p * truth) + PIXEL) / (total + PIXEL)


def dice(masks: Any, logits: Any) -> Any:
    """Of each image, 2 |A B| / (|A| + |B|) of the true and the found mask, (n,); 1 where both are empty."""
    true, found = _pixels(masks, logits)
    total = _sum(true) + _sum(found)
    return ops.where(total > 0, 2 * _sum(true * found) / ops.maximum(total, 1), 1.0)


def iou(masks: Any, logits: Any) -> Any:
    """Of each image, |A B| / |A or B| of the true and the found mask, (n,); 1 where both are empty."""
    true, found = _pixels(masks, logits)
    either = _sum(ops.maximum(true, found))
    return ops.where(either > 0, _sum(true * found) / ops.maximum(either, 1), 1.0)


def _pixels(masks: Any, logits: Any) -> tuple[Any, Any]:
    """The true and the found mask, float32 (n, side, side), 0 or 1."""
    return ops.cast(masks[..., 0], "float32"), ops.cast(logits[..., 1] > logits[..., 0], "float32")


def _sum(values: Any) -> Any:
    return ops.sum(values, axis=(1, 2))
