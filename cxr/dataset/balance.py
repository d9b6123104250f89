# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""Balance the train split: how often each image is shown, or how much it counts."""

import hashlib

import numpy as np
import pandas as pd

from cxr.params import BalanceParams


def balance_train(table: pd.DataFrame, params: BalanceParams, seed: int) -> pd.DataFrame:
    """`table` (image_id, source, label, split) with columns `copies` and `weight`; val and test always have 1 and 1.

    A cell is a class, or a class of one source where `per` says so. Each class has the same share of what the network
    sees, and each of its sources the same share of the class: a = 1, or 1 / (sources of the class). With n images of a
    cell, N in train:

    - max_images first cuts every cell to so many, n among them.
    - undersample shows T * a images of a cell, T = min n / a; the others have copies 0.
    - oversample shows T * a, T = max n / a, each image at most `max_copies` times.
    - class-weight weighs an image w = min(max_weight, s * a / n), with s such that the weights' mean is 1; where no
      weight meets `max_weight` and cells are classes, that is N / (classes * n).

    Which images are cut or shown once more is decided by a seeded hash of their names.
    """
    table = table.assign(copies=1, weight=1.0)
    train = table[table["split"] == "train"]
    by = ["label", "source"] if params.per == "class-and-source" else ["label"]
    cells = train.groupby(by)
    number = cells.ngroup().to_numpy()
    order = pd.Series([hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in train["image_id"]], train.index)
    rank = train.loc[order.sort_values().index].groupby(by).cumcount()[train.index].to_numpy()
    n = cells.size().to_numpy()
    labels = cells["label"].first()
    share = 1 / labels.map(labels.value_counts()).to_numpy()
    if params.max_images is not None:
        n = np.minimum(n, params.max_images)
    copies = (rank < n[number]).astype(np.int64)
    if params.how in ("undersample", "oversample"):
        scale = (n / share).min() if params.how == "undersample" else (n / share).max()
        target = np.maximum(np.rint(scale * share).astype(np.int64), 1)
        target = np.minimum(target, params.max_copies * n)
        copies *= target[number] // n[number] + (rank < (target % n)[number])
    table.loc[train.index, "copies"] = copies
    if params.how == "class-weight":
        table.loc[train.index, "weight"] = _weights(n, share, params.max_weight)[number]
    return table


def _weights(n: np.ndarray, share: np.ndarray, most: float) -> np.ndarray:
    """Weight of an image of each cell: min(most, s * share / n), s such that the mean over the images is 1."""
    capped = np.zeros(len(n), bool)
    while True:
        s = (n.sum() - most * n[capped].sum()) / share[~capped].sum() if not capped.all() else 0.0
        weights = np.where(capped, most, s * share / n)
        if (weights <= most).all():
            return weights
        capped |= weights > most
