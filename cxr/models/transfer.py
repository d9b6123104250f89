# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""Published backbones, each behind its own input convention, so that every model takes the same grey image."""

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
from keras import applications, layers

from cxr.errors import CxrError
from cxr.models.squeezenet import squeezenet
from cxr.models.weights import load_file

# Pixels 0 to 255 are multiplied by the first and raised by the second, channel by channel. The numbers are those of
# `keras.applications.imagenet_utils.preprocess_input`; grey is alike in RGB and Caffe's BGR, but the means are not.
IMAGENET_SD = (0.229, 0.224, 0.225)
CONVENTIONS = {
    "caffe": ([1.0, 1.0, 1.0], [-103.939, -116.779, -123.68]),
    "tf": ([1 / 127.5] * 3, [-1.0] * 3),
    "torch": (
        [1 / (255 * sd) for sd in IMAGENET_SD],
        [-mean / sd for mean, sd in zip((0.485, 0.456, 0.406), IMAGENET_SD, strict=True)],
    ),
    "raw": ([1.0] * 3, [0.0] * 3),  # the network begins with its own scaling
}


@dataclass(frozen=True)
class Backbone:
    """`build` gives the untrained network without its top; `min_side` in pixels is the least that it takes."""

    build: Callable[..., keras.Model]
    convention: str
    min_side: int = 32


BACKBONES = {
    "vgg16": Backbone(applications.VGG16, "caffe"),
    "resnet50": Backbone(applications.ResNet50, "caffe"),
    "resnet101": Backbone(applications.ResNet101, "caffe"),
    "resnet152": Backbone(applications.ResNet152, "caffe"),
    "resnet50v2": Backbone(applications.ResNet50V2, "tf"),
    "densenet121": Backbone(applications.DenseNet121, "torch"),
    "inceptionv3": Backbone(applications.InceptionV3, "tf", 75),
    "xception": Backbone(applications.Xception, "tf", 71),
    "mobilenetv2": Backbone(applications.MobileNetV2, "tf"),
    "efficientnetv2b0": Backbone(applications.EfficientNetV2B0, "raw"),
    "convnexttiny": Backbone(applications.ConvNeXtTiny, "raw"),
    "squeezenet": Backbone(squeezenet, "caffe"),
}


def features(inputs: keras.KerasTensor, name: str, weights: str) -> keras.KerasTensor:
    """The backbone's last features, (n, h, w, c), of grey levels 0 to 255, (n, side, side, 1).

    `weights`: `none`, `imagenet` (Keras's own, from its cache or its server), or the path of a file. Raises CxrError
    where they cannot be had or are another network's.
    """
    backbone = BACKBONES[name]
    scale, offset = CONVENTIONS[backbone.convention]
    rgb = layers.Concatenate(name="rgb")([inputs] * 3)
    x = layers.Rescaling(scale, offset, name=f"convention_{backbone.convention}")(rgb)
    return _network(name, (*inputs.shape[1:3], 3), weights)(x)


def _network(name: str, shape: tuple[int, int, int], weights: str) -> keras.Model:
    build = BACKBONES[name].build
    if weights == "imagenet":
        network = _with_imagenet(name, shape)
    elif build is squeezenet:
        network = squeezenet(shape)
    else:
        network = build(include_top=False, weights=None, input_shape=shape)
    network.name = "backbone"  # EfficientNetV2 looks its blocks up by the name it is given
    if weights not in ("none", "imagenet"):
        load_file(network, Path(weights), name)
    return network


def _with_imagenet(name: str, shape: tuple[int, int, int]) -> keras.Model:
    if BACKBONES[name].build is squeezenet:
        raise CxrError(
            "train.weights: Keras has no ImageNet weights of squeezenet; name a file, such as "
            "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
        )
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a progress bar of the download, one line per block
            return BACKBONES[name].build(include_top=False, weights="imagenet", input_shape=shape)
    except Exception as error:  # Keras raises a bare Exception where it cannot fetch
        reason = str(error).strip().splitlines()[0]
        raise CxrError(
            f"train.weights: the ImageNet weights of {name} are not in {cache} and cannot be fetched ({reason}); copy "
            f"them there from a machine with a network, name a file, or set train.weights: none"
        ) from None


def freeze(model: keras.Model, depth: int | str) -> int:
    """Freeze the first layers of the backbone, up to `depth`; returns how many are frozen.

    `depth`: the number of first layers to freeze, `all`, or the name of the last layer to freeze. A frozen batch norm
    uses its stored statistics. Raises CxrError for a name that the backbone does not have.
    """
    backbone = model.get_layer("backbone")
    names = [layer.name for layer in backbone.layers]
    if isinstance(depth, str) and depth != "all" and depth not in names:
        raise CxrError(
            f"train.freeze: the backbone has no layer {depth!r}; its {len(names)} layers begin with "
            f"{', '.join(names[1:4])} and end with {', '.join(names[-3:])}"
        )
    n = len(names) if depth == "all" else names.index(depth) + 1 if isinstance(depth, str) else min(depth, len(names))
    for i, layer in enumerate(backbone.layers):
        layer.trainable = i >= n
    return n
