# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportReturnType=false
"""What the drift monitor compares, and what it concludes from the p-values.

One function makes the columns of the reference (the test split) and one those of the prediction log, so that both
hold the same numbers in the same precision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cxr.dataset.manifest import DESCRIPTORS

SCORE_DECIMALS = 3
NAMED_COLUMNS = 6  # drifted columns that a one-line verdict spells out


def drift_columns(classes: Sequence[str]) -> list[str]:
    """The compared columns: the image descriptors and one score per class."""
    return [*DESCRIPTORS, *(f"score_{name}" for name in classes)]


def drift_table(descriptors: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """The compared columns of n images, float32.

    `descriptors`: n rows with at least the columns DESCRIPTORS. `probabilities`: (n, classes), NaN where a row's
    scores are not to be compared. Scores are rounded to SCORE_DECIMALS, in which engines agree: the
    Kolmogorov-Smirnov test sees order alone, so scores saturated near 0 or 1 would differ by their last digits.
    float32 on both sides for the same reason: the manifest keeps float32, the log float64.
    """
    scores = [f"score_{name}" for name in classes]
    table = descriptors[list(DESCRIPTORS)].reset_index(drop=True).astype(np.float32)
    table[scores] = np.round(np.asarray(probabilities, np.float32).reshape(len(table), len(scores)), SCORE_DECIMALS)
    return table


def log_table(rows: Sequence[Mapping], classes: Sequence[str], version: str) -> pd.DataFrame:
    """The compared columns of prediction-log rows (see `cxr.release.prediction_log.read_since`), float32.

    Scores of another model version are NaN, since the reference's scores are those of `version`; so is one not given.
    """
    descriptors = pd.DataFrame([row["descriptors"] for row in rows], columns=list(DESCRIPTORS), dtype=np.float64)
    scores = [row["probabilities"] if row["model_version"] == version else {} for row in rows]
    return drift_table(
        descriptors, np.array([[score.get(name, np.nan) for name in classes] for score in scores]), classes
    )


def comparable_columns(current: pd.DataFrame, min_images: int) -> list[str]:
    """The columns of `current` with at least `min_images` values."""
    return [column for column in current if current[column].count() >= min_images]


@dataclass(frozen=True)
class ColumnDrift:
    """One column's test. `p`: two-sided Kolmogorov-Smirnov. `mean`, `reference_mean`: in the column's unit. `shift_sd`:
    their difference in standard deviations of the reference; None where the reference is constant and current is not
    the same constant.
    """

    column: str
    p: float
    mean: float
    reference_mean: float
    shift_sd: float | None
    n_current: int
    drifted: bool

    def __str__(self) -> str:
        shift = "constant in the reference" if self.shift_sd is None else f"{self.shift_sd:+.1f} sd"
        return f"{self.column} (p {self.p:.1g}, {shift})"


@dataclass(frozen=True)
class DriftVerdict:
    """The verdict over one window. `columns`: those tested, least p first. `threshold`: a column drifts at p <= it."""

    n_current: int
    n_reference: int
    window_hours: float
    min_images: int
    threshold: float | None
    columns: tuple[ColumnDrift, ...]

    @property
    def enough(self) -> bool:
        """Whether any column had enough images for a verdict."""
        return bool(self.columns)

    @property
    def drift(self) -> bool:
        return any(column.drifted for column in self.columns)

    def sentence(self) -> str:
        """The verdict in one line."""
        window = f"{self.n_current} image{'' if self.n_current == 1 else 's'} in the last {self.window_hours:g} h"
        if not self.enough:
            return f"no verdict: {window}, {self.min_images} needed"
        compared = f"{window} against {self.n_reference} in the reference"
        if not self.drift:
            least = f"the least p is {self.columns[0].p:.2g}, the threshold {self.threshold:.2g}"
            return f"no drift: {compared} ({len(self.columns)} columns; {least})"
        drifted = [str(column) for column in self.columns if column.drifted]
        more = f" and {len(drifted) - NAMED_COLUMNS} more" if len(drifted) > NAMED_COLUMNS else ""
        return f"drift: {', '.join(drifted[:NAMED_COLUMNS])}{more}; {compared}"

    def to_dict(self) -> dict:
        """For JSON: every field, and what follows from them."""
        return {"sentence": self.sentence(), "drift": self.drift, "enough": self.enough} | asdict(self)


def drift_verdict(
    p_values: Mapping[str, float],
    current: pd.DataFrame,
    reference: pd.DataFrame,
    alpha: float,
    min_images: int,
    window_hours: float,
) -> DriftVerdict:
    """Conclude from one p-value per tested column (Bonferroni).

    Each of m columns is tested at alpha / m, and one drifted column means drift. If nothing has drifted, the
    probability of a false alarm per report is at most alpha, however the columns depend on each other.
    """
    threshold = alpha / len(p_values) if p_values else None
    columns = [
        ColumnDrift(
            column=column,
            p=float(p),
            mean=float(current[column].mean()),
            reference_mean=float(reference[column].mean()),
            shift_sd=standardised_shift(current[column], reference[column]),
            n_current=int(current[column].count()),
            drifted=bool(p <= alpha / len(p_values)),
        )
        for column, p in p_values.items()
    ]
    columns.sort(key=lambda column: (column.p, -abs(column.shift_sd or 0), column.column))
    return DriftVerdict(len(current), len(reference), window_hours, min_images, threshold, tuple(columns))


def standardised_shift(current: pd.Series, reference: pd.Series) -> float | None:
    """Difference of the means in standard deviations of the reference; see `ColumnDrift.shift_sd`."""
    difference = float(current.mean(skipna=True)) - float(reference.mean(skipna=True))
    if reference.max() > reference.min():
        return difference / float(reference.std())
    return 0.0 if current.min() == current.max() == reference.min() else None
