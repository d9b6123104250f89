"""Join the sources' records into one manifest: labels, duplicates, groups, splits, balance; no pixel is moved."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.balance import balance_train
from cxr.duplicates import find_duplicates
from cxr.errors import CxrError, plain_errors
from cxr.labels import TASKS, Task, read_label
from cxr.manifest import MANIFEST_COLUMNS, RECORD_COLUMNS, SPLITS, read_table, write_table
from cxr.params import AssembleParams, SourceParams, load_params
from cxr.splits import connect, patient_pairs, split_groups
from cxr.store import read_thumbs


def assemble(
    task: Task,
    params: AssembleParams,
    sources: dict[str, SourceParams],
    seed: int,
    images: Path,
    manifest_path: Path,
    report_path: Path,
) -> None:
    records = pd.concat(
        [read_table(images / s / "records.parquet", RECORD_COLUMNS) for s in sources], ignore_index=True
    )
    rejected = {s: pd.read_csv(images / s / "rejected.csv", keep_default_na=False) for s in sources}

    label, reason = label_records(records, task, params.unknown_findings)
    left_out = [records.loc[label.isna(), ["image_id", "source"]].assign(reason=reason)]
    used = records.assign(label=label)[label.notna()].reset_index(drop=True)

    duplicates = find_duplicates(used, params.duplicates, lambda rows: read_thumbs(images, rows))
    keep, dropped = drop_duplicates(used, duplicates.same, params.official_test)
    left_out.append(dropped)
    together = [duplicates.same, duplicates.unsure, patient_pairs(used["patient_id"])]
    used["group"] = connect(len(used), np.concatenate(together))
    used["split"] = split_groups(used, params.official_test, params.val_fraction, params.test_fraction, seed)
    used["fold"] = -1
    used = used[keep]
    check_classes(used, task)

    manifest = balance_train(used, params.balance.how, seed).sort_values("image_id", ignore_index=True)
    manifest["group"] = pd.factorize(manifest["group"])[0]
    report = account(records, rejected, pd.concat(left_out), manifest, task)
    write_table(manifest[list(MANIFEST_COLUMNS)].astype(MANIFEST_COLUMNS), manifest_path)
    report_path.parent.mkdir(parents=True, exist_ok=True)
    report_path.write_text(json.dumps(report, indent=2) + "\n")
    print(table_of(report))


def label_records(records: pd.DataFrame, task: Task, unknown_findings: str) -> tuple[pd.Series, pd.Series]:
    """Label of each record, null where it has none, and the reasons for the nulls. Raises CxrError on unknown words."""
    words = records[["source", "findings"]].drop_duplicates()
    readings = {(s, f): read_label(task, s, f) for s, f in zip(words["source"], words["findings"], strict=True)}
    unknown = {key: reading.unknown for key, reading in readings.items() if reading.unknown}
    if unknown and unknown_findings == "stop":
        (source, findings), (word, *_) = next(iter(unknown.items()))
        of = records[(records["source"] == source) & (records["findings"] == findings)]
        raise CxrError(
            f"{of['image_id'].iloc[0]}: finding {word!r} (in {findings!r}, {len(of)} images) is not known for "
            f"{source}; add it to the table in cxr/labels.py, or set assemble.unknown_findings to set-aside"
        )
    of_record = [readings[key] for key in zip(records["source"], records["findings"], strict=True)]
    label = pd.Series([reading.label for reading in of_record], records.index, dtype="string")
    reason = pd.Series([reading.reason for reading in of_record], records.index, dtype="string")
    return label, reason[label.isna()]


def drop_duplicates(used: pd.DataFrame, pairs: np.ndarray, official_test: list[str]) -> tuple[pd.Series, pd.DataFrame]:
    """Which rows to keep: of each set of duplicates the published test image, else the largest file.

    A set whose labels contradict each other is left out whole.
    """
    published = used["source"].isin(official_test) & (used["published_split"] == "test")
    ranked = used.assign(
        same=connect(len(used), pairs), later=~published, pixels=-used["width"].astype("int64") * used["height"]
    ).sort_values(["same", "later", "pixels", "image_id"])
    first = ~ranked["same"].duplicated()
    conflict = ranked.groupby("same")["label"].transform("nunique") > 1
    keep = (first & ~conflict).sort_index()
    reason = pd.Series("duplicate", used.index, dtype="string")
    reason[conflict.sort_index()] = "duplicates with contradicting labels"
    return keep, used.loc[~keep, ["image_id", "source"]].assign(reason=reason[~keep])


def check_classes(used: pd.DataFrame, task: Task) -> None:
    """Raises CxrError where a class has no group in some split."""
    groups = used.groupby(["label", "split"])["group"].nunique()
    for name in task.classes:
        in_split = {split: int(groups.get((name, split), 0)) for split in SPLITS}
        if min(in_split.values()) == 0:
            found = ", ".join(f"{n} in {split}" for split, n in in_split.items())
            raise CxrError(
                f"task {task.name}: class {name!r} has too few patients to split (groups: {found}; at least 1 in each "
                "is needed); add images of it, change assemble.*_fraction, or choose another task"
            )


def account(
    records: pd.DataFrame, rejected: dict[str, pd.DataFrame], left_out: pd.DataFrame, manifest: pd.DataFrame, task: Task
) -> dict:
    """Where every file and row of each source went; the counts of a source add up to its `raw`."""
    sources = {}
    for source, table in rejected.items():
        of = manifest[manifest["source"] == source]
        reasons = left_out.loc[left_out["source"] == source, "reason"].value_counts()
        sources[source] = {
            "raw": len(table) + int((records["source"] == source).sum()),
            "rejected_at_ingest": {k: int(v) for k, v in table["reason"].value_counts().sort_index().items()},
            "left_out_at_assembly": {k: int(v) for k, v in reasons.sort_index().items()},
            "used": {
                split: {name: int(((of["split"] == split) & (of["label"] == name)).sum()) for name in task.classes}
                for split in SPLITS
            },
        }
        counted = sum(
            sum(part.values()) for key, part in sources[source].items() if key.endswith(("ingest", "assembly"))
        )
        if counted + len(of) != sources[source]["raw"]:
            raise CxrError(
                f"assemble: {source} had {sources[source]['raw']} files and rows, {counted + len(of)} are accounted for"
            )
    train = manifest[manifest["split"] == "train"]
    return {
        "task": task.name,
        "sources": sources,
        "used": len(manifest),
        "groups": int(manifest["group"].nunique()),
        "shown_per_epoch": {name: int(train.loc[train["label"] == name, "copies"].sum()) for name in task.classes},
        "weight": {name: round(float(train.loc[train["label"] == name, "weight"].mean()), 4) for name in task.classes},
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
            Path("data/images"), Path("data/manifest.parquet"), Path("reports/assembly.json"),
        )  # fmt: skip
