# The types of OpenCV leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Random views of a radiograph: one affine resample and one grey-level table per image, then what is asked for beyond:
boxes erased, resolution lost, noise, mixtures of two."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from cxr.params import AugmentParams

ERASED = (0.02, 0.2)  # of the area
ASPECT = (0.5, 2.0)  # of what is erased, width over height


def augment(images: np.ndarray, params: "AugmentParams", rng: np.random.Generator) -> np.ndarray:
    """A changed copy of uint8 (n, size, size) images; pixels from outside repeat the edge.

    The ranges do not depend on the label, so that a change can never tell the class.
    """
    size = images.shape[1]
    matrices, tables, chances = _draw(len(images), size, params, rng)
    changed = np.empty_like(images)
    for image, matrix, table, out in zip(images, matrices, tables, changed, strict=True):
        moved = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.LUT(moved, table, dst=out)
    for i in np.flatnonzero(chances < params.erase):  # Zhong et al. (2020)
        box = _box(size, rng.uniform(*ERASED), np.exp(rng.uniform(*np.log(ASPECT))), rng)
        changed[i][box] = rng.integers(0, 256, changed[i][box].shape)
    if params.blur:
        for image, lost in zip(changed, params.blur * rng.random(len(images)), strict=True):
            _lose_resolution(image, lost)
    if params.noise:
        for image, level in zip(changed, params.noise * rng.random(len(images)), strict=True):
            grain = 255 * level * rng.standard_normal(image.shape, dtype=np.float32)
            image[:] = np.clip(image + grain, 0, 255)
    return changed


def _lose_resolution(image: np.ndarray, lost: float) -> None:
    """Shrink the image by `lost`, a fraction of its side, and enlarge it again, in place."""
    side = round(image.shape[0] * (1 - lost))
    coarse = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    cv2.resize(coarse, image.shape, dst=image, interpolation=cv2.INTER_LINEAR)


def move(masks: np.ndarray, params: "AugmentParams", rng: np.random.Generator) -> np.ndarray:
    """Masks, uint8 (n, size, size), moved as `augment` moves their images with an `rng` of the same state.

    Each pixel takes the nearest one's value; grey levels and erased boxes are the images' own.
    """
    size = masks.shape[1]
    matrices, _, _ = _draw(len(masks), size, params, rng)
    options = {"flags": cv2.INTER_NEAREST, "borderMode": cv2.BORDER_REPLICATE}
    return np.stack([cv2.warpAffine(*pair, (size, size), **options) for pair in zip(masks, matrices, strict=True)])


def _draw(
    n: int, size: int, params: "AugmentParams", rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where pixels go, what becomes of grey levels, and a chance from 0 to 1 of being erased, of each of n images."""
    drawn = rng.random((n, 8))
    *motions, brightness, contrast = 2 * drawn[:, :7].T - 1
    mirror = np.where(rng.random(n) < 0.5, -1, 1) if params.horizontal_flip else np.ones(n)
    tables = _tables(brightness * params.brightness, contrast * params.contrast)
    return _matrices(*motions, mirror, size, params), tables, drawn[:, 7]


def _matrices(
    angle: np.ndarray, zoom: np.ndarray, shear: np.ndarray, dx: np.ndarray, dy: np.ndarray, mirror: np.ndarray,
    size: int, params: "AugmentParams",
) -> np.ndarray:  # fmt: skip
    """Float (n, 2, 3), where a pixel goes: mirrored, sheared, zoomed and turned about the centre, then shifted.

    `mirror` is -1 or 1, the others are shares of their params, -1 to 1; each (n,).
    """
    angle = np.deg2rad(angle * params.rotation_degrees)
    cos, sin = (1 + zoom * params.zoom_fraction) * np.array([np.cos(angle), np.sin(angle)])
    slope = np.tan(np.deg2rad(shear * params.shear_degrees))
    linear = np.array([[cos * mirror, cos * slope + sin], [-sin * mirror, cos - sin * slope]])
    shift = np.array([dx, dy]) * params.shift_fraction * size + (size - 1) / 2 * (1 - linear.sum(axis=1))
    return np.concatenate([linear, shift[:, np.newaxis]], axis=1).transpose(2, 0, 1).copy()


def _tables(brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Uint8 (n, 256), what becomes of each grey level; both (n,), fractions of the grey range and of the slope."""
    levels = (np.arange(256) - 127.5) * (1 + contrast[:, np.newaxis]) + 127.5 + brightness[:, np.newaxis] * 255
    return np.clip(levels, 0, 255).astype(np.uint8)


def mix(
    images: np.ndarray, targets: np.ndarray, params: "AugmentParams", rng: np.random.Generator
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
