# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""The page of a door: the checks that failed with the images they failed on, what was left out, and every check."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from checks.suites import Result
from cxr import pages

SHOWN_IMAGES = 12  # of a failed check
SHOWN_REFUSED = 24  # of a reason
SHOWN_ROWS = 12

TITLES = {
    "records": "Check of the ingested records",
    "manifest": "Check of the images for training",
    "incoming": "Check of incoming images",
}


@dataclass(frozen=True)
class Picture:
    """An image to show. `pixels`: uint8 (height, width). `notes`: lines of text below its name."""

    name: str
    pixels: np.ndarray
    notes: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """How the images of failing rows are found.

    `images`: a row an image. `by`: table -> the column of `images` that names the rows of this table. `told`: columns
    told beside an image. `read`: rows of `images` -> their pixels, uint8 (n, height, width).
    """

    images: pd.DataFrame
    by: Mapping[str, str]
    told: Sequence[str]
    read: Callable[[pd.DataFrame], np.ndarray]

    def show(self, result: Result) -> dict:
        """The first images of a failed check; its first rows, where a row is no image."""
        if result.table not in self.by:
            rows = result.failing[:SHOWN_ROWS]
            heads = [result.table, str(result.column)]
            return {"pictures": [], "heads": heads, "rows": rows, "more": len(result.failing) - len(rows)}
        value = dict(result.failing)
        place = {name: i for i, name in enumerate(value)}
        names = self.images[self.by[result.table]].astype(str)
        found = names[names.isin(place)].map(place).sort_values(kind="stable")
        shown = self.images.loc[found.index[:SHOWN_IMAGES]]
        told = [column for column in self.told if column != result.column]
        notes = [
            [f"{result.column}: {value[name]}", *(f"{column}: {row[column]}" for column in told)]
            for name, (_, row) in zip(names[shown.index], shown.iterrows(), strict=True)
        ]
        return {"pictures": pictures(shown, self.read(shown), notes), "rows": [], "more": len(found) - len(shown)}


@dataclass(frozen=True)
class LeftOut:
    """What was left out. `counts`: under `heads`, each reason with its count by source. `groups`: see the template."""

    heads: Sequence[str]
    counts: Sequence[Sequence[str]]
    groups: Sequence[Mapping]


def pictures(rows: pd.DataFrame, images: np.ndarray, notes: Iterable[Sequence[str]]) -> list[Picture]:
    """One picture an image of `images`, uint8 (n, height, width), with its id and what is noted of it."""
    return [Picture(*of) for of in zip(rows["image_id"], images, notes, strict=True)]


def write_page(
    docs: Path, door: str, results: Sequence[Result], gallery: Gallery, left_out: LeftOut | None = None
) -> None:
    """`docs`/index.html, beside Great Expectations' own pages, whose index needs scripts from CDNs."""
    details = {page.relative_to(docs).parts[1]: page.relative_to(docs) for page in docs.glob("validations/**/*.html")}
    failed = sorted((r for r in results if not r.success), key=lambda r: not r.critical)
    values = {
        "title": TITLES[door],
        "verdict": _verdict(results),
        "others": [(TITLES[name], f"../{name}/index.html") for name in ("records", "manifest") if name != door],
        "failures": [
            {"kind": r.severity, "rule": r.rule, "found": _found(r), "href": details[r.table]} | gallery.show(r)
            for r in failed
        ],
        "left_out": left_out,
        "tables": [(name, _checks(name, results, page)) for name, page in sorted(details.items())],
    }
    pages.write_page(docs / "index.html", "door.html", values)


def refused_images(rejected: pd.DataFrame, read: Callable[[pd.DataFrame], np.ndarray]) -> LeftOut:
    """What was left out, by reason: the counts, the images that were decoded, the first of the others as a list.

    `rejected`: see `stages.validate.records.read_rejected`. `read`: rows with source, shard and row -> their pixels.
    """
    counts = pd.crosstab(rejected["reason"], rejected["source"])
    lines = [[reason, *map(str, of)] for reason, of in zip(counts.index, counts.to_numpy(), strict=True)]
    groups = []
    decoded = rejected["shard"] != ""
    kinds = rejected["reason"] + (": " + rejected["detail"]).where(decoded & (rejected["detail"] != ""), "")
    for kind, of in rejected.groupby(kinds):
        shown = of.head(SHOWN_REFUSED)
        group = {"reason": kind, "n": len(of), "more": len(of) - len(shown), "pictures": [], "lines": []}
        if decoded[of.index].all():
            notes = [[f"score {score}"] for score in shown["score"]]
            group["pictures"] = pictures(shown, read(shown.astype({"row": int})), notes)
        else:
            group["lines"] = list(shown["image_id"] + (": " + shown["detail"]).where(shown["detail"] != "", ""))
        groups.append(group)
    return LeftOut(["Reason", *counts], lines, groups)


def _verdict(results: Sequence[Result]) -> dict[str, str]:
    met, critical = sum(r.success for r in results), sum(r.critical for r in results)
    warnings = len(results) - met - critical
    count = f"{met} of {len(results)} checks are met."
    if critical:
        also = f", and {warnings} more give{'s' if warnings == 1 else ''} a warning" if warnings else ""
        text = f"Stopped: {_checks_fail(critical)}{also}. Nothing runs after this until they are met."
        return {"kind": "critical", "text": text, "count": count}
    if warnings:
        text = f"{warnings} warning{'' if warnings == 1 else 's'}. The next stage may run."
        return {"kind": "warning", "text": text, "count": count}
    return {"kind": "", "text": "All checks are met. The next stage may run.", "count": count}


def _checks_fail(n: int) -> str:
    return "1 critical check fails" if n == 1 else f"{n} critical checks fail"


def _found(result: Result) -> str:
    n = len(result.failing)
    if not n:
        return f"{result.sentence}."
    return f"{n:,} of {result.n_rows:,} rows fail ({n / result.n_rows:.1%}): {result.reason}."


def _checks(table: str, results: Sequence[Result], page: Path) -> dict:
    rows = [
        {"kind": "" if r.success else r.severity, "rule": r.rule.removeprefix(f"{table}: "), "reason": r.reason}
        for r in results
        if r.table == table
    ]
    return {"met": sum(not row["kind"] for row in rows), "checks": rows, "href": page}
