# The types of OpenCV leave open what a call takes and gives.
# pyright: reportReturnType=false
"""From a decoded radiograph to the canonical square: traces of the file are removed, the chest stays.

Each step is a value of `ingest.pixels`. Their order is fixed:

1. crop: padding and shutters go first, so that they count in no later step;
2. margin: a share of the film that the crop left;
3. square: later steps then have few pixels, equally many in each image;
4. grey levels;
5. re-encoding: after the grey levels, because stretching its traces would reveal the film's original contrast;
6. the bars of a letterbox: last, so that grey levels and compression leave them constant.
"""

from collections.abc import Callable

import cv2
import numpy as np

from cxr.params import PixelParams
from cxr.pixels.resize import shrink

DEEPEST = 0.3  # of a side: what looks like a frame but lies deeper is left in place
FLAT = 0.03  # of the grey range: a line of padding varies less
LETTERS = 0.02  # of the pixels at either end of a line's grey levels: letters and dirt on padding

SMALL = 192  # pixels of the longer side at which shutters are looked for
DARK, CLEAR = 0.1, 0.25  # of the grey range: a shutter is below, the field beside it above
SLOPES = np.linspace(-0.07, 0.07, 15)  # of a shutter's edge: films are turned by up to 4 degrees
STRAIGHT = 0.6  # of a side: so much of an edge is sharp and straight, or it is the patient's flank
MARKERS = 0.1  # of a side: a lead letter may lie over so much of a shutter's edge

PERCENTILES = (0.01, 0.99)  # of the film's centre; they become black and white
EDGE = 1 / 8  # of a side, left out of grey statistics: letters, frames and the air beside the patient
EMPTY = 16  # grey levels: a film with less between its percentiles is empty, and is not stretched into noise
CLAHE_CLIP, CLAHE_TILES = 2.0, (8, 8)


def to_canonical(pixels: np.ndarray, params: PixelParams) -> np.ndarray:
    """Bring uint8 (height, width), at least 1 x 1, into the square uint8 (size, size)."""
    return render(pixels, cut_off(pixels, params), params)


def render(pixels: np.ndarray, frame: np.ndarray, params: PixelParams) -> np.ndarray:
    """The square of what lies within `frame`, which `cut_off` found."""
    film = to_square(inside(pixels, frame), params.size, params.square)
    film = reencode(standardise_grey(film, params.grey), params.reencode)
    return add_bars(film, params.size)


def places(shape: tuple[int, int], frame: np.ndarray, params: PixelParams) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of the square's rows and of its columns lie in the image of which `frame` was cut off.

    `shape`: height and width of that image. Float64 (size,) each, in its pixels, the first one's centre at 0.5; NaN on
    the bars of a letterbox.
    """
    top, right, bottom, left = frame
    height, width = shape[0] - top - bottom, shape[1] - left - right
    box = content_box(width, height, params.size) if params.square == "letterbox" else (0, 0, params.size, params.size)
    return (
        top + _spread(box[1], box[3], params.size) * height,
        left + _spread(box[0], box[2], params.size) * width,
    )


def _spread(first: int, last: int, size: int) -> np.ndarray:
    """How far each of `size` centres lies between `first` and `last`, 0 to 1; NaN outside."""
    share = (np.arange(size) + 0.5 - first) / (last - first)
    return np.where((share > 0) & (share < 1), share, np.nan)


def keeps_whole(params: PixelParams) -> bool:
    """Whether the square shows the whole file, so that what is drawn over the one lies right over the other."""
    return params.crop == "none" and params.margin == 0 and params.square != "crop"


def in_words(params: PixelParams) -> str:
    """The image path for a person, as in `letterbox, shutters cropped, percentile grey levels`."""
    cropped = {"none": "", "border": "border cropped", "collimation": "border and shutters cropped"}
    parts = (
        {"letterbox": "letterbox", "stretch": "stretched", "crop": "centre cropped to a square"}[params.square],
        cropped[params.crop],
        f"{params.margin:.3g} cut off every edge" if params.margin else "",
        "" if params.grey == "none" else f"{params.grey} grey levels",
        f"re-encoded as JPEG {params.reencode}" if params.reencode else "",
    )
    return ", ".join(filter(None, parts))


def cut_off(pixels: np.ndarray, params: PixelParams) -> np.ndarray:
    """What `crop`, `margin` and `square: crop` take off the top, right, bottom and left, in pixels, int (4,)."""
    frame = find_frame(pixels, params.crop)
    frame = frame + int(params.margin * min(inside(pixels, frame).shape))
    if params.square == "crop":
        height, width = inside(pixels, frame).shape
        tall, wide = max(height - width, 0), max(width - height, 0)
        frame = frame + np.array([tall // 2, wide - wide // 2, tall - tall // 2, wide // 2])
    return frame


def inside(pixels: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """A view of what lies within a frame of so many pixels at the top, right, bottom and left."""
    top, right, bottom, left = frame
    return pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right]


def find_frame(pixels: np.ndarray, crop: str) -> np.ndarray:
    """How deep lies what surrounds the film at the top, right, bottom and left, in pixels, int (4,).

    `border`: rows and columns of one grey. `collimation`: dark shutters as well. What reaches deeper than DEEPEST is
    taken for film.
    """
    frame = np.zeros(4, int)
    if crop == "none":
        return frame
    low, high, *_ = cv2.minMaxLoc(pixels)
    frame = _frame(pixels, lambda view: _flat_rows(view, FLAT * (high - low)))
    if crop == "collimation":
        deeper = frame + _shutters(inside(pixels, frame))
        frame = np.where(deeper <= DEEPEST * np.array(pixels.shape * 2), deeper, frame)
    return frame


def _frame(pixels: np.ndarray, depth: Callable[[np.ndarray], int]) -> np.ndarray:
    """How deep the frame lies at top, right, bottom and left; `depth` finds it at the top of a view.

    Twice around where there is one, since one side's frame can hide another's.
    """
    frame = np.zeros(4, int)
    for side in (0, 1, 2, 3) * 2:
        inner = inside(pixels, frame)
        view = (inner, inner.T[::-1], inner[::-1], inner.T)[side]  # the side lies at the top
        deepest = int(DEEPEST * pixels.shape[side % 2]) - frame[side]
        found = depth(view[: deepest + 1])
        if found <= deepest:
            frame[side] += found
        if side == 3 and not frame.any():
            break
    return frame


def _flat_rows(view: np.ndarray, tolerance: float) -> int:
    """How many rows at the top are of one grey, but for LETTERS."""
    height, width = view.shape
    spare = int(LETTERS * width)
    start, rows = 0, 1  # most images have no border: the first row tells
    while start < height:
        levels = np.sort(view[start : start + rows], axis=1)
        uneven = np.flatnonzero(levels[:, width - 1 - spare].astype(int) - levels[:, spare] > tolerance)
        if len(uneven):
            return start + int(uneven[0])
        start, rows = start + rows, 8
    return height


def _shutters(pixels: np.ndarray) -> np.ndarray:
    """How deep shutters reach into the field at top, right, bottom and left, in pixels."""
    factor = -(-max(pixels.shape) // SMALL)
    height, width = (side // factor for side in pixels.shape)
    if min(height, width) < 8:
        return np.zeros(4, int)
    sample = pixels[: height * factor : factor, : width * factor : factor]
    low, high = _percentiles(sample, (0.005, 0.995))
    dark, clear = low + DARK * (high - low), low + CLEAR * (high - low)
    if not any(_is_dark(line <= dark) for line in (sample[0], sample[-1], sample[:, 0], sample[:, -1])):
        return np.zeros(4, int)
    small = cv2.resize(pixels[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
    shades = (small > dark).astype(np.uint8) + (small > clear)
    return factor * _frame(shades, _shutter_rows)


def _is_dark(line: np.ndarray) -> bool:
    """Whether bool (n,), true where dark, can be the edge of a shutter."""
    return np.count_nonzero(line) >= STRAIGHT * len(line)


def _shutter_rows(view: np.ndarray) -> int:
    """How many rows a shutter takes at the top of a view of shades (0 dark, 1 between, 2 clear), 0 without one.

    A shutter's edge is a sharp, straight line across most of the side, maybe a little aslant. The cut goes through
    its deepest place. A patient's flank beside dark air is soft or curved.
    """
    height, width = view.shape
    if not _is_dark(view[0] == 0):
        return 0
    lit = view > 0
    edge = np.where(lit.any(axis=0), lit.argmax(axis=0), height)  # of the dark run in each column
    after = view[np.minimum(edge + 1, height - 1), np.arange(width)]
    sharp = (edge > 0) & (after == 2)
    if np.count_nonzero(sharp) < STRAIGHT * width:
        return 0
    rises = SLOPES[:, np.newaxis] * (np.arange(width) - (width - 1) / 2)
    level_edges = edge - rises
    lines = np.sort(level_edges, axis=1)[:, int(MARKERS * width)]
    on_line = sharp & (np.abs(level_edges - lines[:, np.newaxis]) <= 1.5)
    best = int(on_line.mean(axis=1).argmax())
    if on_line[best].mean() < STRAIGHT:
        return 0
    return int(edge[on_line[best]].max()) + 1  # the edge's own pixel is half shutter


def content_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where a letterboxed width x height image lies in its square: left, top, right, bottom in pixels."""
    scale = size / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - w) // 2, (size - h) // 2
    return left, top, left + w, top + h


def to_square(film: np.ndarray, size: int, square: str) -> np.ndarray:
    """Resize to uint8 (size, size), or with `letterbox` to what fits into it."""
    if square == "letterbox":
        left, top, right, bottom = content_box(film.shape[1], film.shape[0], size)
        return shrink(film, right - left, bottom - top)
    return shrink(film, size, size)


def standardise_grey(film: np.ndarray, grey: str) -> np.ndarray:
    """Standardise grey levels by what stands in the centre of the film, so that its edges tell nothing of themselves.

    `percentile` stretches PERCENTILES to 0 and 255, `equalise` makes all levels equally frequent, `clahe` does so by
    place, with bounded contrast (Zuiderveld 1994). An empty film stays as it is.
    """
    if grey == "none":
        return film
    if grey == "clahe":
        return cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(film)
    centre = inside(film, (EDGE * np.array(film.shape * 2)).astype(int))
    low, high = _percentiles(centre, PERCENTILES)
    if high - low < EMPTY:
        return film
    if grey == "percentile":
        shares = (np.arange(256) - low) / (high - low)
    else:
        counts = _cumulative(centre)
        shares = (counts - counts[0]) / (counts[-1] - counts[0])
    return cv2.LUT(film, np.round(255 * np.clip(shares, 0, 1)).astype(np.uint8))


def _cumulative(pixels: np.ndarray) -> np.ndarray:
    """How many pixels are as dark as each of the 256 grey levels, or darker."""
    return cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel().cumsum()


def _percentiles(pixels: np.ndarray, shares: tuple[float, float]) -> tuple[int, int]:
    counts = _cumulative(pixels)
    low, high = np.searchsorted(counts, np.array(shares) * counts[-1])
    return int(low), int(high)


def reencode(film: np.ndarray, quality: int) -> np.ndarray:
    """Encode and decode once as JPEG of `quality`, the same for all, so that its traces are alike. 0 does nothing."""
    if quality == 0:
        return film
    return cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def add_bars(film: np.ndarray, size: int) -> np.ndarray:
    """Centre the film in uint8 (size, size), on black bars."""
    height, width = film.shape
    top, left = (size - height) // 2, (size - width) // 2
    return cv2.copyMakeBorder(film, top, size - height - top, left, size - width - left, cv2.BORDER_CONSTANT, value=0)
