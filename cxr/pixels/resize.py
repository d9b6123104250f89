"""Images made smaller: by halves while it can be, which is cheap, then by area."""

import cv2
import numpy as np


def halve(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Halve both sides of uint8 (any height, any width) as often as they stay at least `height` and `width`.

    Averaging 2 x 2 pixels costs a tenth of what uneven fractions do.
    """
    while pixels.shape[0] >= 2 * height and pixels.shape[1] >= 2 * width:
        h, w = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = cv2.resize(pixels[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
    return pixels


def shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize uint8 to (height, width), by area where it becomes smaller."""
    pixels = halve(pixels, width, height)
    larger = width > pixels.shape[1] or height > pixels.shape[0]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR if larger else cv2.INTER_AREA)
