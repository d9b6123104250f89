# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The review list: pairs that the pixels leave unsure, as a page to look at, and what a person decided on them."""

import base64
import csv
import html
import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from cxr.dataset.duplicates import Duplicates, ThumbsOf
from cxr.errors import CxrError
from cxr.files import write_whole

COLUMNS = ["image_a", "image_b", "verdict"]
VERDICTS = ("same", "different")
SHOWN = 200  # pairs of each part of the page: 2 MB


def read_reviewed(path: Path, records: pd.DataFrame) -> pd.DataFrame:
    """What was decided, as `first` and `second` (positions in `records`), `verdict` and `where` it stands.

    `path` is a CSV of image_a, image_b, verdict (same | different). A line about a source that `records` do not hold is
    passed over. Raises CxrError for anything else that cannot be followed.
    """
    position = {image_id: i for i, image_id in enumerate(records["image_id"])}
    sources = set(records["source"].unique())
    decided: dict[tuple[int, int], tuple[str, str]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        if next(reader, None) != COLUMNS:
            raise CxrError(f"{path}: the first line must be {','.join(COLUMNS)}")
        for cells in reader:
            where = f"{path} line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(COLUMNS) or cells[2] not in VERDICTS:
                raise CxrError(f"{where}: found {','.join(cells)!r}, expected image_a,image_b and one of {VERDICTS}")
            if not {image_id.partition("/")[0] for image_id in cells[:2]} <= sources:
                continue
            for image_id in cells[:2]:
                if image_id not in position:
                    raise CxrError(f"{where}: {image_id} is no image of these sources; correct or remove the line")
            first, second = sorted(position[image_id] for image_id in cells[:2])
            if first == second:
                raise CxrError(f"{where}: {cells[0]} is paired with itself")
            verdict, before = decided.get((first, second), (cells[2], ""))
            if verdict != cells[2]:
                raise CxrError(f"{where}: says {cells[2]}, but {before} says {verdict} of the same two images")
            decided[first, second] = (verdict, where)
    rows = [(*pair, *said) for pair, said in decided.items()]
    return pd.DataFrame(rows, columns=["first", "second", "verdict", "where"])


def decide(duplicates: Duplicates, reviewed: pd.DataFrame, records: pd.DataFrame) -> Duplicates:
    """Put a person's verdicts in the place of the pixels': `same` joins, `different` parts.

    Raises CxrError where two images said to be different have the same bytes, or stay joined through a third.
    """
    said = {
        (a, b): verdict for a, b, verdict in zip(*(reviewed[c] for c in ("first", "second", "verdict")), strict=True)
    }
    found = {(a, b): i for i, (a, b) in enumerate(duplicates.pairs.tolist())}
    verdict = duplicates.verdict.copy()
    for pair in said.keys() & found.keys():
        verdict[found[pair]] = said[pair]
    new = sorted(said.keys() - found.keys())
    decided = Duplicates(
        np.concatenate([duplicates.pairs, np.array(new, np.int64).reshape(-1, 2)]),
        np.concatenate([duplicates.correlation, np.full(len(new), np.nan, np.float32)]),
        np.concatenate([verdict, np.array([said[pair] for pair in new], object)]),
    )
    for row in reviewed[reviewed["verdict"] == "different"].itertuples():
        a, b = records["image_id"].iloc[[row.first, row.second]]
        if records["sha256"].iloc[row.first] == records["sha256"].iloc[row.second]:
            raise CxrError(f"{row.where}: {a} and {b} are the same bytes and cannot be different")
        between = _joined_through(decided.same, row.first, row.second, len(records))
        if between is not None:
            c = records["image_id"].iloc[between]
            raise CxrError(
                f"{row.where}: {a} and {b} are said to be different, but both are joined to {c}; "
                f"say which of the two {c} differs from as well"
            )
    return decided


def _joined_through(same: np.ndarray, first: int, second: int, n: int) -> int | None:
    """The last image on the way from `first` to `second` along `same` pairs, None where there is no way."""
    graph = coo_array((np.ones(len(same), bool), (same[:, 0], same[:, 1])), shape=(n, n)).tocsr()
    _, before = breadth_first_order(graph, first, directed=False)
    return int(before[second]) if before[second] >= 0 else None


def write_review(folder: Path, table: pd.DataFrame, duplicates: Duplicates, thumbs_of: ThumbsOf) -> None:
    """Write `pairs.csv`, every pair, and `index.html`, those to look at with their thumbs, into `folder`.

    `table`: records with `label`, `reason` (why left out, null where kept) and `split`.
    """
    order = np.argsort(-np.nan_to_num(duplicates.correlation, nan=2), kind="stable")
    pairs = pd.DataFrame(duplicates.pairs[order], columns=["first", "second"])
    pairs["correlation"] = duplicates.correlation[order]
    pairs["verdict"] = duplicates.verdict[order]
    ids, digests = table["image_id"].to_numpy(), table["sha256"].to_numpy()
    pairs.insert(0, "image_a", ids[pairs["first"]])
    pairs.insert(1, "image_b", ids[pairs["second"]])
    folder.mkdir(parents=True, exist_ok=True)
    listed = pairs[["image_a", "image_b", "correlation", "verdict"]].to_csv(index=False, float_format="%.4f")
    write_whole(folder / "pairs.csv", listed.encode())

    pairs = pairs[digests[pairs["first"]] != digests[pairs["second"]]]
    parts = [
        (
            "To decide",
            "Unsure: kept, and in one split. Mostly two films of one patient, taken soon after each other.",
            pairs[pairs["verdict"] == "unsure"],
        ),
        (
            "Taken as the same image",
            "The least alike first; of each set of copies one stays. Files with the same bytes are not shown.",
            pairs[pairs["verdict"] == "same"].iloc[::-1],
        ),
        ("Parted", "Said to be different by a person.", pairs[pairs["verdict"] == "different"]),
    ]
    body = "".join(_part(title, text, rows, table, thumbs_of) for title, text, rows in parts)
    write_whole(folder / "index.html", PAGE.replace("{body}", body).encode())


def _part(title: str, text: str, pairs: pd.DataFrame, table: pd.DataFrame, thumbs_of: ThumbsOf) -> str:
    shown = pairs.iloc[:SHOWN]
    count = f"{len(pairs):,}" if len(shown) == len(pairs) else f"{len(shown)} of {len(pairs):,}; all are in pairs.csv"
    rows = table.iloc[shown[["first", "second"]].to_numpy().ravel()]
    thumbs = thumbs_of(rows) if len(rows) else np.empty((0, 1, 1), np.uint8)
    sides = [_side(row, thumb) for row, thumb in zip(rows.to_dict("records"), thumbs, strict=True)]
    cards = "".join(_card(pair, *sides[2 * i : 2 * i + 2]) for i, pair in enumerate(shown.itertuples()))
    return f"<h2>{title} <small>{count}</small></h2><p>{text}</p><div class=pairs>{cards}</div>"


def _card(pair, left: str, right: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([pair.image_a, pair.image_b, ""])
    r = "decided" if np.isnan(pair.correlation) else f"r = {pair.correlation:.3f}"
    return f"<article><header>{r}</header><div>{left}{right}</div><code>{html.escape(line.getvalue())}</code></article>"


def _side(row: dict, thumb: np.ndarray) -> str:
    png = base64.b64encode(cv2.imencode(".png", thumb)[1]).decode()
    said = [row[c] for c in ("findings", "label") if not pd.isna(row[c]) and row[c]]
    fate = f"kept, {row['split']}" if pd.isna(row["reason"]) else f"left out: {row['reason']}"
    facts = [
        f"<b>{html.escape(row['image_id'])}</b>",
        f"patient {html.escape(row['patient_id'].partition('/')[2])}",
        html.escape(" → ".join(said) or "no finding stated"),
        f"{row['width']} × {row['height']}",
        html.escape(fate),
    ]
    return (
        f'<figure><img alt="" style="aspect-ratio: {row["width"]} / {row["height"]}" src="data:image/png;base64,{png}">'
        f"<figcaption>{'<br>'.join(facts)}</figcaption></figure>"
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Near-duplicates</title><style>
:root { color-scheme: light dark }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px; padding: 0 1rem }
h2 { margin: 2.5rem 0 0 } small { font-weight: normal; opacity: .7 }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(560px, 1fr)); gap: 1rem }
article { border: 1px solid #8886; border-radius: 6px; padding: .6rem .8rem; min-width: 0 }
header { font-weight: 600 } article > div { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem }
figure { margin: .4rem 0; min-width: 0 } img { width: min(100%, 240px); max-height: 320px }
figcaption, code { font-size: 12px; overflow-wrap: anywhere } code { display: block; user-select: all; opacity: .8 }
</style></head><body>
<h1>Near-duplicates</h1>
<p>Pairs of images whose pixels agree, r being the correlation of their thumbnails laid on each other. To decide on a
pair, copy the line below it into <code style="display:inline">data/reviewed_pairs.csv</code>, end it with <b>same</b>
(one image: one of the two is left out) or <b>different</b> (two films: both may stay), and run <b>dvc repro</b>.</p>
{body}
</body></html>
"""
