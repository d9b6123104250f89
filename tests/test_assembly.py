"""Groups, splits, balance, and what assemble does with copies: on made records, no file is decoded."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cxr.dataset.balance import balance_train
from cxr.dataset.manifest import DESCRIPTORS, MANIFEST_COLUMNS, RECORD_COLUMNS, read_table, to_table, write_table
from cxr.dataset.splits import connect, fixed_test, patient_pairs, persons, split_groups
from cxr.errors import CxrError
from cxr.params import AssembleParams, BalanceParams, Params, load_params
from cxr.pixels.thumbs import perceptual_hash, to_thumb
from cxr.tasks import TASKS
from stages.assemble import assemble
from tests.tiny_sources import picture

SHIPPED = load_params()


def settings(**changes: object) -> AssembleParams:
    values = SHIPPED.assemble.model_dump() | {"official_test": [], "val_fraction": 0.2, "test_fraction": 0.3} | changes
    return AssembleParams.model_validate(values)


# Groups and splits


def made_table(rows: list[tuple], links: list[tuple[int, int]]) -> pd.DataFrame:
    """Images of (source, patient, label, published split, used); `links` join images that look alike."""
    table = pd.DataFrame(rows, columns=["source", "patient_id", "label", "published_split", "used"])
    table["patient_id"] = table["source"] + "/" + table["patient_id"].astype(str)
    alike = np.array([(a, b) for a, b in links if a < b < len(table)], dtype=np.int64).reshape(-1, 2)
    table["group"] = connect(len(table), np.concatenate([alike, patient_pairs(table["patient_id"])]))
    table.loc[~table["used"], "label"] = None
    return table


tables = st.builds(
    made_table,
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 12),
            st.sampled_from(["Normal", "Pneumonia"]),
            st.sampled_from(["train", "test", None]),
            st.integers(0, 9).map(bool),
        ),
        min_size=1,
        max_size=60,
    ),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=6),
)
ways = st.sampled_from(
    [
        settings(),
        settings(official_test=["a", "b"]),
        settings(test_source="a"),
        settings(folds=4, fold=2),
        settings(official_test=["a"], folds=3, fold=0),
        settings(official_test=["b"], test_source="c", folds=2, fold=1),
    ]
)


def fix_test(table: pd.DataFrame, params: AssembleParams) -> pd.DataFrame:
    honoured = [s for s in params.official_test if (table["source"] == s)[table["published_split"] == "test"].any()]
    return table.assign(fixed=fixed_test(table, params.model_copy(update={"official_test": honoured})))


@examples(max_examples=50, deadline=None)
@given(tables, ways, st.integers(0, 5))
def test_no_group_is_divided_and_what_is_fixed_is_test(table, params, seed):
    table = fix_test(table, params)
    table = table.join(split_groups(table, params, seed))
    assert set(table["split"].dropna()) <= {"train", "val", "test"}
    assert table.groupby("group")["split"].nunique().max() <= 1
    assert table.groupby("patient_id")["split"].nunique().max() <= 1
    used, fixed = table[table["used"]], table[table["used"] & table["fixed"]]
    assert (fixed["split"] == "test").all()
    beside = used["group"].isin(fixed["group"]) & ~used["fixed"]
    assert used["split"].isna().equals(beside)  # nothing else is lost
    assert table.loc[~table["used"], "split"].isna().all()
    test = used[used["split"] == "test"]
    if params.test_source is not None:
        assert set(test["source"]) <= {params.test_source}
        assert (used.loc[used["source"] == params.test_source, "split"] == "test").all()
    else:
        assert test.loc[test["source"].isin(params.official_test), "fixed"].all()
    divided = used[used["split"].isin(["train", "val"])]
    assert (used.drop(divided.index)["fold"] == -1).all()
    if params.folds:
        assert divided["fold"].between(0, params.folds - 1).all()
        assert ((divided["fold"] == params.fold) == (divided["split"] == "val")).all()
    else:
        assert (divided["fold"] == -1).all()


@examples(max_examples=40, deadline=None)
@given(tables, ways, st.integers(0, 5))
def test_the_order_of_the_rows_decides_nothing(table, params, seed):
    table = fix_test(table, params)
    shuffled = table.sample(frac=1, random_state=seed)
    shuffled["group"] = -shuffled["group"]  # as other numbers for the same groups
    assert split_groups(shuffled, params, seed).sort_index().equals(split_groups(table, params, seed))


@examples(max_examples=20, deadline=None)
@given(tables, st.integers(2, 5), st.integers(0, 5))
def test_folds_share_out_what_is_not_test(table, folds, seed):
    table = fix_test(table, settings())
    each = [split_groups(table, settings(folds=folds, fold=fold), seed) for fold in range(folds)]
    for splits in each:
        assert splits["fold"].equals(each[0]["fold"])
        assert (splits["split"] == "test").equals(each[0]["split"] == "test")
    times_val = sum((splits["split"] == "val").fillna(False).astype(int) for splits in each)
    assert times_val.equals((table["used"] & (each[0]["split"] != "test").fillna(False)).astype(int))


def many(n: int, first: int = 0) -> pd.DataFrame:
    """Images of two sources, of patients of whom some have several, in shares of 1 to 3."""
    rng = np.random.default_rng(first)
    numbers = np.arange(first, first + n)
    return pd.DataFrame(
        {
            "source": np.where(numbers % 5 == 0, "a", "b"),
            "patient_id": [f"{'a' if i % 5 == 0 else 'b'}/{i - i % 15 if i % 3 == 0 else i}" for i in numbers],
            "label": rng.choice(["Normal", "Pneumonia", "Pneumonia", "Pneumonia"], n),
            "published_split": None,
            "used": True,
            "fixed": False,
        }
    )


def grouped(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(group=connect(len(table), patient_pairs(table["patient_id"])))


@pytest.mark.parametrize("folds", [0, 5])
def test_every_stratum_is_near_its_fractions(folds):
    table = grouped(many(4000))
    params = settings(folds=folds)
    splits = split_groups(table, params, 1)
    shares = pd.crosstab([table["source"], table["label"]], splits["split"], normalize="index")
    assert shares["test"].between(0.28, 0.32).all()
    assert shares["val"].between(0.12 if folds else 0.18, 0.16 if folds else 0.22).all()
    if folds:
        by_fold = pd.crosstab(splits["fold"], table["label"])
        assert (by_fold.loc[0:].max() / by_fold.loc[0:].min() < 1.2).all()
    assert not split_groups(table, params, 2).equals(splits)


@pytest.mark.parametrize("folds", [0, 5])
def test_new_images_move_few_old_ones(folds):
    """1 % more, half of them of patients that are known already."""
    old, new = many(4000), many(40, first=4000)
    new.loc[::2, "patient_id"] = old["patient_id"].to_numpy()[::200]
    new.loc[::2, "source"] = old["source"].to_numpy()[::200]
    params = settings(folds=folds)
    before = split_groups(grouped(old), params, 1)
    after = split_groups(grouped(pd.concat([new, old], ignore_index=True)), params, 1)[40:].reset_index(drop=True)
    assert (before["fold" if folds else "split"] != after["fold" if folds else "split"]).mean() < 0.01


def test_a_patient_counts_for_the_rarest_of_its_labels():
    rows = [("a", i, "Normal", None, True) for i in range(400)]
    rows += [("a", i, "Pneumonia", None, True) for i in range(40)]  # of patients with a Normal, too
    table = made_table(rows, []).assign(fixed=False)
    table["split"] = split_groups(table, settings(), 0)["split"]
    assert table.loc[table["label"] == "Pneumonia", "split"].value_counts().to_dict() == {
        "train": 20, "val": 8, "test": 12,
    }  # fmt: skip


def test_a_kept_test_list_must_exist():
    table = made_table([("a", 1, "Normal", "train", True), ("b", 1, "Normal", "test", True)], [])
    with pytest.raises(CxrError, match=r"official_test: none of 1 images of a is in a published test list; remove"):
        fixed_test(table, settings(official_test=["b", "a"]))


# Balance

cells = st.dictionaries(
    st.tuples(st.sampled_from(["Normal", "Pneumonia", "COVID-19"]), st.sampled_from(["a", "b", "c"])),
    st.integers(1, 60),
    min_size=1,
)
balances = st.builds(
    BalanceParams,
    how=st.sampled_from(["none", "undersample", "oversample", "class-weight"]),
    per=st.sampled_from(["class", "class-and-source"]),
    max_copies=st.integers(1, 30),
    max_weight=st.floats(1, 30),
    max_images=st.one_of(st.none(), st.integers(1, 40)),
)


def train_of(sizes: dict[tuple[str, str], int]) -> pd.DataFrame:
    rows = [(label, source, "train") for (label, source), n in sizes.items() for _ in range(n)]
    rows += [("Normal", "a", "val"), ("COVID-19", "b", "test")]
    table = pd.DataFrame(rows, columns=["label", "source", "split"])
    return table.assign(image_id=[f"{i}" for i in range(len(table))]).sample(frac=1, random_state=0)


@examples(max_examples=40, deadline=None)
@given(cells, balances)
def test_balance_keeps_to_its_caps_and_touches_train_only(sizes, params):
    balanced = balance_train(train_of(sizes), params, seed=0)
    assert (balanced.loc[balanced["split"] != "train", ["copies", "weight"]] == 1).all(axis=None)
    train = balanced[balanced["split"] == "train"]
    by = ["label", "source"] if params.per == "class-and-source" else ["label"]
    shown = train[train["copies"] > 0]
    assert train["copies"].max() <= (params.max_copies if params.how == "oversample" else 1)
    assert (shown.groupby(by).size() > 0).all()
    assert len(shown.groupby(by)) == len(train.groupby(by))  # no cell is lost
    if params.max_images is not None:
        assert shown.groupby(by).size().max() <= params.max_images
    elif params.how != "undersample":
        assert len(shown) == len(train)
    if params.how == "class-weight":
        assert shown["weight"].max() <= params.max_weight + 1e-9
        assert shown["weight"].mean() == pytest.approx(1)
    else:
        assert (train["weight"] == 1).all()
    assert train.groupby(by)["copies"].agg(lambda c: c[c > 0].max() - c[c > 0].min()).max() <= 1


def counted(sizes: dict[tuple[str, str], int], **changes: object) -> tuple[dict, dict]:
    """Images shown per epoch, and what they count in the loss, by class and source."""
    values = {"per": "class", "max_copies": 1000, "max_weight": 1000, "max_images": None} | changes
    train = balance_train(train_of(sizes), BalanceParams.model_validate(values), seed=0)
    train = train[train["split"] == "train"].assign(counts=lambda t: t["copies"] * t["weight"])
    by = train.groupby(["label", "source"])
    return by["copies"].sum().to_dict(), by["counts"].sum().round(6).to_dict()


TWO = {("A", "x"): 20, ("B", "x"): 7}
THREE = {("A", "x"): 40, ("A", "y"): 20, ("B", "x"): 10}


@pytest.mark.parametrize(
    ("sizes", "changes", "shown"),
    [
        (TWO, {"how": "none"}, (20, 7)),
        (TWO, {"how": "undersample"}, (7, 7)),
        (TWO, {"how": "oversample"}, (20, 20)),
        (TWO, {"how": "oversample", "max_copies": 2}, (20, 14)),
        (TWO, {"how": "none", "max_images": 10}, (10, 7)),
        (TWO, {"how": "oversample", "max_images": 10}, (10, 10)),
        (THREE, {"how": "undersample", "per": "class-and-source"}, (5, 5, 10)),
        (THREE, {"how": "oversample", "per": "class-and-source"}, (40, 40, 80)),
        (THREE, {"how": "none", "per": "class-and-source", "max_images": 15}, (15, 15, 10)),
    ],
)
def test_what_an_epoch_shows(sizes, changes, shown):
    assert tuple(counted(sizes, **changes)[0].values()) == shown


@pytest.mark.parametrize(
    ("sizes", "changes", "counts"),
    [
        (TWO, {}, (13.5, 13.5)),
        (TWO, {"max_weight": 1.5}, (16.5, 10.5)),  # 7 * 1.5, the rest of 27 for the others
        (TWO, {"max_images": 7}, (7, 7)),
        (THREE, {"per": "class-and-source"}, (17.5, 17.5, 35)),
        (THREE, {"per": "class-and-source", "max_weight": 2}, (25, 25, 20)),
        (THREE, {}, (35 * 40 / 60, 35 * 20 / 60, 35)),
    ],
)
def test_what_the_loss_counts(sizes, changes, counts):
    assert tuple(counted(sizes, how="class-weight", **changes)[1].values()) == pytest.approx(counts)


# The stage, on made records

SOURCES = ["kermany", "nih", "rsna"]


def params_of(**changes: object) -> Params:
    values = SHIPPED.model_dump(by_alias=True)
    values["sources"] = {name: {"reader": name, "origin": "/data"} for name in SOURCES}
    values["assemble"] |= {"official_test": [], "val_fraction": 0.2, "test_fraction": 0.3} | changes
    return Params.model_validate(values | {"task": "pneumonia"})


def record(source: str, name: str, finding: str, seed: int, **said: object) -> dict:
    """A record of a picture; the same seed is the same picture, in other bytes, darker where `shade` says so."""
    values = dict.fromkeys(RECORD_COLUMNS) | dict.fromkeys(DESCRIPTORS, 0.0) | {"content_score": 1.0, "bits": 8}
    return values | {
        "image_id": f"{source}/{name}",
        "source": source,
        "patient_id": f"{source}/{name}",
        "findings": finding,
        "width": 100,
        "height": 100,
        "sha256": f"{source}/{name}",
        "seed": seed,
        "shade": 1.0,
        **said,
    }


def write_sources(images: Path, records: list[dict], left_out: int = 2) -> None:
    for source in SOURCES:
        rows = [r for r in records if r["source"] == source]
        thumbs = np.stack([to_thumb(picture(r["seed"], 0.5)) * r["shade"] for r in rows]).astype(np.uint8)
        for place, (row, thumb) in enumerate(zip(rows, thumbs, strict=True)):
            row |= {"phash": perceptual_hash(thumb), "shard": "shard-00000.npy", "row": place}
        write_table(to_table(rows, RECORD_COLUMNS), images / source / "records.parquet")
        np.save(images / source / "thumbs-00000.npy", thumbs)
        rejected = pd.DataFrame({"path": range(left_out), "reason": "unreadable image", "detail": "", "score": None})
        rejected.to_csv(images / source / "rejected.csv", index=False)


def plain_records() -> list[dict]:
    """Twelve images of each class and source, all different."""
    words = {"kermany": ("NORMAL", "PNEUMONIA"), "nih": ("No Finding", "Pneumonia"), "rsna": ("Normal", "Lung Opacity")}
    return [
        record(source, f"{n:02d}", words[source][n % 2], 1000 * i + n, published_split="test" if n < 6 else "train")
        for i, source in enumerate(SOURCES)
        for n in range(24)
    ]


def run(folder: Path, records: list[dict], reviewed: str = "", **changes: object) -> tuple[pd.DataFrame, dict]:
    params = params_of(**changes)
    write_sources(folder / "images", records)
    (folder / "reviewed.csv").write_text("image_a,image_b,verdict\n" + reviewed)
    assemble(
        TASKS[params.task], params.assemble, params.sources, params.seed, folder / "images", folder / "reviewed.csv",
        folder / "manifest.parquet", folder / "report.json", folder / "duplicates",
    )  # fmt: skip
    manifest = read_table(folder / "manifest.parquet", MANIFEST_COLUMNS)
    return manifest.set_index("image_id"), json.loads((folder / "report.json").read_text())


def test_a_copy_of_a_published_test_image_leaves_train_and_the_list_is_kept_exactly(tmp_path):
    records = plain_records()
    records += [  # kermany/00 to kermany/05 are the published test list
        record("nih", "larger copy", "No Finding", 0, width=2000, height=2000),
        record("nih", "first film", "No Finding", 9001, patient_id="nih/twin"),
        record("nih", "copy of 02", "No Finding", 2, patient_id="nih/twin"),
        record("kermany", "of the same patient", "PNEUMONIA", 9002, patient_id="kermany/04", published_split="train"),
    ]
    table, report = run(tmp_path, records, official_test=["kermany"])
    kermany = table[table["source"] == "kermany"]
    assert kermany.index[kermany["split"] == "test"].tolist() == [f"kermany/{n:02d}" for n in range(6)]
    assert not {"nih/larger copy", "nih/copy of 02", "nih/first film", "kermany/of the same patient"} & set(table.index)
    assert report["sources"]["nih"]["left_out_at_assembly"] == {
        "duplicate": 2, "linked to a kept test image": 1,
    }  # fmt: skip
    assert report["sources"]["kermany"]["left_out_at_assembly"] == {"linked to a kept test image": 1}


def test_an_unsure_partner_of_a_test_image_is_in_no_split_and_one_of_train_stays_with_it(tmp_path):
    records = plain_records()
    records += [
        record("nih", "perhaps 00", "No Finding", 0, shade=0.8),
        record("nih", "perhaps 10", "No Finding", 10, shade=0.8),
    ]
    unsure = SHIPPED.assemble.duplicates.model_dump() | {"same": 1.0}
    table, report = run(tmp_path, records, official_test=["kermany"], duplicates=unsure)
    assert report["pairs"] == {"unsure": 2, "same": 0, "same-patient": 0, "different": 0}
    assert "nih/perhaps 00" not in table.index
    assert table.loc["nih/perhaps 10", "split"] == table.loc["kermany/10", "split"] != "test"
    assert report["sources"]["nih"]["left_out_at_assembly"] == {"linked to a kept test image": 1}
    assert "nih/perhaps 00" in (tmp_path / "duplicates/index.html").read_text()


def test_a_source_left_out_is_test_alone_and_nothing_of_it_is_in_train(tmp_path):
    records = plain_records()
    records += [
        record("nih", "copy", "Pneumonia", 2001, width=2000, height=2000),
        record("kermany", "later film", "NORMAL", 9004, patient_id="kermany/twin"),
        record("kermany", "copy of rsna", "NORMAL", 2002, patient_id="kermany/twin"),
    ]
    table, report = run(tmp_path, records, official_test=["kermany"], test_source="rsna")
    assert set(table.index[table["split"] == "test"]) == {f"rsna/{n:02d}" for n in range(24)}
    assert not {"nih/copy", "kermany/later film", "kermany/copy of rsna"} & set(table.index)
    assert report["splits"]["official_test"] == []
    assert report["splits"]["images"]["test"] == 24
    assert set(table.loc[table["split"] == "train", "source"]) == {"kermany", "nih"}


def test_one_person_is_known_across_sources():
    said = [("nih", "nih/7"), ("more-nih", "more-nih/7"), ("rsna", "rsna/nih-7"), ("rsna", "rsna/7"), ("own", "own/7")]
    own = {"reader": "folders", "patient": "(?P<patient>.)", "view_position": None, "licence": None, "words": {}}
    readers = {"nih": {"reader": "nih"}, "more-nih": {"reader": "nih"}, "rsna": {"reader": "rsna"}, "own": own}
    values = SHIPPED.model_dump(by_alias=True)
    values["sources"] = {name: section | {"origin": "/data"} for name, section in readers.items()}
    values["assemble"]["official_test"] = []
    table = pd.DataFrame(said, columns=["source", "patient_id"], dtype="string")
    person = persons(table, Params.model_validate(values).sources)
    assert connect(len(table), patient_pairs(person)).tolist() == [0, 0, 0, 1, 2]


def test_folds_are_in_the_manifest_and_the_report(tmp_path):
    table, report = run(tmp_path, plain_records(), folds=3, fold=1)
    assert (table.loc[table["split"] == "val", "fold"] == 1).all()
    assert set(table.loc[table["split"] == "train", "fold"]) == {0, 2}
    assert (table.loc[table["split"] == "test", "fold"] == -1).all()
    assert sum(sum(fold.values()) for fold in report["splits"]["folds"]) == (table["split"] != "test").sum()
    assert min(min(fold.values()) for fold in report["splits"]["folds"]) >= 6


@pytest.mark.parametrize(
    ("priority", "kept", "left_out"),
    [
        ([], {}, {"duplicates with contradicting labels": 3, "duplicate": 1}),
        (["rsna"], {"nih/a": "Normal"}, {"no class of the task, says rsna": 1, "duplicate": 2}),
        (["kermany", "nih"], {"nih/a": "Pneumonia", "nih/b": "Normal"}, {"duplicate": 2}),
    ],
)
def test_of_copies_with_contradicting_labels_the_source_named_first_is_believed(tmp_path, priority, kept, left_out):
    """rsna reads nih's images again: one as normal that nih calls pneumonia, one as neither that nih calls normal."""
    records = plain_records()
    large = {"width": 500, "height": 500}
    records += [
        record("nih", "a", "Pneumonia", 9101, **large),
        record("rsna", "a", "Normal", 9101),
        record("nih", "b", "No Finding", 9102, **large),
        record("rsna", "b", "No Lung Opacity / Not Normal", 9102),
        record("nih", "c", "No Finding", 9103),  # copies that agree, and one that states nothing
        record("kermany", "c", "NORMAL", 9103),
        record("kermany", "c again", "", 9103, **large),
    ]
    table, report = run(tmp_path, records, label_priority=priority)
    assert table["label"].filter(regex="(nih|rsna)/[ab]").to_dict() == kept
    assert len({"nih/c", "kermany/c", "kermany/c again"} & set(table.index)) == 1
    counts = sum((Counter(part["left_out_at_assembly"]) for part in report["sources"].values()), Counter())
    assert counts == {"no class of the task": 1, "finding not stated": 1} | left_out
    assert report["sources"]["nih"]["relabelled"] == (1 if priority == ["rsna"] else 0)


def test_what_states_nothing_or_no_class_is_counted_by_its_words(tmp_path):
    records = plain_records()
    records += [record("nih", f"h{n}", "Hernia|Edema" if n else "Edema", 9200 + n) for n in range(3)]
    records += [record("nih", "u", "Pnuemonia", 9300), record("nih", "e", "", 9301)]
    with pytest.raises(
        CxrError,
        match=r"nih/u: finding 'Pnuemonia' \(in 'Pnuemonia', 1 images\) is not known for nih; .*/labels",
    ):
        run(tmp_path, records)
    _, report = run(tmp_path, records, unknown_findings="set-aside")
    nih = report["sources"]["nih"]
    assert nih["words_left_out"] == {"Edema": 3, "Hernia": 2, "": 1, "Pnuemonia": 1}
    assert nih["left_out_at_assembly"] == {"finding not stated": 1, "no class of the task": 3, "unknown finding": 1}
    assert nih["raw"] == 24 + 5 + 2
    _, report = run(tmp_path, records, unknown_findings="set-aside", pneumonia_findings=["Pneumonia", "Infiltration"])
    assert report["sources"]["nih"]["words_left_out"]["Edema"] == 3


def test_what_is_stated_and_not_understood_is_counted_by_its_words_and_costs_no_image(tmp_path, capsys):
    run(tmp_path, plain_records())
    path = tmp_path / "images/nih/rejected.csv"
    unread = [("view position", "'schief'"), *[("sex", "'keins'")] * 2, ("sex", "'x'"), ("age", "'410'")]
    rows = pd.DataFrame([(f"row {n}", f"{what} not understood", word, "") for n, (what, word) in enumerate(unread)])
    before = pd.read_csv(path, keep_default_na=False)
    pd.concat([before, rows.set_axis(before.columns, axis=1)]).to_csv(path, index=False)
    params = params_of()
    assemble(
        TASKS[params.task], params.assemble, params.sources, params.seed, tmp_path / "images",
        tmp_path / "reviewed.csv", tmp_path / "manifest.parquet", tmp_path / "report.json", tmp_path / "duplicates",
    )  # fmt: skip
    nih = json.loads((tmp_path / "report.json").read_text())["sources"]["nih"]
    assert nih["words_not_understood"] == {
        "age": {"'410'": 1}, "sex": {"'keins'": 2, "'x'": 1}, "view position": {"'schief'": 1},
    }  # fmt: skip
    assert nih["raw"] == 24 + 2 + 1  # a cell is no file and no row
    assert nih["rejected_at_ingest"] == {"unreadable image": 2, "view position not understood": 1}
    assert "nih: sex stated and not understood: 'keins' (2), 'x' (1)" in capsys.readouterr().out


def test_one_image_under_two_patients_is_a_fault_of_its_source(tmp_path):
    records = [*plain_records(), record("kermany", "again", "NORMAL", 8, width=50)]
    table, report = run(tmp_path, records)
    assert report["sources"]["kermany"]["one_image_under_several_patients"] == {
        "images": 2, "patient_ids": 2, "examples": [["kermany/08", "kermany/again"]],
    }  # fmt: skip
    assert report["sources"]["nih"]["one_image_under_several_patients"] == {}
    assert "kermany/again" not in table.index


def test_a_person_decides_what_the_pixels_cannot(tmp_path):
    records = [*plain_records(), record("nih", "another film", "Pneumonia", 0, shade=0.9)]
    table, _ = run(tmp_path, records)
    assert "nih/another film" not in table.index
    assert "kermany/00" not in table.index  # it says Normal
    table, report = run(tmp_path, records, "kermany/00,nih/another film,different\n")
    assert {"kermany/00", "nih/another film"} <= set(table.index)
    assert report["pairs"]["different"] == 1
    assert table.loc["kermany/00", "group"] != table.loc["nih/another film", "group"]
    table, report = run(tmp_path, records, "kermany/00,nih/another film,same-patient\n")
    assert report["pairs"]["same-patient"] == 1
    assert table.loc["kermany/00", "group"] == table.loc["nih/another film", "group"]


@pytest.mark.parametrize(
    ("drop", "changes", "sentence"),
    [
        ("Lung Opacity", {"test_source": "rsna"}, r"'Pneumonia' .*0 in test.*test_source rsna has none: leave"),
        (
            "PNEUMONIA|Pneumonia",
            {"test_source": "rsna"},
            r"0 in train, 0 in val, 12 in test.*test_source rsna has all: leave out another",
        ),
        ("PNEUMONIA|Pneumonia", {"folds": 20}, r"class 'Normal' .*0 in fold.*lower assemble\.folds"),
        ("PNEUMONIA|Pneumonia|Lung Opacity", {}, r"'Pneumonia' has too few patients to split \(groups: 0 in train"),
        ("-", {"official_test": ["rsna"]}, r"none of 24 images of rsna is in a published test list"),
    ],
)
def test_a_split_that_cannot_be_made_is_one_sentence_and_writes_nothing(tmp_path, drop, changes, sentence):
    records = [r for r in plain_records() if r["findings"] not in drop.split("|")]
    if changes.get("official_test"):
        records = [r | {"published_split": None} for r in records]
    with pytest.raises(CxrError, match=sentence):
        run(tmp_path, records, **changes)
    assert not (tmp_path / "manifest.parquet").exists()
    assert not (tmp_path / "report.json").exists()


def test_the_report_accounts_for_every_image_of_the_train_split(tmp_path):
    balance = {"how": "oversample", "per": "class-and-source", "max_copies": 3, "max_weight": 20, "max_images": 5}
    table, report = run(tmp_path, plain_records(), balance=balance)
    train = table[table["split"] == "train"]
    told = pd.DataFrame(report["balance"]["train"]).set_index(["label", "source"])
    assert told["images"].sum() == len(train)
    assert told["dropped"].sum() == (train["copies"] == 0).sum() > 0
    assert told["shown_per_epoch"].to_dict() == train.groupby(["label", "source"])["copies"].sum().to_dict()
    assert told["share"].sum() == pytest.approx(1, abs=0.001)
    for part in report["sources"].values():
        used = sum(sum(classes.values()) for classes in part["used"].values())
        assert part["raw"] == 26 == used + sum(part["rejected_at_ingest"].values())
    assert report["used"] == len(table) == 72
