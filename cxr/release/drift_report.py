# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""What a drift report says: what changed, in words and sizes, and a picture of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from cxr.release.drift import ColumnDrift, DriftVerdict

# what a higher and a lower mean say of the images, and the name of the number with its unit
WORDS = {
    "aspect": ("The images are wider", "The images are narrower", "width divided by height"),
    "mean": ("The images are brighter", "The images are darker", "mean grey level"),
    "contrast": ("The images have more contrast", "The images have less contrast", "standard deviation of grey levels"),
    "p05": ("The darkest parts are brighter", "The darkest parts are darker", "5th percentile of grey levels"),
    "p95": ("The brightest parts are brighter", "The brightest parts are darker", "95th percentile of grey levels"),
    "entropy": ("The grey levels vary more", "The grey levels vary less", "entropy in bits"),
    "sharpness": ("The images are sharper", "The images are more blurred", "sharpness, log10 of the edges' variance"),
    "noise": ("The images are noisier", "The images are less noisy", "noise in grey levels"),
    "border": ("The edges of the images are brighter", "The edges of the images are darker", "mean grey at the edge"),
    "asymmetry": (
        "The left half is brighter against the right",
        "The left half is darker against the right",
        "left minus right in grey levels",
    ),
}
NEARLY = 0.1  # standard deviations of the reference: a smaller shift of the mean is not worth a word
BINS = 24
WIDTH, HEIGHT = 240, 72  # of a picture, in its own units


def what_changed(columns: Sequence[ColumnDrift], first: Mapping[str, datetime]) -> list[str]:
    """A sentence for each column that drifted, with since when, the largest change first. `first`: see `first_seen`."""
    drifted = [column for column in columns if column.drifted]
    return [
        f"{in_words(column)} {_since(first.get(column.column))}"
        for column in sorted(drifted, key=lambda c: -abs(c.shift_sd or np.inf))
    ]


def first_seen(
    drifted: Iterable[str], earlier: Iterable[tuple[datetime, Mapping]], version: str
) -> dict[str, datetime]:
    """Column -> the earliest report of the unbroken row in which it drifted; one that drifts only now is not there.

    `earlier`: the time and the verdict (`verdict.json`) of each report before this one, the newest first. It is read
    no further than needed, and never beyond a report of another model version, whose reference was another. Reports of
    too few images are passed over.
    """
    still, first = set(drifted), {}
    for time, verdict in earlier if still else ():
        if verdict.get("version") != version:
            break
        if verdict["enough"]:
            still &= {column["column"] for column in verdict["columns"] if column["drifted"]}
            first |= dict.fromkeys(still, time)
        if not still:
            break
    return first


def _since(first: datetime | None) -> str:
    return "This is new." if first is None else f"Every report since {_time(first)} says so."


def _time(time: datetime) -> str:
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def in_words(column: ColumnDrift) -> str:
    """`The images are darker: mean grey level 112, in the reference 131 (0.9 standard deviations lower).`"""
    higher, lower, name = words_of(column.column)
    values = f"{name} {column.mean:.3g}, in the reference {column.reference_mean:.3g}"
    if column.shift_sd is None:
        return f"The value is new: {values} for every image."
    if abs(column.shift_sd) < NEARLY:
        return f"The values are spread in another way, and their mean is nearly the same: {values}."
    direction = "higher" if column.shift_sd > 0 else "lower"
    what = higher if column.shift_sd > 0 else lower
    return f"{what}: {values} ({abs(column.shift_sd):.1f} standard deviations {direction})."


def words_of(column: str) -> tuple[str, str, str]:
    if column in WORDS:
        return WORDS[column]
    label = column.removeprefix("score_")
    return f"The model scores {label} higher", f"The model scores {label} lower", f"mean score of {label}"


def headline(verdict: DriftVerdict, faults: int) -> tuple[str, str]:
    """What is to be known first, and how grave it is: `critical`, `warning` or nothing."""
    if faults:
        return f"{faults} {'check fails' if faults == 1 else 'checks fail'}: mend this before you read on.", "critical"
    if not verdict.enough:
        return f"Too few images for a verdict: {verdict.n_current} of at least {verdict.min_images}.", "warning"
    changed = sum(column.drifted for column in verdict.columns)
    if not changed:
        return "The images look like those that the model was tested on.", ""
    return f"The images have changed: {changed} of {len(verdict.columns)} measures differ.", "warning"


def window(verdict: DriftVerdict, now: datetime) -> str:
    """`now`: when the window ends, in UTC."""
    images = f"{verdict.n_current:,} image{'' if verdict.n_current == 1 else 's'}"
    start = now - timedelta(hours=verdict.window_hours)
    return (
        f"{images} from {_time(start)}, to {_time(now)} ({verdict.window_hours:g} hours), compared with the "
        f"{verdict.n_reference:,} test images of the release."
    )


def how_to_read(verdict: DriftVerdict) -> str:
    """Of the table of p-values."""
    m, threshold = len(verdict.columns), verdict.threshold or 0
    return (
        f"A measure counts as changed when its p-value is at most {threshold:.2g}. Where nothing has changed, at most "
        f"{m * threshold:.0%} of the reports raise an alarm. Look at the size of a change as well: with many images "
        "even a tiny change has a small p-value."
    )


def pictures(verdict: DriftVerdict, current: pd.DataFrame, reference: pd.DataFrame) -> list[dict]:
    """Of each compared column the two distributions as bars, drifted ones first; see the template `drift.html`."""
    ordered = sorted(verdict.columns, key=lambda column: (not column.drifted, -abs(column.shift_sd or np.inf)))
    return [
        {
            "name": words_of(column.column)[2],
            "drifted": column.drifted,
            "ends": [f"{end:.3g}" for end in _range(current[column.column], reference[column.column])],
            "current": _bars(current[column.column], reference[column.column], 0),
            "reference": _bars(current[column.column], reference[column.column], 1),
        }
        for column in ordered
    ]


def _range(current: pd.Series, reference: pd.Series) -> tuple[float, float]:
    both = pd.concat([current, reference]).dropna()
    low, high = float(both.min()), float(both.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _bars(current: pd.Series, reference: pd.Series, which: int) -> list[tuple[float, float, float]]:
    """x, y and height of each bar that is not empty, in a picture of WIDTH times HEIGHT; a bar is WIDTH / BINS wide."""
    ends = _range(current, reference)
    shares = [np.histogram(series.dropna(), BINS, ends)[0] / max(series.count(), 1) for series in (current, reference)]
    highest = max(share.max() for share in shares)
    return [
        (round(WIDTH * i / BINS, 1), round(HEIGHT * (1 - share / highest), 1), round(HEIGHT * share / highest, 1))
        for i, share in enumerate(shares[which])
        if share
    ]
