"""Labels, duplicates, groups, splits and balance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.balance import balance_train
from cxr.duplicates import near_hashes, same_bytes
from cxr.labels import TASKS, read_label
from cxr.splits import connect, patient_pairs, split_groups


@pytest.mark.parametrize(
    ("task", "source", "findings", "label"),
    [
        ("covid", "kermany", "NORMAL", "Normal"),
        ("covid", "kermany", "PNEUMONIA|virus", "Pneumonia"),
        ("pneumonia-type", "kermany", "PNEUMONIA|virus", "Viral"),
        ("covid", "nih", "Infiltration|Pneumonia", "Pneumonia"),
        ("covid", "nih", "Hernia", None),
        ("pneumonia-type", "nih", "Pneumonia", None),
        ("covid", "covid", "COVID-19, ARDS", "COVID-19"),
        ("covid", "covid", "Pneumonia/Viral/COVID-19", "COVID-19"),
        ("pneumonia", "covid", "COVID-19", None),
        ("covid", "covid", "todo", None),
        ("covid", "covid", "", None),
    ],
)
def test_findings_are_read_by_the_table(task, source, findings, label):
    reading = read_label(TASKS[task], source, findings)
    assert reading.label == label
    assert not reading.unknown


def test_a_word_in_no_table_is_reported_not_guessed():
    assert read_label(TASKS["covid"], "nih", "Pneumonia|Pnuemonia").unknown == ("Pnuemonia",)


def test_near_hashes_finds_exactly_the_pairs_within_the_distance():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    hashes[7] = hashes[3]
    hashes[7, 0] ^= 0b111
    hashes[30] = hashes[3]
    hashes[30, :4] ^= 0xFF
    records = pd.DataFrame({"phash": [h.tobytes() for h in hashes]})
    assert near_hashes(records, 24, block=8).tolist() == [[3, 7]]
    assert near_hashes(records, 40, block=8).tolist() == [[3, 7], [3, 30], [7, 30]]
    assert same_bytes(pd.DataFrame({"sha256": ["a", "b", "a", "a"]})).tolist() == [[0, 2], [2, 3]]


tables = st.lists(
    st.tuples(
        st.integers(0, 12),  # patient
        st.sampled_from(["a", "b"]),  # source
        st.sampled_from(["Normal", "Pneumonia"]),
        st.sampled_from(["train", "test"]),
    ),
    min_size=1,
    max_size=60,
).map(
    lambda rows: pd.DataFrame(
        [
            {"image_id": f"{s}/{i:03d}", "patient_id": f"{s}/{p}", "source": s, "label": name, "published_split": split}
            for i, (p, s, name, split) in enumerate(rows)
        ]
    )
)


@settings(max_examples=60, deadline=None)
@given(tables, st.integers(0, 5), st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=6))
def test_no_group_is_ever_divided_and_official_test_stays_test(table, seed, links):
    duplicates = np.array([(a, b) for a, b in links if a < b < len(table)], dtype=np.int64).reshape(-1, 2)
    table["group"] = connect(len(table), np.concatenate([duplicates, patient_pairs(table["patient_id"])]))
    split = split_groups(table, ["a"], 0.2, 0.3, seed)
    assert split.index.equals(table.index)
    assert set(split) <= {"train", "val", "test"}
    assert split.groupby(table["group"]).nunique().max() == 1
    assert split.groupby(table["patient_id"]).nunique().max() == 1
    published = (table["source"] == "a") & (table["published_split"] == "test")
    assert (split[published] == "test").all()
    shuffled = table.sample(frac=1, random_state=seed)
    assert split_groups(shuffled, ["a"], 0.2, 0.3, seed).sort_index().equals(split)


def test_the_split_is_near_its_fractions_in_every_stratum():
    n = 400
    table = pd.DataFrame(
        {
            "image_id": [f"s/{i}" for i in range(n)],
            "group": range(n),
            "source": "s",
            "label": ["Normal", "Pneumonia", "Pneumonia", "Pneumonia"] * (n // 4),
            "published_split": None,
        }
    )
    split = split_groups(table, [], 0.15, 0.25, 1)
    shares = pd.crosstab(table["label"], split, normalize="index")
    assert shares["test"].between(0.24, 0.26).all()
    assert shares["val"].between(0.14, 0.16).all()
    assert not split_groups(table, [], 0.15, 0.25, 2).equals(split)


@pytest.mark.parametrize("how", ["none", "undersample", "oversample", "class-weight"])
def test_balance_touches_train_only(how):
    table = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(36)],
            "label": ["A"] * 20 + ["B"] * 7 + ["A"] * 5 + ["B"] * 4,
            "split": ["train"] * 27 + ["test"] * 9,
        }
    )
    balanced = balance_train(table, how, seed=0)
    test = balanced[balanced["split"] == "test"]
    assert (test["copies"] == 1).all()
    assert (test["weight"] == 1).all()
    train = balanced[balanced["split"] == "train"]
    shown, counted = train.groupby("label")["copies"].sum(), train.groupby("label")["weight"].sum()
    expected = {"none": (20, 7), "undersample": (7, 7), "oversample": (20, 20), "class-weight": (20, 7)}[how]
    assert tuple(shown) == expected
    assert tuple(counted) == pytest.approx((13.5, 13.5) if how == "class-weight" else (20, 7))
