"""Groups of images that must stay together, and their seeded, stratified division into train, val and test."""

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connect(n: int, pairs: np.ndarray) -> np.ndarray:
    """Component number, int32 (n,), of each of n images joined by `pairs` (m, 2)."""
    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(edges, directed=False)[1]


def patient_pairs(patient_ids: pd.Series) -> np.ndarray:
    """Pairs that connect all images of each patient."""
    ids = patient_ids.to_numpy().astype(str)
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    return np.stack([order[same], order[same + 1]], axis=1)


def split_groups(
    table: pd.DataFrame, official_test: list[str], val_fraction: float, test_fraction: float, seed: int
) -> pd.Series:
    """`train`, `val` or `test` for each row of `table` (image_id, group, source, label, published_split).

    A group is never divided. Where `official_test` names a source, a group with one of its published test images is
    test, and that source's other groups are train or val. The rest is divided within each stratum (source and label of
    the group's first image) in the order of a seeded hash of the group's name, so that new images hardly move old ones.
    """
    table = table.sort_values("image_id")
    honoured = table["source"].isin(official_test)
    published = honoured & (table["published_split"] == "test")
    groups = (
        table.assign(honoured=honoured, published=published)
        .groupby("group", sort=False)
        .agg(
            name=("image_id", "first"),
            source=("source", "first"),
            label=("label", "first"),
            images=("image_id", "size"),
            honoured=("honoured", "any"),
            published=("published", "any"),
        )
    )
    groups["order"] = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in groups["name"]]
    groups["split"] = ""
    groups.loc[groups["published"], "split"] = "test"
    free = groups[~groups["published"]].sort_values("order")
    for _, stratum in free.groupby(["source", "label", "honoured"], sort=True):
        test = 0.0 if stratum["honoured"].iloc[0] else test_fraction
        middle = (stratum["images"].cumsum() - stratum["images"] / 2) / stratum["images"].sum()
        splits = np.select([middle < test, middle < test + val_fraction], ["test", "val"], "train")
        groups.loc[stratum.index, "split"] = splits
    return table["group"].map(groups["split"]).astype("string").sort_index()
