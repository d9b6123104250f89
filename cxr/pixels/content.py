# The types of OpenCV leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportCallIssue=false
"""Whether an image is an upright frontal chest radiograph at all: a score, and the likeliest other thing.

A small network (one hidden layer) on numbers of the thumb: its low cosine coefficients, the strength of its edges by
place and direction (Dalal and Triggs 2005, without blocks), its grey levels and its symmetry. The coefficients stand in
`content.json`, which says what they were fitted on; `benchmarks/content.py` fits and measures them.

Found: laterals, CT slices, films that are inverted, upside down or on their side, blank images, pages and screenshots,
photographs, masks and drawings, pieces of a film, limbs, abdomens. Not found: a film mirrored left to right.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from cxr.pixels.thumbs import cosines

COSINES = 12  # of 64 a direction: details of 5 thumb pixels and more
CELLS = 8  # a side, in which edges are counted
FAR = 5.0  # deviations from the mean, at which a feature is cut: no pixels can outweigh all others
COEFFICIENTS = Path(__file__).with_name("content.json")


@dataclass(frozen=True)
class Content:
    """What an image shows.

    `score`: probability of an upright frontal chest radiograph, 0 to 1, where half of all images are. `reason`: the
    likeliest other thing, in words; empty from 0.5 upwards.
    """

    score: float
    reason: str


@dataclass(frozen=True)
class Network:
    """One hidden layer of rectified units over standardised features.

    `kinds`: names, the first the frontal film's. All arrays float32: `mean` and `deviation` (features,), `hidden`
    (units, features), `hidden_bias` (units,), `weights` (kinds, units), `bias` (kinds,).
    """

    kinds: list[str]
    mean: np.ndarray
    deviation: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def likelihoods(self, x: np.ndarray) -> np.ndarray:
        """Of each kind, (..., kinds), 0 to 1, for features (..., features)."""
        standard = np.clip((x - self.mean) / self.deviation, -FAR, FAR)
        units = np.maximum(standard @ self.hidden.T + self.hidden_bias, 0)
        logits = units @ self.weights.T + self.bias
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return shares / shares.sum(axis=-1, keepdims=True)


def recognise(thumb: np.ndarray) -> Content:
    """What uint8 (64, 64) shows, the whole decoded image stretched, bone bright."""
    network = read_network()
    likelihoods = network.likelihoods(features(thumb))
    score = float(likelihoods[0])
    return Content(score, "" if score >= 0.5 else network.kinds[1 + int(likelihoods[1:].argmax())])


def features(thumb: np.ndarray) -> np.ndarray:
    """The numbers that the model weighs, float32 (681,), of uint8 (64, 64)."""
    grey = thumb.astype(np.float32)
    mean, deviation = (moment.item() for moment in cv2.meanStdDev(thumb))
    standard = (grey - mean) / (deviation + 2)  # 2: the noise of an empty image is not blown up
    waves = cosines(standard, COSINES).ravel()[1:] / 16
    counts = np.bincount(thumb.ravel(), minlength=256) / thumb.size
    levels = [
        mean / 128 - 1, np.log(deviation + 1) - 3.5, counts[0], counts[255], counts.max(), (counts > 0).mean(),
        *counts.reshape(16, 16).sum(axis=1), cv2.norm(cv2.Laplacian(standard, cv2.CV_32F), cv2.NORM_L1) / thumb.size,
    ]  # fmt: skip
    mirrored = cv2.flip(standard, 1), cv2.flip(standard, 0), cv2.transpose(standard)
    symmetry = [standard.ravel() @ other.ravel() / thumb.size for other in mirrored]
    return np.concatenate([waves, _edges(standard), levels, symmetry], dtype=np.float32)


def _edges(standard: np.ndarray) -> np.ndarray:
    """Mean rise in eight directions, by cell; the root, so that one hard border does not outweigh the rest."""
    across, down = (cv2.Sobel(standard, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
    aslant = np.sqrt(0.5, dtype=np.float32)
    along = cv2.merge([across, aslant * (across + down), down, aslant * (down - across)])
    steep = cv2.max(along, 0), along
    rise, slope = (cv2.resize(each, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for each in steep)
    return np.sqrt(np.stack([rise, np.maximum(rise - slope, 0)]).transpose(0, 3, 1, 2).ravel())


@cache
def read_network() -> Network:
    """The network of `content.json`, whose weights are whole thousandths."""
    stored = json.loads(COEFFICIENTS.read_text())
    kinds = stored["kinds"]
    return Network(
        [kind["name"] for kind in kinds],
        np.array(stored["mean"], np.float32),
        np.array(stored["deviation"], np.float32),
        np.array(stored["hidden"], np.float32) / 1000,
        np.array(stored["hidden_bias"], np.float32) / 1000,
        np.array([kind["weights"] for kind in kinds], np.float32) / 1000,
        np.array([kind["bias"] for kind in kinds], np.float32) / 1000,
    )
