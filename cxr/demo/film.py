"""From the signal behind the patient to a picture: grey scale, framing, sharpness and noise, by source."""

from dataclasses import dataclass

import cv2
import numpy as np

from cxr.demo.phantom import LEFT, SCALE, TOP
from cxr.demo.texture import grain


@dataclass(frozen=True)
class Film:
    """How one film was taken and shown. Lengths in cm of the phantom's frame unless said otherwise.

    `height`, `width`: pixels of the picture. `field`: cm of the shorter side. `steepness`: of the grey scale;
    `darkest`, `brightest`: grey levels; `exposure`: mean grey of the chest, 0 to 1.
    `blur`, `noise`: pixels and grey levels.
    """

    height: int
    width: int
    field: float
    centre: tuple[float, float]
    rotation_degrees: float
    scatter: float
    steepness: float
    exposure: float
    darkest: float
    brightest: float
    enhancement: float
    blur: float
    noise: float


def develop(signal: np.ndarray, film: Film, rng: np.random.Generator) -> np.ndarray:
    """uint8 (film.height, film.width), bone bright. The grey scale is stretched to each film's own chest."""
    grey = _grey_scale(signal, film)
    picture = _frame(grey, film)
    if film.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), film.blur)
    picture = picture * (film.brightest - film.darkest) + film.darkest
    picture += grain(rng, picture.shape) * film.noise
    return cv2.convertScaleAbs(np.maximum(picture, 0, out=picture))


def _grey_scale(signal: np.ndarray, film: Film) -> np.ndarray:
    """0 to 1, by the chest's own percentiles and mean: brightness must not tell the class."""
    rows = slice(int((2 - TOP) * SCALE), int((26 - TOP) * SCALE), 4)
    columns = slice(int((-14 - LEFT) * SCALE), int((14 - LEFT) * SCALE), 4)
    low, high = np.percentile(signal[rows, columns], (3, 97))
    level = (signal - low) / (high - low)
    if film.enhancement:
        small = cv2.resize(level, None, fx=1 / 6, fy=1 / 6, interpolation=cv2.INTER_AREA)
        around = cv2.resize(cv2.GaussianBlur(small, (0, 0), 5), level.shape[::-1])
        level = level + film.enhancement * (level - around)
    curve = 1 / (1 + np.exp(film.steepness * (0.45 - level)))  # toe and shoulder of a film
    return curve ** (np.log(film.exposure) / np.log(curve[rows, columns].mean()))


def _frame(grey: np.ndarray, film: Film) -> np.ndarray:
    """Cut the field out of the canvas; small pictures are averaged down from twice their size."""
    twice = 2 if min(film.height, film.width) < 0.75 * film.field * SCALE else 1
    width, height = film.width * twice, film.height * twice
    scale = min(width, height) / (film.field * SCALE)
    centre = ((film.centre[0] - LEFT) * SCALE, (film.centre[1] - TOP) * SCALE)
    matrix = cv2.getRotationMatrix2D(centre, film.rotation_degrees, scale)
    matrix[:, 2] += (width / 2 - centre[0], height / 2 - centre[1])
    picture = cv2.warpAffine(grey, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)  # black: collimated
    return picture if twice == 1 else cv2.resize(picture, (film.width, film.height), interpolation=cv2.INTER_AREA)


def draw_child_film(rng: np.random.Generator) -> Film:
    """Kermany: landscape, cut close, soft."""
    width = int(rng.integers(600, 1101))
    aspect = rng.uniform(1.15, 1.5)
    return Film(
        height=int(width / aspect),
        width=width,
        field=min(rng.uniform(26, 32), 40 / aspect),  # no wider than the canvas
        centre=(rng.normal(0, 1.2), rng.uniform(10.0, 12.5)),
        rotation_degrees=rng.normal(0, 2.5),
        scatter=rng.uniform(0.15, 0.35),
        steepness=rng.uniform(3.2, 5.0),
        exposure=rng.uniform(0.4, 0.58),
        darkest=rng.uniform(0, 22),
        brightest=rng.uniform(215, 252),
        enhancement=rng.uniform(0.1, 0.5),
        blur=rng.uniform(0.6, 1.4),
        noise=rng.uniform(1.5, 4.5),
    )


def draw_adult_film(rng: np.random.Generator, view: str) -> Film:
    """NIH: 512 x 512, sharp; `AP` films are flatter and greyer than `PA`."""
    portable = view == "AP"
    return Film(
        height=512,
        width=512,
        field=rng.uniform(33, 39),
        centre=(rng.normal(0, 0.6), rng.uniform(11.5, 13.5)),
        rotation_degrees=rng.normal(0, 2.2 if portable else 1.0),
        scatter=rng.uniform(0.25, 0.45) if portable else rng.uniform(0.08, 0.25),
        steepness=rng.uniform(3.0, 4.2) if portable else rng.uniform(3.8, 5.5),
        exposure=rng.uniform(0.4, 0.58),
        darkest=rng.uniform(0, 12),
        brightest=rng.uniform(230, 254),
        enhancement=rng.uniform(0.1, 0.6),
        blur=0.0,
        noise=rng.uniform(1.5, 4.0),
    )


def draw_collected_film(rng: np.random.Generator) -> Film:
    """covid-chestxray-dataset: pictures cut from publications, of any size, flat."""
    width = int(rng.integers(250, 901))
    return Film(
        height=int(width / rng.uniform(0.85, 1.3)),
        width=width,
        field=rng.uniform(29, 36),
        centre=(rng.normal(0, 1.2), rng.uniform(10.5, 13.5)),
        rotation_degrees=rng.normal(0, 3),
        scatter=rng.uniform(0.2, 0.5),
        steepness=rng.uniform(2.6, 4.2),
        exposure=rng.uniform(0.38, 0.62),
        darkest=rng.uniform(0, 45),
        brightest=rng.uniform(190, 250),
        enhancement=rng.uniform(0.0, 0.4),
        blur=rng.uniform(0, 1.2),
        noise=rng.uniform(1.0, 6.0),
    )
