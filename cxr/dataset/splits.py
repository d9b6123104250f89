# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
"""Groups of images that must stay together, and their seeded, stratified division into train, val and test."""

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.errors import CxrError
from cxr.params import AssembleParams, PublishedSource, SourceParams


def connect(n: int, pairs: np.ndarray) -> np.ndarray:
    """Component number, int32 (n,), of each of n images joined by `pairs` (m, 2)."""
    edges = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(edges, directed=False)[1]


def persons(table: pd.DataFrame, sources: dict[str, SourceParams]) -> pd.Series:
    """The person behind each `patient_id` of `table`: two sources with the same published set share its patients.

    RSNA's images are NIH's. RSNA's reader gives NIH's patient number if RSNA's mapping is beside the tables.
    """
    person = table["patient_id"].copy()
    for name, source in sources.items():
        if isinstance(source, PublishedSource):
            here = table["source"] == name
            person[here] = f"{source.reader} " + person[here].str.removeprefix(f"{name}/")
    return person.str.replace("^rsna nih-", "nih ", regex=True)


def patient_pairs(patient_ids: pd.Series) -> np.ndarray:
    """Pairs that connect all images of each patient."""
    codes = pd.factorize(patient_ids)[0]
    order = np.argsort(codes, kind="stable")
    same = np.flatnonzero(codes[order][1:] == codes[order][:-1])
    return np.stack([order[same], order[same + 1]], axis=1)


def fixed_test(table: pd.DataFrame, params: AssembleParams) -> pd.Series:
    """Which rows of `table` (source, published_split) are test whatever the fractions say.

    If `test_source` is set, all its rows; otherwise the published test lists of `official_test`. Raises CxrError if a
    source has no such list.
    """
    if params.test_source is not None:
        return table["source"] == params.test_source
    published = (table["published_split"] == "test").fillna(False)
    for source in params.official_test:
        if not published[table["source"] == source].any():
            raise CxrError(
                f"assemble.official_test: none of {int((table['source'] == source).sum())} images of {source} is in a "
                "published test list; remove the source from official_test, or add the list to its origin"
            )
    return published & table["source"].isin(params.official_test)


def split_groups(table: pd.DataFrame, params: AssembleParams, seed: int) -> pd.DataFrame:
    """`split` (train, val, test) and `fold` of each row of `table` (group, patient_id, source, label, used, fixed).

    A group is never divided. If it holds `fixed` test images, these are test and its other images get no split
    (null): in train they would leak, and in test they would lengthen a published list. A source whose test list is kept
    gives no other image to test; if `test_source` is set, no other source does. The remaining groups are divided within
    each stratum (source, and the rarest label of the group), in the order of a seeded hash of the group's first
    patient, so that new images hardly move old ones. With `folds`, all groups that are not test are divided into that
    many folds, and fold number `fold` is val; column `fold` is -1 in test and without folds. Rows that are not `used`
    get no split.
    """
    used = table["used"].to_numpy()
    counts = table.loc[used, "label"].value_counts()
    rarity = {name: i for i, name in enumerate(sorted(counts.index, key=lambda name: (counts[name], name)))}
    patients, patient_ids = pd.factorize(table["patient_id"], sort=True)
    first_patient = pd.Series(patients).groupby(table["group"].to_numpy()).min()
    images = pd.DataFrame(
        {
            "group": table["group"],
            "source": pd.factorize(table["source"], sort=True)[0],
            "label": table["label"].map(rarity),
            "listed": table["source"].isin(params.official_test),
            "fixed": table["fixed"],
            "images": 1,
        }
    )[used].astype({"label": "int64"})
    groups = images.groupby("group").agg(
        {"source": "min", "label": "min", "listed": "max", "fixed": "max", "images": "sum"}
    )
    names = patient_ids[first_patient[groups.index]]
    groups["order"] = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]

    free = groups[~groups["fixed"]].sort_values("order")
    strata = free.groupby(["source", "label", "listed"])["images"]
    middle = ((strata.cumsum() - free["images"] / 2) / strata.transform("sum")).to_numpy()
    only_fixed = free["listed"] if params.test_source is None else True
    test = np.where(only_fixed, 0.0, params.test_fraction)
    fold = np.full(len(free), -1)
    if params.folds:
        fold = np.where(middle < test, -1, (middle - test) / (1 - test) * params.folds).astype(np.int8)
    is_val = fold == params.fold if params.folds else middle < test + params.val_fraction
    split = np.select([middle < test, is_val], ["test", "val"], "train")

    of_group = pd.DataFrame({"split": split, "fold": fold}, index=free.index).reindex(table["group"])
    of_group.index = table.index
    of_group.loc[table["fixed"], "split"] = "test"
    of_group.loc[~used] = pd.NA
    return of_group.fillna({"fold": -1}).astype({"split": "string", "fold": "int8"})
