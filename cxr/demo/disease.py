"""What disease puts in place of air: the share of each ray's lung that is filled, float32 on the canvas, 0 to 1."""

from typing import Literal

import cv2
import numpy as np

from cxr.demo.anatomy import Anatomy
from cxr.demo.phantom import SCALE, SHAPE, SIDES, Chest, X, Y, draw_tree, grow_tree
from cxr.demo.texture import clouds

Pattern = Literal["clear", "lobar", "interstitial", "peripheral", "nodules", "effusion", "bands", "nodule"]

# side (as SIDES) and centre as (share of the way from mediastinum to chest wall, share of the way from apex to dome)
LOBES = (
    (-1, 0.45, 0.32), (-1, 0.35, 0.68), (-1, 0.55, 0.84),
    (1, 0.45, 0.36), (1, 0.45, 0.64), (1, 0.6, 0.84),
)  # fmt: skip


def draw_opacity(pattern: Pattern, chest: Chest, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """The opacity of one film. Severity varies from nearly invisible to dense, as in practice."""
    haze = 0.04 * rng.random() + 0.025 * clouds(rng, SHAPE, 60)  # no two clear lungs are equally clear
    return np.clip(haze + _PATTERNS[pattern](chest, anatomy, rng), 0, 0.97) * chest.mask


def _clear(_chest: Chest, _anatomy: Anatomy, _rng: np.random.Generator) -> np.ndarray:
    return np.zeros(SHAPE, np.float32)


def _lobar(chest: Chest, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Bacterial: one dense patch, sometimes two, with bronchi still holding air."""
    filled = np.zeros(SHAPE, np.float32)
    for lobe in rng.choice(len(LOBES), 1 + (rng.random() < 0.3), replace=False):
        side, across, down = LOBES[lobe]
        x, y = _place(chest, side, across + rng.normal(0, 0.08), down + rng.normal(0, 0.05))
        rx, ry = rng.uniform(2.7, 5.4), rng.uniform(2.3, 4.8)
        distance = np.sqrt(((X - x) / rx) ** 2 + ((Y - y) / ry) ** 2)
        ragged = distance + 0.25 * clouds(rng, SHAPE, 34) + 0.08 * clouds(rng, SHAPE, 12)
        patch = np.clip((1.5 - ragged) / 1.1, 0, 1) * (X * side > 0)
        np.maximum(filled, patch * rng.uniform(0.6, 0.95), out=filled)
    bronchi = draw_tree(grow_tree(anatomy.tree_seed), 0.5)
    return filled * (1 - 0.5 * bronchi)


def _interstitial(chest: Chest, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Viral: both lungs, streaks along thickened bronchi and a net between them, densest around the hila."""
    severity = rng.uniform(0.75, 1.35)
    near = np.exp(-((chest.depth_in_lung / 0.85) ** 2) - ((chest.height_in_lung - 0.62) / 0.4) ** 2)
    streaks = cv2.GaussianBlur(draw_tree(grow_tree(anatomy.tree_seed + 1), 1.5), (0, 0), 2)
    net = np.clip(1 - np.abs(clouds(rng, SHAPE, 9)) * 1.6, 0, 1)
    patches = np.clip(0.75 + 0.5 * clouds(rng, SHAPE, 44), 0, 1.5)
    return severity * _by_side(rng, 0.6) * patches * near * (0.42 + 0.35 * streaks + 0.25 * net)


def _peripheral(chest: Chest, anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """COVID-19: ground-glass haze of both lungs, at the outside and below, patchy."""
    severity = rng.uniform(0.6, 1.0)
    outside = np.clip((chest.depth_in_lung - 0.1) / 0.45, 0, 1)
    below = np.clip((chest.height_in_lung - rng.uniform(0.15, 0.4)) / 0.35, 0, 1)
    patches = np.clip(0.8 + 0.42 * clouds(rng, SHAPE, 40) + 0.16 * clouds(rng, SHAPE, 12), 0, 1.2)
    return severity * _by_side(rng, 0.55) * outside * below * patches


def _nodules(chest: Chest, _anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Varicella: many small round nodules everywhere."""
    spots = np.clip(clouds(rng, SHAPE, 6) - 1.2, 0, 1)
    return rng.uniform(0.35, 0.6) * spots + 0.1


def _effusion(chest: Chest, _anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Fluid in one costophrenic angle, its upper border rising to the chest wall."""
    side = SIDES[rng.integers(2)]
    level = chest.height_in_lung - rng.uniform(0.72, 0.9) + 0.2 * chest.depth_in_lung**2
    return rng.uniform(0.7, 0.95) * np.clip(level / 0.08, 0, 1) * (X * side > 0)


def _bands(chest: Chest, _anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Plate-like atelectasis: thin near-horizontal lines in the bases."""
    filled = np.zeros(SHAPE, np.float32)
    for _ in range(rng.integers(1, 4)):
        side = SIDES[rng.integers(2)]
        x, y = _place(chest, side, rng.uniform(0.3, 0.7), rng.uniform(0.75, 0.92))
        line = np.exp(-(((Y - y - rng.normal(0, 0.15) * (X - x)) / 0.28) ** 2) - ((X - x) / 2.6) ** 2)
        np.maximum(filled, 0.6 * line, out=filled)
    return filled


def _nodule(chest: Chest, _anatomy: Anatomy, rng: np.random.Generator) -> np.ndarray:
    x, y = _place(chest, SIDES[rng.integers(2)], rng.uniform(0.3, 0.8), rng.uniform(0.25, 0.8))
    distance = np.hypot(X - x, Y - y) / rng.uniform(0.7, 1.5)
    return 0.35 * np.clip((1.2 - distance) / 0.5, 0, 1)


def _by_side(rng: np.random.Generator, least: float) -> np.ndarray:
    """A factor for each lung, (1, columns): disease of both lungs is seldom even."""
    return np.where(X < 0, rng.uniform(least, 1), rng.uniform(least, 1)).astype(np.float32)


def _place(chest: Chest, side: int, across: float, down: float) -> tuple[float, float]:
    """Centimetres of a place told as shares of the lung."""
    row = int(np.argmin(np.abs(chest.height_in_lung[:, SHAPE[1] // 2 + side * 6 * SCALE] - down)))
    columns = np.flatnonzero(X[0] * side > 0)
    column = columns[np.argmin(np.abs(chest.depth_in_lung[row, columns] - across))]
    return float(X[0, column]), float(Y[row, 0])


_PATTERNS = {
    "clear": _clear,
    "lobar": _lobar,
    "interstitial": _interstitial,
    "peripheral": _peripheral,
    "nodules": _nodules,
    "effusion": _effusion,
    "bands": _bands,
    "nodule": _nodule,
}
