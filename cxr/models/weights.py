# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""Weights of a network from a local file, whatever Keras wrote it."""

import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from cxr.errors import CxrError


def load_file(network: keras.Model, path: Path, name: str) -> None:
    """Load `path` into `network`: a whole `.keras` model with a backbone, a Keras 3 `.weights.h5`, or an HDF5 file of
    Keras 1 or 2, whose layers are matched in order and by shape, since their names have changed.

    Raises CxrError where there is no such file, it cannot be read, or it is another network's; `network` is then as it
    was.
    """
    try:
        if zipfile.is_zipfile(path):
            found = _of_model(path)
        else:
            with h5py.File(path) as file:
                legacy = file.get("model_weights", file)
                found = list(_of_legacy(legacy)) if "layer_names" in legacy.attrs else None
            if found is None:
                _load_keras3(network, path, name)
                return
    except FileNotFoundError:
        raise CxrError(f"train.weights: there is no file {path}; name one, or `none` or `imagenet`") from None
    except (OSError, KeyError, ValueError) as error:
        raise CxrError(f"train.weights: {path} is no file of weights that Keras wrote ({error})") from None
    own = [layer for layer in network.layers if layer.weights]
    for layer, (theirs, arrays) in zip(own, found, strict=False):
        shapes, expected = [a.shape for a in arrays], [tuple(w.shape) for w in layer.weights]
        if shapes != expected:
            raise CxrError(
                f"train.weights: {path} is not of {name}: its layer {theirs} has weights of {_told(shapes)} where "
                f"{layer.name} has {_told(expected)}"
            )
    if len(found) != len(own):
        raise CxrError(f"train.weights: {path} is not of {name}: {len(found)} layers with weights, not {len(own)}")
    for layer, (_, arrays) in zip(own, found, strict=True):
        layer.set_weights(arrays)


def _load_keras3(network: keras.Model, path: Path, name: str) -> None:
    before = network.get_weights()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras only warns of layers that the file leaves as they were
            network.load_weights(path)
    except (ValueError, UserWarning) as error:
        network.set_weights(before)
        raise CxrError(f"train.weights: {path} is not of {name}: {str(error).splitlines()[0]}") from None


def _of_legacy(group: h5py.Group) -> Iterator[tuple[str, list[np.ndarray]]]:
    names: Any = group.attrs["layer_names"]
    for layer in map(_text, names):
        stored: Any = group[layer]
        weights = [np.asarray(stored[_text(weight)]) for weight in stored.attrs["weight_names"]]
        if weights:
            yield layer, weights


def _of_model(path: Path) -> list[tuple[str, list[np.ndarray]]]:
    model = keras.saving.load_model(path, compile=False)
    return [(layer.name, layer.get_weights()) for layer in model.get_layer("backbone").layers if layer.weights]


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _told(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
