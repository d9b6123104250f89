"""Views that a frontal model must not see: a lateral radiograph and an axial CT slice, drawn simply."""

import cv2
import numpy as np

from cxr.demo.texture import clouds, grain


def draw_lateral(rng: np.random.Generator) -> np.ndarray:
    """uint8 (rows, columns): sternum on the image's left, spine on its right."""
    rows, columns = int(rng.integers(420, 560)), int(rng.integers(340, 420))
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j].astype(np.float32)
    body = _oval(x, y, 0.5, 0.6, 0.42 + 0.03 * rng.random(), 0.68)
    lung = _oval(x, y, 0.5, 0.48, 0.33, 0.42) * np.clip((0.74 + 0.2 * (x - 0.5) ** 2 * 4 - y) / 0.02, 0, 1)
    heart = _oval(x, y, 0.38, 0.62, 0.17, 0.15)
    spine_x = 0.74 + 0.05 * np.sin(3 * (y - 0.1))
    vertebra = (0.6 + 0.4 * (np.abs((y / 0.062) % 1 - 0.5) < 0.42)) * body
    spine = np.clip(1 - np.abs(x - spine_x) / 0.055, 0, 1) ** 0.4 * vertebra
    sternum = np.clip(1 - np.abs(x - 0.16 + 0.06 * y) / 0.02, 0, 1) ** 0.5 * (y > 0.15) * (y < 0.65)
    ribs = np.zeros((rows, columns), np.uint8)
    for start in np.arange(0.1, 0.8, 0.075):
        turn = np.linspace(0, 1, 20)
        line = np.stack([0.72 - 0.52 * turn, start + 0.2 * turn**1.4], 1) * (columns, rows) * 16
        cv2.polylines(ribs, [line.astype(np.int32)], False, 255, max(3, columns // 50), cv2.LINE_AA, 4)
    bone = (
        0.7 * spine + 0.4 * sternum * body + cv2.GaussianBlur(ribs.astype(np.float32), (0, 0), 1.5) / 255 * 0.28 * body
    )
    tissue = (
        1.9 * body - 1.25 * np.clip(lung - 0.75 * heart, 0, 1) + bone + 0.06 * clouds(rng, (rows, columns), 16) * lung
    )
    return _shown(1 - np.exp(-1.1 * tissue), rng, 3.0)


def draw_ct_slice(rng: np.random.Generator) -> np.ndarray:
    """uint8 (rows, columns): an axial slice in a lung window, seen from the feet, COVID-19 haze at the periphery."""
    rows, columns = 380, int(rng.integers(460, 540))
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j].astype(np.float32)
    body = _oval(x, y, 0.5, 0.5, 0.44, 0.42)
    wall = _oval(x, y, 0.5, 0.5, 0.385, 0.345)
    lungs = np.maximum(_oval(x, y, 0.3, 0.49, 0.16, 0.3), _oval(x, y, 0.7, 0.51, 0.15, 0.28)) * wall
    heart = _oval(x, y, 0.56, 0.4, 0.14, 0.16)
    lungs = lungs * (1 - heart)
    vertebra = np.maximum(_oval(x, y, 0.5, 0.71, 0.055, 0.065), _oval(x, y, 0.5, 0.83, 0.016, 0.07))
    aorta = _oval(x, y, 0.575, 0.66, 0.03, 0.04)
    image = 0.62 * body - 0.5 * lungs + 0.1 * np.maximum(heart, aorta) * body
    image += 0.35 * vertebra + 0.09 * np.clip(clouds(rng, (rows, columns), 7) - 1.0, 0, 2) * lungs  # vessels cut across
    edge = np.clip(1 - cv2.GaussianBlur(lungs, (0, 0), 22), 0, 1)
    image += 0.55 * lungs * edge * np.clip(clouds(rng, (rows, columns), 30), 0, 1) * (y > 0.45)
    for angle in np.arange(0, 2 * np.pi, np.pi / 9):
        image += 0.4 * _oval(x, y, 0.5 + 0.4 * np.cos(angle), 0.5 + 0.365 * np.sin(angle), 0.022, 0.014)
    image += 0.3 * (np.abs(y - 0.95 - 0.06 * (x - 0.5) ** 2 * 4) < 0.006)  # the table
    return _shown(image, rng, 5.0)


def _oval(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """1 inside, 0 outside, a short ramp between."""
    distance = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
    return np.clip((1 - distance) * min(rx, ry) / 0.008 + 0.5, 0, 1)


def _shown(image: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    grey = np.clip(image * 245, 0, 250) + grain(rng, image.shape) * noise
    return np.clip(grey, 0, 255).astype(np.uint8)
