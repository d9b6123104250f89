"""False alarms and power of the drift verdict, beside Evidently's defaults: `python -m benchmarks.drift [FOLDER]`.

Windows of 30, 50 and 100 images are compared with a reference of other images of the same pool, unchanged (false
alarms) or with one change (power). The pool is the radiographs of FOLDER/kermany where one is given, else
synthetic ones. Ours is the monitor's rule on the ten descriptors: Kolmogorov-Smirnov at alpha / 10, any column.
Evidently's is the test that it chooses for a numerical column by itself, which depends on the size of the reference;
its report calls it drift when half of the columns drift, a reader when any does.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["DO_NOT_TRACK"] = "1"

import cv2
import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import get_stattest
from scipy.stats import ks_2samp

from cxr.dataset.manifest import DESCRIPTORS
from cxr.params import load_params
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import load_radiograph
from cxr.release.drift import drift_verdict

REAL = Path(sys.argv[1], "kermany") if len(sys.argv) > 1 else None
PIXELS = load_params().ingest.pixels
SEED, POOL, ALPHA = 2026, 1600, 0.05
WINDOWS, REFERENCES = (30, 50, 100), (1000, 1001)
NULL_TRIALS, POWER_TRIALS = 400, 100
FEW = 0.2  # share of the window that is inverted in the case of that name

CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none (false alarms)": lambda image: image,
    "blur, sigma 1 pixel": lambda image: cv2.GaussianBlur(image, (0, 0), 1),
    "inverted": lambda image: 255 - image,
    "brightness +5 %": lambda image: cv2.convertScaleAbs(image, alpha=1, beta=0.05 * 255),
    "contrast x 0.9": lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=0.1 * float(image.mean())),
    "gamma 0.9": lambda image: np.round(255 * (image / 255.0) ** 0.9).astype(np.uint8),
}


def main() -> None:
    images, origin = load_pool()
    tables = {change: describe_all(images, function) for change, function in CHANGES.items()}
    print(
        f"{len(images)} images of {origin}; {NULL_TRIALS} null windows a cell, {POWER_TRIALS} others; 95 % intervals\n"
    )
    print("| change | n | KS + Bonferroni |" + "".join(f" Evidently, reference {r}: any | half |" for r in REFERENCES))
    print("| --- | ---: |" + " --- |" * (1 + 2 * len(REFERENCES)))
    clean = tables["none (false alarms)"]
    for change, table in tables.items():
        trials = NULL_TRIALS if table is clean else POWER_TRIALS
        for n in WINDOWS:
            print(row(change, n, measure(clean, table, n, trials, share=1)), flush=True)
    for n in WINDOWS:
        print(row(f"inverted, {FEW:.0%} of the window", n, measure(clean, tables["inverted"], n, POWER_TRIALS, FEW)))


def load_pool() -> tuple[list[np.ndarray], str]:
    """POOL images, uint8 of any size, and where they come from."""
    rng = np.random.default_rng(SEED)
    paths = sorted(REAL.glob("chest_xray/train/*/*.jpeg")) if REAL else []
    if len(paths) >= POOL:
        chosen = rng.choice(len(paths), POOL, replace=False)
        return [cv2.imread(str(paths[i]), cv2.IMREAD_GRAYSCALE) for i in chosen], "Kermany's train split"
    return [draw(np.random.default_rng([SEED, i])) for i in range(POOL)], "the demo's chests"


def draw(rng: np.random.Generator) -> np.ndarray:
    """One synthetic adult chest without disease, uint8."""
    from cxr.demo.anatomy import draw_adult
    from cxr.demo.film import develop, draw_adult_film
    from cxr.demo.phantom import SHAPE, build_chest, expose

    chest = build_chest(draw_adult(rng, str(rng.choice(["F", "M"]))))
    return develop(expose(chest, np.zeros(SHAPE, np.float32), 0.3), draw_adult_film(rng, "PA"), rng)


def describe_all(images: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    """The descriptors of every changed image, by the path that ingest and the service use."""

    def one(image: np.ndarray) -> dict[str, float]:
        data = cv2.imencode(".png", change(image), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        return describe(load_radiograph(data, PIXELS))

    with ThreadPoolExecutor() as threads:
        return pd.DataFrame(list(threads.map(one, images)), columns=list(DESCRIPTORS)).astype(np.float32)


def measure(clean: pd.DataFrame, changed: pd.DataFrame, n: int, trials: int, share: float) -> np.ndarray:
    """Alarms, bool (trials, 1 + 2 * references): ours against the first reference, Evidently's any and half of each."""
    rng = np.random.default_rng(SEED)
    alarms = []
    for _ in range(trials):
        order = rng.permutation(len(clean))
        window, rest = order[:n], order[n:]
        k = round(share * n)
        current = pd.concat([changed.iloc[window[:k]], clean.iloc[window[k:]]])
        reference = clean.iloc[rest[: REFERENCES[0]]]
        p_values = {column: ks_2samp(current[column], reference[column]).pvalue for column in clean}
        verdicts = [drift_verdict(p_values, current, reference, ALPHA, 1, 24).drift]
        for size in REFERENCES:
            drifted = [evidently_default(current[c], clean[c].iloc[rest[:size]]) for c in clean]
            verdicts += [any(drifted), np.mean(drifted) >= 0.5]
        alarms.append(verdicts)
    return np.array(alarms)


def evidently_default(current: pd.Series, reference: pd.Series) -> bool:
    test = get_stattest(reference, current, "num", None)
    return bool(test(reference, current, "num", None).drifted)


def row(change: str, n: int, alarms: np.ndarray) -> str:
    return f"| {change} | {n} | " + " | ".join(map(interval, alarms.T)) + " |"


def interval(alarms: np.ndarray) -> str:
    """The share of alarms with its 95 % interval (Wilson 1927)."""
    n, p, z = len(alarms), float(np.mean(alarms)), 1.96
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    return f"{p:.2f} ({max(low, 0):.2f} to {min(high, 1):.2f})"


if __name__ == "__main__":
    main()
