# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
"""The page of a door: what failed with the images it failed on, every expectation with its reason, what was refused."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from checks.suites import Result, page_head

SHOWN_IMAGES = 12  # of a failed expectation
SHOWN_REFUSED = 24  # of a reason
SHOWN_ROWS = 12

TITLES = {
    "records": "What ingest recorded",
    "manifest": "What train will read",
    "incoming": "What came in",
}


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

    def show(self, result: Result) -> str:
        """The first images of a failed expectation; its first rows, where a row is no image."""
        if result.table not in self.by:
            return _table([result.table, str(result.column)], map(_cells, result.failing[:SHOWN_ROWS]))
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
        return figures(shown, self.read(shown), notes) + _rest(len(found), len(shown))


def figures(rows: pd.DataFrame, images: np.ndarray, notes: Sequence[Sequence[str]]) -> str:
    """One figure an image of `images`, uint8 (n, height, width), with its id and what is noted of it."""
    made = [
        f'<figure><img src="{png_uri(image)}" alt=""><figcaption><b>{escape(name)}</b>'
        f"{''.join(f'<br>{escape(note)}' for note in of)}</figcaption></figure>"
        for name, image, of in zip(rows["image_id"], images, notes, strict=True)
    ]
    return f'<div class="gallery">{"".join(made)}</div>'


def png_uri(pixels: np.ndarray) -> str:
    """A data URI of uint8 (height, width)."""
    return f"data:image/png;base64,{base64.b64encode(cv2.imencode('.png', pixels)[1].tobytes()).decode()}"


def write_page(docs: Path, door: str, results: Sequence[Result], gallery: Gallery, left_out: str = "") -> None:
    """`docs`/index.html, beside Great Expectations' own pages, whose index needs scripts from CDNs."""
    details = {page.relative_to(docs).parts[1]: page.relative_to(docs) for page in docs.glob("validations/**/*.html")}
    failed = sorted((r for r in results if not r.success), key=lambda r: not r.critical)
    others = [f'<a href="../{name}/index.html">{TITLES[name]}</a>' for name in ("records", "manifest") if name != door]
    rows = [f"<td>{_mark(r)}</td>{_cells([r.expected, r.reason])}" for r in results]
    body = [
        f"<h1>{TITLES[door]}</h1><p>{_verdict(results)} </p><p>{' · '.join(others)}</p>",
        *(_section(result, gallery, details[result.table]) for result in failed),
        "<h2>Every expectation</h2>",
        _table(["result", "expectation", "reason"], rows),
        left_out,
        "<h2>Details by table</h2>",
        _list(f'<a href="{page}">{name}</a>' for name, page in sorted(details.items())),
    ]
    (docs / "index.html").write_text(
        f'<!doctype html><html lang="en"><head>{page_head()}<title>{TITLES[door]}</title></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def refused_images(rejected: pd.DataFrame, read: Callable[[pd.DataFrame], np.ndarray]) -> str:
    """What was left out, by reason: the counts, the images that were decoded, the first of the others as a list.

    `rejected`: see `stages.validate.records.read_rejected`. `read`: rows with source, shard and row -> their pixels.
    """
    counts = pd.crosstab(rejected["reason"], rejected["source"])
    rows = [_cells([reason, *map(str, of)]) for reason, of in zip(counts.index, counts.to_numpy(), strict=True)]
    parts = ["<h2>What was left out</h2>", _table(["reason", *counts], rows)]
    decoded = rejected["shard"] != ""
    kinds = rejected["reason"] + (": " + rejected["detail"]).where(decoded & (rejected["detail"] != ""), "")
    for kind, of in rejected.groupby(kinds):
        shown = of.head(SHOWN_REFUSED)
        parts.append(f"<h3>{escape(str(kind))}: {len(of)}</h3>")
        if decoded[of.index].all():
            notes = [[f"score {score}"] for score in shown["score"]]
            parts.append(figures(shown, read(shown.astype({"row": int})), notes))
        else:
            lines = shown["image_id"] + (": " + shown["detail"]).where(shown["detail"] != "", "")
            parts.append(_list(map(escape, lines)))
        parts.append(_rest(len(of), len(shown)))
    return "".join(parts)


def _verdict(results: Sequence[Result]) -> str:
    met, critical = sum(r.success for r in results), sum(r.critical for r in results)
    return (
        f"{len(results)} expectations: {met} are met, {critical} critical and {len(results) - met - critical} "
        f"lesser ones are not. {'Nothing comes after this.' if critical else 'What comes after it may run.'}"
    )


def _section(result: Result, gallery: Gallery, details: Path) -> str:
    n = len(result.failing)
    found = f"{n} of {result.n_rows} rows ({n / result.n_rows:.1%}): {result.reason}" if n else result.sentence
    return (
        f'<section class="failed"><h3>{_mark(result)} {escape(result.expected)}</h3>'
        f'<p>{escape(found)} (<a href="{details}">all figures of this table</a>)</p>'
        f"{gallery.show(result)}</section>"
    )


def _mark(result: Result) -> str:
    kind = "success" if result.success else "danger" if result.critical else "warning"
    return f'<span class="text-{kind}">{"met" if result.success else result.severity}</span>'


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _rest(n: int, shown: int) -> str:
    return f"<p>and {n - shown} more</p>" if n > shown else ""
