"""Random views of a radiograph: one affine resample and one grey-level table per image, then mixtures of two."""

import cv2
import numpy as np

from cxr.params import AugmentParams

ERASED = (0.02, 0.2)  # of the area
ASPECT = (0.5, 2.0)  # of what is erased, width over height


def augment(images: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of uint8 (n, size, size) images; pixels from outside repeat the edge.

    The ranges do not depend on the label, so that a change can never tell the class.
    """
    return np.stack([_augment_one(image, params, rng) for image in images])


def _augment_one(image: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    angle, zoom, shear, dx, dy, brightness, contrast = rng.uniform(-1, 1, 7)
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle * params.rotation_degrees, 1 + zoom * params.zoom_fraction)
    slope = np.tan(np.deg2rad(shear * params.shear_degrees))
    matrix = matrix @ np.array([[1, slope, -slope * centre], [0, 1, 0], [0, 0, 1]])
    matrix[:, 2] += np.array([dx, dy]) * params.shift_fraction * size
    if params.horizontal_flip and rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])
    moved = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    levels = np.arange(256) - 127.5
    levels = levels * (1 + contrast * params.contrast) + 127.5 + brightness * params.brightness * 255
    changed = cv2.LUT(moved, np.clip(levels, 0, 255).astype(np.uint8))
    if rng.random() < params.erase:
        box = _box(size, rng.uniform(*ERASED), np.exp(rng.uniform(*np.log(ASPECT))), rng)
        changed[box] = rng.integers(0, 256, changed[box].shape)  # Zhong et al. (2020)
    return changed


def mix(
    images: np.ndarray, targets: np.ndarray, params: AugmentParams, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lay a share of another image of the batch over each, uint8 (n, size, size), and over its target (n, classes).

    With mixup (Zhang et al. 2018) everywhere at once, with CutMix (Yun et al. 2019) in a box; with both params above 0
    each image takes one of them by chance. The share is drawn from Beta(a, a).
    """
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(params, kind) > 0]
    if not kinds:
        return images, targets
    mixed, labels = images.copy(), targets.copy()
    for i, other in enumerate(rng.permutation(len(images))):
        kind = kinds[rng.integers(len(kinds))]
        strength = getattr(params, kind)
        share = rng.beta(strength, strength)  # of the image itself
        if kind == "mixup":
            mixed[i] = cv2.addWeighted(images[i], share, images[other], 1 - share, 0)
        else:
            box = _box(images.shape[1], 1 - share, 1.0, rng)
            mixed[i][box] = images[other][box]
            share = 1 - images[other][box].size / images[i].size
        labels[i] = share * targets[i] + (1 - share) * targets[other]
    return mixed, labels


def _box(size: int, area: float, aspect: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box of about that fraction of the area, which may reach beyond the image's edge."""
    half = np.array([np.sqrt(area / aspect), np.sqrt(area * aspect)]) / 2
    middle = rng.random(2)
    low, high = (np.round(np.clip(middle + end * half, 0, 1) * size).astype(int) for end in (-1, 1))
    return slice(low[0], high[0]), slice(low[1], high[1])
