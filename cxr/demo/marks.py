"""What people add to radiographs: side letters, `PORTABLE`, panel letters, arrows, the borders of a screenshot."""

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX


def write(image: np.ndarray, text: str, x: float, y: float, height: float, grey: int) -> None:
    """Text in place; `x`, `y` (of its lower left) and `height` are shares of the image's size."""
    rows, columns = image.shape
    size = height * rows / 22
    thickness = max(1, round(size * 2))
    cv2.putText(image, text, (round(x * columns), round(y * rows)), FONT, size, grey, thickness, cv2.LINE_AA)


def mark_side(image: np.ndarray, letter: str, rng: np.random.Generator) -> None:
    """A lead letter in an upper corner: `R` on the image's left, `L` on its right."""
    x = rng.uniform(0.03, 0.08) if letter == "R" else rng.uniform(0.89, 0.94)
    write(image, letter, x, rng.uniform(0.08, 0.25), rng.uniform(0.025, 0.05), int(rng.integers(190, 256)))


def mark_portable(image: np.ndarray, rng: np.random.Generator) -> None:
    write(image, "PORTABLE", rng.uniform(0.03, 0.7), rng.uniform(0.05, 0.2), 0.022, int(rng.integers(180, 250)))


def mark_panel(image: np.ndarray, rng: np.random.Generator) -> None:
    """A figure's panel letter, on a white or a black box in a corner."""
    rows, columns = image.shape
    box = max(18, round(0.11 * min(rows, columns)))
    left = 0 if rng.random() < 0.6 else columns - box
    top = 0 if rng.random() < 0.5 else rows - box
    white = bool(rng.random() < 0.5)
    image[top : top + box, left : left + box] = 255 if white else 0
    letter = "ABCD"[rng.integers(4)]
    write(image, letter, (left + 0.2 * box) / columns, (top + 0.8 * box) / rows, 0.6 * box / rows, 0 if white else 255)


def draw_arrows(image: np.ndarray, rng: np.random.Generator) -> None:
    """One to three arrows as a figure's author would set them."""
    rows, columns = image.shape
    for _ in range(rng.integers(1, 4)):
        tip = np.array([rng.uniform(0.2, 0.8) * columns, rng.uniform(0.3, 0.75) * rows])
        angle = rng.uniform(0, 2 * np.pi)
        tail = tip + 0.07 * rows * np.array([np.cos(angle), np.sin(angle)])
        (x0, y0), (x1, y1) = tail.astype(int).tolist(), tip.astype(int).tolist()
        cv2.arrowedLine(image, (x0, y0), (x1, y1), 255, max(1, rows // 200), cv2.LINE_AA, 0, 0.4)


def add_border(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A black or white margin, not the same on all sides."""
    top, bottom, left, right = (int(m) for m in rng.uniform(0.0, 0.07, 4) * image.shape[0])
    grey = 255 if rng.random() < 0.35 else 0
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=grey)
