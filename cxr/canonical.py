"""From a decoded radiograph to the canonical square: what tells of the file and not of the chest is taken away.

The order is fixed: crop, margin, square, re-encoding, grey levels. Each step is one value of `ingest.pixels`.
"""

import cv2
import numpy as np

from cxr.params import PixelParams


def to_canonical(pixels: np.ndarray, params: PixelParams) -> np.ndarray:
    """Bring uint8 (height, width) into the square uint8 (size, size)."""
    return to_square(pixels, params.size, params.square)


def content_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where a letterboxed width x height image lies in its square: left, top, right, bottom in pixels."""
    scale = size / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - w) // 2, (size - h) // 2
    return left, top, left + w, top + h


def to_square(pixels: np.ndarray, size: int, square: str) -> np.ndarray:
    """Fit uint8 (height, width) into uint8 (size, size): with black bars, or stretched."""
    height, width = pixels.shape
    left, top, right, bottom = content_box(width, height, size) if square == "letterbox" else (0, 0, size, size)
    larger = right - left > width or bottom - top > height
    resized = cv2.resize(
        pixels, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR if larger else cv2.INTER_AREA
    )
    return cv2.copyMakeBorder(resized, top, size - bottom, left, size - right, cv2.BORDER_CONSTANT, value=0)
