"""Random textures: blobs for disease and haze, and the grain of a detector."""

from functools import cache

import cv2
import numpy as np

TILE = 2048  # pixels; larger than any image drawn here


def clouds(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise, float32 of `shape`, mean 0 and standard deviation 1; `cell` pixels is the size of its blobs."""
    coarse = rng.standard_normal((shape[0] // cell + 3, shape[1] // cell + 3), np.float32)
    smooth = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[cell:, cell:]
    return smooth[: shape[0], : shape[1]] * 1.4


def grain(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Detector noise, float32 of `shape`, mean 0 and standard deviation 1."""
    tile = _grain_tile()
    y, x = (int(rng.integers(TILE - side + 1)) for side in shape)
    cut = tile[y : y + shape[0], x : x + shape[1]]
    return cut[:: 1 if rng.random() < 0.5 else -1, :: 1 if rng.random() < 0.5 else -1]


@cache
def _grain_tile() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((TILE, TILE), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.6)  # a detector's pixels are not independent
    return noise / noise.std()
