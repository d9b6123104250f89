"""Accuracy and AUROC by numpy alone; `cxr.evaluation.metrics` needs scikit-learn."""

import numpy as np


def measure(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, float]:
    """Accuracy of the likeliest class (of two: at 0.5) and AUROC, of three classes the mean of each against the rest.

    `y_true`: int (n,). `y_score`: float (n, classes).
    """
    classes = range(1, 2) if y_score.shape[1] == 2 else range(y_score.shape[1])
    return {
        "accuracy": float(np.mean(y_score.argmax(axis=1) == y_true)),
        "auroc": float(np.mean([auroc(y_true == each, y_score[:, each]) for each in classes])),
    }


def auroc(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """By ranks, those of equal scores averaged (Mann and Whitney 1947). Both (n,), `y_true` bool with both values."""
    _, place, counts = np.unique(y_score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives, negatives = np.count_nonzero(y_true), np.count_nonzero(~y_true)
    return float((ranks[y_true].sum() - positives * (positives + 1) / 2) / (positives * negatives))
