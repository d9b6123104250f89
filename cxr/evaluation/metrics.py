# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportIndexIssue=false
"""Measures of a classifier, or of found regions, on one slice of images; nothing here judges.

Throughout, `y_true` is int (n,), the position of the true class, and `y_score` float (n, classes), rows sum to 1. A
measure that the slice does not define (a class without positives or negatives) is None, never a guess.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)


def operating_points(y_true: np.ndarray, y_score: np.ndarray) -> list[float]:
    """Per class, one against the rest: the lowest score that counts as this class, by the largest Youden index.

    Chosen on val. Youden WJ, Cancer 3 (1950) 32-35. 0.5 where the class has no positives or no negatives.
    """
    points = []
    for k in range(y_score.shape[1]):
        positive = y_true == k
        if positive.all() or not positive.any():
            points.append(0.5)
            continue
        fpr, tpr, thresholds = roc_curve(positive, y_score[:, k])
        points.append(float(min(thresholds[np.argmax(tpr - fpr)], 1.0)))
    return points


def measure(
    y_true: np.ndarray, y_score: np.ndarray, thresholds: Sequence[float], classes: Sequence[str]
) -> dict[str, object]:
    """All measures of one slice.

    `accuracy`, `balanced_accuracy` (mean recall of the classes present), `precision`, `recall` and `f1` are of the
    most probable class; `sensitivity` and `specificity` of each class at its threshold; `ece` is the expected
    calibration error in 15 bins of equal mass (Guo et al. 2017); `brier` the mean squared error over all classes.
    """
    predicted = y_score.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, predicted, labels=range(len(classes)), zero_division=np.nan
    )
    support = np.bincount(y_true, minlength=len(classes))
    per_class = {}
    for k, name in enumerate(classes):
        positive, called = y_true == k, y_score[:, k] >= thresholds[k]
        both = positive.any() and not positive.all()
        per_class[name] = {
            "n": int(support[k]),
            "precision": _number(precision[k]),
            "recall": _number(recall[k]),
            "f1": _number(f1[k]),
            "sensitivity": _number(called[positive].mean()) if positive.any() else None,
            "specificity": _number((~called[~positive]).mean()) if not positive.all() else None,
            "auroc": _number(roc_auc_score(positive, y_score[:, k])) if both else None,
            "auprc": _number(average_precision_score(positive, y_score[:, k])) if positive.any() else None,
            "threshold": _number(thresholds[k]),
        }
    return {
        "n": len(y_true),
        "accuracy": _number(accuracy_score(y_true, predicted)),
        "balanced_accuracy": _number(np.mean(recall[support > 0])),
        "auroc_macro": _mean([c["auroc"] for c in per_class.values()]),
        "auprc_macro": _mean([c["auprc"] for c in per_class.values()]),
        "brier": _number(np.mean(np.sum((y_score - np.eye(len(classes))[y_true]) ** 2, axis=1))),
        "ece": _number(calibration_error(y_true, y_score)),
        "classes": per_class,
    }


def calibration_bins(y_true: np.ndarray, y_score: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Confidence (mean probability of the predicted class) and accuracy in bins of equal mass, with their n."""
    confidence, correct = y_score.max(axis=1), y_score.argmax(axis=1) == y_true
    parts = [part for part in np.array_split(np.argsort(confidence, kind="stable"), bins) if len(part)]
    return pd.DataFrame(
        [{"confidence": confidence[p].mean(), "accuracy": correct[p].mean(), "n": len(p)} for p in parts]
    )


def calibration_error(y_true: np.ndarray, y_score: np.ndarray) -> float:
    bins = calibration_bins(y_true, y_score)
    return float((bins["n"] * (bins["confidence"] - bins["accuracy"]).abs()).sum() / bins["n"].sum())


def bootstrap_interval(
    y_true: np.ndarray,
    y_score: np.ndarray,
    groups: np.ndarray,
    classes: Sequence[str],
    samples: int,
    seed: int,
) -> dict[str, list[float]]:
    """95 % percentile intervals of three measures, drawing patients' groups rather than images with replacement."""
    values: dict[str, list[float]] = {"accuracy": [], "balanced_accuracy": [], "auroc_macro": []}
    for rows in _draws(groups, samples, seed):
        truth, score = y_true[rows], y_score[rows]
        hit = score.argmax(axis=1) == truth
        values["accuracy"].append(float(hit.mean()))
        values["balanced_accuracy"].append(float(np.mean([hit[truth == k].mean() for k in np.unique(truth)])))
        aurocs = [
            roc_auc_score(truth == k, score[:, k]) for k in range(len(classes)) if 0 < (truth == k).sum() < len(truth)
        ]
        if aurocs:
            values["auroc_macro"].append(float(np.mean(aurocs)))
    return {name: _interval(v) for name, v in values.items() if v}


def _draws(groups: np.ndarray, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of `samples` draws of as many groups as there are, with replacement."""
    rng = np.random.default_rng(seed)
    _, group = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    for _ in range(samples):
        yield np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])


def _interval(values: Sequence[float]) -> list[float]:
    return [round(float(q), 4) for q in np.quantile(values, [0.025, 0.975])]


def overlaps(true: np.ndarray, found: np.ndarray) -> pd.DataFrame:
    """`dice`, 2 |A B| / (|A| + |B|), and `iou`, |A B| / |A or B|, of each of n images; both 1 where both are empty.

    `true`, `found`: masks, bool (n, height, width). Dice LR, Ecology 26 (1945) 297-302.
    """
    both, either = ((operation(true, found)).sum(axis=(1, 2)) for operation in (np.logical_and, np.logical_or))
    empty, either = either == 0, np.maximum(either, 1)
    return pd.DataFrame(
        {"dice": np.where(empty, 1, 2 * both / (either + both)), "iou": np.where(empty, 1, both / either)}
    )


def measure_overlaps(measured: pd.DataFrame, y_true: np.ndarray, classes: Sequence[str]) -> dict[str, object]:
    """Means over the images of one slice, and over those of each class, of what `overlaps` gave."""

    def means(chosen: pd.DataFrame) -> dict[str, float | None]:
        return {"dice": _number(chosen["dice"].mean()), "mean_iou": _number(chosen["iou"].mean())}

    per_class = {
        name: {"n": int((y_true == k).sum()), **means(measured[y_true == k])} for k, name in enumerate(classes)
    }
    return {"n": len(measured), **means(measured), "classes": per_class}


def overlap_intervals(measured: pd.DataFrame, groups: np.ndarray, samples: int, seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals of the means, drawing patients' groups with replacement."""
    values = measured[["dice", "iou"]].to_numpy()
    means = np.array([values[rows].mean(axis=0) for rows in _draws(groups, samples, seed)])
    return {"dice": _interval(means[:, 0]), "mean_iou": _interval(means[:, 1])}


def confusion(y_true: np.ndarray, y_score: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Counts, int (classes, classes): rows are true, columns predicted."""
    return confusion_matrix(y_true, y_score.argmax(axis=1), labels=range(len(classes)))


def roc_points(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    fpr, tpr, _ = roc_curve(positive, score)
    return pd.DataFrame({"fpr": fpr, "tpr": tpr})


def pr_points(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    precision, recall, _ = precision_recall_curve(positive, score)
    return pd.DataFrame({"recall": recall, "precision": precision})


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _mean(values: list[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return round(float(np.mean(defined)), 4) if defined else None
