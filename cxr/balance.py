"""Balance the classes of the train split by what is shown how often, or by what counts how much."""

import hashlib
from typing import Literal

import numpy as np
import pandas as pd


def balance_train(
    table: pd.DataFrame, how: Literal["none", "undersample", "oversample", "class-weight"], seed: int
) -> pd.DataFrame:
    """`table` (image_id, label, split) with columns `copies` and `weight`; val and test always have 1 and 1.

    undersample: every class is cut to the smallest (copies 0). oversample: every class is repeated to the largest.
    class-weight: weight n / (classes * n of the class), mean 1 over the train split.
    """
    table = table.assign(copies=1, weight=1.0)
    train = table[table["split"] == "train"]
    counts = train["label"].value_counts()
    for _, rows in train.groupby("label"):
        if how == "class-weight":
            table.loc[rows.index, "weight"] = len(train) / (len(counts) * len(rows))
        elif how != "none":
            target = counts.min() if how == "undersample" else counts.max()
            order = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in rows["image_id"]]
            rank = np.argsort(np.argsort(np.array(order, dtype="S32")))
            table.loc[rows.index, "copies"] = target // len(rows) + (rank < target % len(rows))
    return table
