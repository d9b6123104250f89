# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""One model of several: the members of a deep ensemble, and each image seen in several views."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers, ops

from cxr.models.unet import Shares

if TYPE_CHECKING:
    from cxr.params import ViewParams


def combine(members: list[keras.Model], params: "ViewParams", localises: bool) -> keras.Model:
    """One model of the three outputs (see `cxr.models.build_model`) that averages the logits of all members and views.

    `localises`: the members answer for every pixel, and so does the whole.

    So the heatmap, averaged as well, is exact still. The views are averaged as they lie: they move an image by a tenth
    of a side at most, less than a cell of most networks' heatmaps, and blur a finer one by as much. embedding: those of
    the members side by side, each the mean over its views. Members of a deep ensemble (Lakshminarayanan et al. 2017)
    are trained alike from other seeds.
    """
    size = members[0].input.shape[1]
    moves = views(params)
    if len(members) == 1 and len(moves) == 1:
        return members[0]
    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    seen, over_views = inputs, layers.Identity(name="one_view")
    if len(moves) > 1:
        seen, over_views = Views(moves, name="views")(inputs), MeanOfGroups(len(moves), name="over_views")
    heatmaps, embeddings = [], []
    for i, member in enumerate(members):
        member.name = f"member{i}"
        answer = member(seen)
        heatmaps.append(over_views(answer["heatmap"]))
        embeddings.append(over_views(answer["embedding"]))
    heatmap = layers.Average(name="heatmap")(heatmaps) if len(members) > 1 else heatmaps[0]
    embedding = layers.Concatenate(name="embedding")(embeddings) if len(members) > 1 else embeddings[0]
    if localises:
        probabilities = Shares(name="probabilities")(heatmap)
    else:
        logits = layers.GlobalAveragePooling2D(name="logits")(heatmap)
        probabilities = layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.Model(inputs, {"probabilities": probabilities, "embedding": embedding, "heatmap": heatmap})


def views(params: "ViewParams") -> list[tuple[float, float, float]]:
    """Zoom and shifts down and right, as fractions of a side: the image itself, four shifts, two zooms."""
    shift, zoom = params.shift_fraction, params.zoom_fraction
    moves = [(1.0, 0.0, 0.0)]
    if shift:
        moves += [(1.0, down, right) for down, right in ((shift, 0.0), (-shift, 0.0), (0.0, shift), (0.0, -shift))]
    if zoom:
        moves += [(1 + zoom, 0.0, 0.0), (1 - zoom, 0.0, 0.0)]
    return moves


@keras.saving.register_keras_serializable("cxr")
class Views(layers.Layer):
    """uint8 (n, size, size, 1) to uint8 (n * views, size, size, 1), the views of an image one behind the other.

    Linear between pixels; what comes from outside repeats the edge, as in augmentation.
    """

    def __init__(self, moves: list[tuple[float, float, float]], **options: Any) -> None:
        super().__init__(**options)
        self.moves = [tuple(move) for move in moves]

    def build(self, shape: tuple) -> None:
        self.size = shape[1]
        # shifts and zooms move rows and columns apart from each other: two products of small matrices
        self.rows = np.stack([resampling(self.size, zoom, down) for zoom, down, _ in self.moves])
        self.columns = np.stack([resampling(self.size, zoom, right).T for zoom, _, right in self.moves])

    def call(self, images: Any) -> Any:
        pixels = ops.cast(ops.transpose(images, (0, 3, 1, 2)), "float32")
        moved = ops.matmul(ops.matmul(self.rows, pixels), self.columns)
        return ops.cast(ops.round(ops.reshape(moved, (-1, self.size, self.size, 1))), "uint8")

    def compute_output_spec(self, images: Any) -> keras.KerasTensor:
        return keras.KerasTensor((None, *images.shape[1:]), dtype="uint8")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"moves": self.moves}


def resampling(size: int, zoom: float, shift: float) -> np.ndarray:
    """float32 (size, size): times a column of pixels, it is zoomed about its centre and moved by `shift` of a side."""
    centre = (size - 1) / 2
    at = np.clip((np.arange(size) - centre - shift * size) / zoom + centre, 0, size - 1)
    below = np.floor(at).astype(int)
    matrix = np.zeros((size, size), np.float32)
    matrix[np.arange(size), below] = 1 - (at - below)
    matrix[np.arange(size), np.minimum(below + 1, size - 1)] += at - below
    return matrix


@keras.saving.register_keras_serializable("cxr")
class MeanOfGroups(layers.Layer):
    """(n * group, ...) to (n, ...): the mean of every `group` rows that follow each other."""

    def __init__(self, group: int, **options: Any) -> None:
        super().__init__(**({"dtype": "float32"} | options))
        self.group = group

    def call(self, values: Any) -> Any:
        return ops.mean(ops.reshape(values, (-1, self.group, *values.shape[1:])), axis=1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"group": self.group}
