"""Thumbs: 64 x 64 grey levels of a whole image, on which copies are found and the content is judged."""

import cv2
import numpy as np

from cxr.pixels.resize import shrink

THUMB_SIZE = 64  # pixels a side
WAVES = np.ascontiguousarray(cv2.dct(np.eye(THUMB_SIZE, dtype=np.float32), flags=cv2.DCT_ROWS).T[:16])


def to_thumb(pixels: np.ndarray) -> np.ndarray:
    """The whole of uint8 (height, width), stretched to uint8 (64, 64).

    Stretched, so that copies squeezed to another aspect ratio stay alike.
    """
    return shrink(pixels, THUMB_SIZE, THUMB_SIZE)


def cosines(thumb: np.ndarray, n: int) -> np.ndarray:
    """The low n x n coefficients of the orthonormal cosine transform (DCT-II) of float32 (64, 64); n is at most 16."""
    return WAVES[:n] @ thumb @ WAVES[:n].T


def perceptual_hash(thumb: np.ndarray) -> bytes:
    """256 signs of the low 16 x 16 cosine coefficients of a thumb against their median, as 32 bytes.

    64 bits are too few: different patients' chests collide.
    """
    coefficients = cosines(thumb.astype(np.float32), 16).ravel()
    middle = np.sort(coefficients)[127:129]  # np.median takes ten times as long
    return np.packbits(coefficients > middle.mean()).tobytes()
