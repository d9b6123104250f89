# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false, reportReturnType=false
"""Join the sources' records into one manifest: labels, duplicates, groups, splits, balance; no pixel is moved."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.dataset.balance import balance_train
from cxr.dataset.duplicates import find_duplicates, patient_faults
from cxr.dataset.labels import NO_CLASS, SEVERAL, read_label, vocabulary_of
from cxr.dataset.manifest import MANIFEST_COLUMNS, RECORD_COLUMNS, SPLITS, read_table, write_table
from cxr.dataset.rejected import OF_A_CELL, most_common, told, words_not_understood
from cxr.dataset.review import VERDICTS, decide, read_reviewed, write_review
from cxr.dataset.splits import connect, fixed_test, patient_pairs, persons, split_groups
from cxr.dataset.store import read_thumbs
from cxr.errors import CxrError, plain_errors
from cxr.files import write_json
from cxr.params import AssembleParams, OwnSource, SourceParams, load_params
from cxr.tasks import TASKS, Task

COPY = "duplicate"
CONTRADICTING = "duplicates with contradicting labels"
NEAR_TEST = "linked to a kept test image"


def assemble(
    task: Task,
    params: AssembleParams,
    sources: dict[str, SourceParams],
    seed: int,
    images: Path,
    reviewed: Path,
    manifest_path: Path,
    report_path: Path,
    review: Path,
) -> None:
    """`reviewed`: what a person decided on pairs of images; `review`: the folder of the page that asks for it."""

    def thumbs_of(rows: pd.DataFrame) -> np.ndarray:
        return read_thumbs(images, rows)

    table = pd.concat([read_table(images / s / "records.parquet", RECORD_COLUMNS) for s in sources], ignore_index=True)
    rejected = {s: pd.read_csv(images / s / "rejected.csv", keep_default_na=False) for s in sources}

    if task.localises:
        table, words = label_by_mask(table, task), {source: {} for source in sources}
    else:
        table, words = label_records(table, task, params, sources)
    table["fixed"] = fixed_test(table, params)
    duplicates = find_duplicates(table, params.duplicates, thumbs_of)
    duplicates = decide(duplicates, read_reviewed(reviewed, table), table)
    together = [duplicates.one_split, patient_pairs(persons(table, sources))]
    table["image"] = connect(len(table), duplicates.same)
    table["group"] = connect(len(table), np.concatenate(together))
    own_label = table["label"]
    table = settle_copies(table, params.label_priority)
    table["relabelled"] = table["label"].notna() & (table["label"] != own_label)
    table["used"] = table["reason"].isna()
    table[["split", "fold"]] = split_groups(table, params, seed)
    table.loc[table["used"] & table["split"].isna(), "reason"] = NEAR_TEST

    used = table[table["reason"].isna()]
    check_classes(used, task, params)
    manifest = balance_train(used, params.balance, seed).sort_values("image_id", ignore_index=True)
    manifest["group"] = pd.factorize(manifest["group"])[0]
    group_sizes = manifest["group"].value_counts()
    report = {
        "task": task.name,
        "sources": account(table, rejected, words, patient_faults(table, duplicates.same), manifest, task),
        "pairs": {verdict: int((duplicates.verdict == verdict).sum()) for verdict in ("unsure", *VERDICTS)},
        "used": len(manifest),
        "groups": len(group_sizes),
        "largest_group": int(group_sizes.max()),
        "splits": count_splits(manifest, params, task),
        "balance": count_balance(manifest, params),
    }
    write_review(review, table, duplicates, thumbs_of, reviewed)
    write_table(manifest[list(MANIFEST_COLUMNS)].astype(MANIFEST_COLUMNS), manifest_path)
    report_path.parent.mkdir(parents=True, exist_ok=True)
    write_json(report_path, report)
    print(table_of(report))
    for source, part in report["sources"].items():
        for line in told(source, part["words_not_understood"]):
            print(line)


def label_records(
    table: pd.DataFrame, task: Task, params: AssembleParams, sources: dict[str, SourceParams]
) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """`table` with `label`, null where it has none, and `reason`, null where it has one.

    The counts are the words of the images without a label, by source. Raises CxrError on unknown words where
    `unknown_findings` is stop.
    """
    number, findings = pd.factorize(pd.MultiIndex.from_frame(table[["source", "findings"]].fillna("")))
    vocabularies = {name: vocabulary_of(source, params.pneumonia_findings) for name, source in sources.items()}
    words: dict[str, Counter] = {source: Counter() for source in sources}
    readings = []
    for (source, finding), n in zip(findings, np.bincount(number).tolist(), strict=True):
        reading = read_label(task, vocabularies[source], finding)
        if reading.unknown and params.unknown_findings == "stop":
            image = table.loc[number == len(readings), "image_id"].min()
            raise CxrError(_unknown(image, source, sources[source], finding, reading.unknown[0], n))
        if reading.label is None:
            words[source].update(dict.fromkeys(reading.words, n))
        readings.append(reading)
    table = table.assign(
        label=pd.array(np.array([reading.label for reading in readings], object)[number], dtype="string"),
        reason=pd.array(np.array([reading.reason for reading in readings], object)[number], dtype="string"),
    )
    return table, {source: most_common(counts) for source, counts in words.items()}


def label_by_mask(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """`table` with `label`, by whether the mask shows any of the task's region, and `reason`, as `label_records`."""
    background, shown = task.classes
    has_mask = (table["mask"] == task.region).to_numpy(bool, na_value=False)
    label = np.where(has_mask, np.where(table["mask_share"] > 0, shown, background), None)
    reason = np.where(has_mask, None, f"no mask of {task.region}")
    return table.assign(label=pd.array(label, dtype="string"), reason=pd.array(reason, dtype="string"))


def _unknown(image: str, source: str, section: SourceParams, finding: str, word: str, n: int) -> str:
    where = f"sources.{source}.words" if isinstance(section, OwnSource) else "the table in cxr/dataset/labels.py"
    return (
        f"{image}: finding {word!r} (in {finding!r}, {n} images) is not known for {source}; add it to {where}, or set "
        "assemble.unknown_findings to set-aside"
    )


def settle_copies(table: pd.DataFrame, label_priority: list[str]) -> pd.DataFrame:
    """Keep one image of each set of copies (equal `image`), with one label: the fixed test image, or the largest file.

    The label comes from the first source in `label_priority` that labels the image; without one, all labels must agree.
    If they contradict each other, or if that source says that the image shows no class, the whole set is left out.
    """
    rank = {source: i for i, source in enumerate(label_priority)}
    copies = table[table["image"].duplicated(keep=False)]
    said = copies[copies["label"].notna() | copies["reason"].isin([NO_CLASS, SEVERAL])]
    ranks = said["source"].map(rank).fillna(len(rank)).astype("int64")
    believed = said[ranks == ranks.groupby(said["image"]).transform("min")]
    by_image = believed.assign(other=believed["label"].isna()).groupby("image")
    verdict = by_image.agg(labels=("label", "nunique"), label=("label", "first"), other=("other", "any"))
    verdict["source"] = by_image["source"].first()
    verdict["contradicting"] = (verdict["labels"] > 1) | ((verdict["label"] == "Normal") & verdict["other"])

    labelled = copies[copies["label"].notna()]
    of_image = verdict.loc[labelled["image"]].set_index(labelled.index)
    order = labelled.assign(
        later=~labelled["fixed"], pixels=-labelled["width"].astype("int64") * labelled["height"]
    ).sort_values(["image", "later", "pixels", "image_id"])
    reason = pd.Series(pd.NA, labelled.index, dtype="string")
    reason[order.index[order["image"].duplicated()]] = COPY
    overruled = of_image["label"].isna()
    reason[overruled] = f"{NO_CLASS}, says " + of_image["source"][overruled]
    reason[of_image["contradicting"]] = CONTRADICTING
    table = table.copy()
    table.loc[labelled.index, "reason"] = reason
    table.loc[labelled.index, "label"] = of_image["label"]
    return table


def check_classes(used: pd.DataFrame, task: Task, params: AssembleParams) -> None:
    """Raises CxrError where a class has no group in some split, or in some fold."""
    parts, part = list(SPLITS), used["split"]
    remedy = "add images of it, change assemble.*_fraction, or choose another task"
    if params.folds:
        parts = [*(f"fold {k}" for k in range(params.folds)), "test"]
        part = part.where(used["fold"] < 0, "fold " + used["fold"].astype("string"))
        remedy = "add images of it, lower assemble.folds, or choose another task"
    groups = used.groupby(["label", part])["group"].nunique()
    for name in task.needed:
        in_part = {p: int(groups.get((name, p), 0)) for p in parts}
        if min(in_part.values()) > 0:
            continue
        if params.test_source is not None and in_part["test"] in (0, sum(in_part.values())):
            share = "none" if in_part["test"] == 0 else "all"
            remedy = f"assemble.test_source {params.test_source} has {share}: leave out another, or change the task"
        found = ", ".join(f"{n} in {p}" for p, n in in_part.items())
        raise CxrError(
            f"task {task.name}: class {name!r} has too few patients to split (groups: {found}; at least 1 in each "
            f"is needed); {remedy}"
        )


def account(
    table: pd.DataFrame,
    rejected: dict[str, pd.DataFrame],
    words: dict[str, dict[str, int]],
    faults: dict[str, dict],
    manifest: pd.DataFrame,
    task: Task,
) -> dict[str, dict]:
    """Where every file and row of each source went; the counts of a source add up to its `raw`."""
    sources = {}
    for source, left_out in rejected.items():
        records, used = table[table["source"] == source], manifest[manifest["source"] == source]
        unread = words_not_understood(left_out)
        left_out = left_out[~left_out["reason"].str.contains(OF_A_CELL)]
        counts = used.groupby(["split", "label"]).size()
        part = {
            "raw": len(left_out) + len(records),
            "rejected_at_ingest": count(left_out["reason"]),
            "left_out_at_assembly": count(records["reason"]),
            "words_left_out": words[source],
            "words_not_understood": unread,
            "relabelled": int(used["relabelled"].sum()),
            "one_image_under_several_patients": faults.get(source, {}),
            "used": {split: {name: int(counts.get((split, name), 0)) for name in task.classes} for split in SPLITS},
        }
        counted = sum(part["rejected_at_ingest"].values()) + sum(part["left_out_at_assembly"].values()) + len(used)
        if counted != part["raw"]:
            raise CxrError(f"assemble: {source} had {part['raw']} files and rows, but {counted} are accounted for")
        sources[source] = part
    return sources


def count(reasons: pd.Series) -> dict[str, int]:
    return {reason: int(n) for reason, n in reasons.value_counts().sort_index().items()}


def count_splits(manifest: pd.DataFrame, params: AssembleParams, task: Task) -> dict:
    """Who decided on test, and what each split and each fold holds."""
    folds = manifest[manifest["fold"] >= 0]
    by_fold = folds.groupby(["fold", "label"]).size()
    by_split = manifest.groupby("split")["group"].agg(["size", "nunique"])
    return {
        "official_test": params.official_test if params.test_source is None else [],
        "test_source": params.test_source,
        "images": {split: int(by_split.loc[split, "size"]) for split in SPLITS},
        "groups": {split: int(by_split.loc[split, "nunique"]) for split in SPLITS},
        "folds": [{name: int(by_fold.get((k, name), 0)) for name in task.classes} for k in range(params.folds)],
    }


def count_balance(manifest: pd.DataFrame, params: AssembleParams) -> dict:
    """What balancing did to each class and source of the train split; `share` is of what the loss counts."""
    train = manifest[manifest["split"] == "train"]
    train = train.assign(
        counted=train["copies"] * train["weight"], dropped=train["copies"] == 0, repeated=train["copies"] > 1
    )
    cells = train.groupby(["label", "source"], as_index=False).agg(
        images=("copies", "size"),
        dropped=("dropped", "sum"),
        repeated=("repeated", "sum"),
        most_copies=("copies", "max"),
        shown_per_epoch=("copies", "sum"),
        weight=("weight", "first"),
        share=("counted", "sum"),
    )
    cells["share"] /= cells["share"].sum()
    return {
        "how": params.balance.how,
        "per": params.balance.per,
        "train": cells.round({"weight": 4, "share": 4}).to_dict("records"),
    }


def table_of(report: dict) -> str:
    """The account as a printed table: a row per fate, a column per source."""
    fates: dict[str, dict[str, int]] = {"raw files and rows": {}}
    for source, part in report["sources"].items():
        fates["raw files and rows"][source] = part["raw"]
        for key, sign in (("rejected_at_ingest", "rejected"), ("left_out_at_assembly", "left out")):
            for reason, n in part[key].items():
                fates.setdefault(f"  {sign}: {reason}", {})[source] = n
    for split in SPLITS:
        for name in next(iter(report["sources"].values()))["used"][split]:
            fates[f"  used: {split} {name}"] = {s: part["used"][split][name] for s, part in report["sources"].items()}
    table = pd.DataFrame(fates).T.fillna(0).astype(int)
    table["all"] = table.sum(axis=1)
    return table.to_string()


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        assemble(
            TASKS[p.task], p.assemble, p.sources, p.seed,
            Path("data/images"), Path("data/reviewed_pairs.csv"), Path("data/manifest.parquet"),
            Path("reports/assembly.json"), Path("reports/duplicates"),
        )  # fmt: skip
