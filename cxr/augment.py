"""Random views of a radiograph: one affine resample and one grey-level table per image."""

import cv2
import numpy as np

from cxr.params import AugmentParams


def augment(images: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of uint8 (n, size, size) images; pixels from outside repeat the edge.

    The ranges do not depend on the label, so that a change can never tell the class.
    """
    return np.stack([_augment_one(image, params, rng) for image in images])


def _augment_one(image: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    angle, zoom, dx, dy, brightness, contrast = rng.uniform(-1, 1, 6)
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle * params.rotation_degrees, 1 + zoom * params.zoom_fraction)
    matrix[:, 2] += np.array([dx, dy]) * params.shift_fraction * size
    if params.horizontal_flip and rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])
    moved = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    levels = np.arange(256) - 127.5
    levels = levels * (1 + contrast * params.contrast) + 127.5 + brightness * params.brightness * 255
    return cv2.LUT(moved, np.clip(levels, 0, 255).astype(np.uint8))
