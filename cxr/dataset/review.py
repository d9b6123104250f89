# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""The review list: pairs that the pixels leave unsure, as a page to decide on, and what a person decided on them."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from cxr.dataset.duplicates import Duplicates, ThumbsOf
from cxr.errors import CxrError
from cxr.files import write_csv
from cxr.pages import write_page

COLUMNS = ["image_a", "image_b", "verdict"]
VERDICTS = ("same", "same-patient", "different")
SHOWN = 200  # pairs of each part of the page: 2 MB


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each line of a CSV of image_a, image_b and verdict (VERDICTS), empty lines left out.

    Raises CxrError for a line of anything else.
    """
    lines = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        if next(reader, None) != COLUMNS:
            raise CxrError(f"{path}: the first line must be {','.join(COLUMNS)}")
        for cells in filter(None, reader):
            if len(cells) != len(COLUMNS) or cells[2] not in VERDICTS:
                raise CxrError(
                    f"{path} line {reader.line_num}: found {','.join(cells)!r}, expected image_a,image_b and one of "
                    f"{', '.join(VERDICTS)}"
                )
            lines.append((reader.line_num, cells))
    return lines


def read_reviewed(path: Path, records: pd.DataFrame) -> pd.DataFrame:
    """What was decided, as `first` and `second` (positions in `records`), `verdict` and `where` it stands.

    `path`: see `read_lines`. A line about a source that `records` do not hold is passed over. Raises CxrError for
    anything else that cannot be followed.
    """
    position = {image_id: i for i, image_id in enumerate(records["image_id"])}
    sources = set(records["source"].unique())
    decided: dict[tuple[int, int], tuple[str, str]] = {}
    for number, cells in read_lines(path):
        where = f"{path} line {number}"
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
    """Replace the pixels' verdicts by a person's.

    `same` is one image, `same-patient` two images that stay in one split, `different` two images that need not.
    Raises CxrError if a pair said to be two images has the same bytes, or stays joined through a third image.
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
    for row in reviewed[reviewed["verdict"] != "same"].itertuples():
        a, b = records["image_id"].iloc[[row.first, row.second]]
        if records["sha256"].iloc[row.first] == records["sha256"].iloc[row.second]:
            raise CxrError(f"{row.where}: {a} and {b} have the same bytes and are one image")
        between = _joined_through(decided.same, row.first, row.second, len(records))
        if between is not None:
            c = records["image_id"].iloc[between]
            raise CxrError(
                f"{row.where}: {a} and {b} are said to be two images, but both are joined to {c}; "
                f"say from which of the two {c} differs as well"
            )
    return decided


def _joined_through(same: np.ndarray, first: int, second: int, n: int) -> int | None:
    """The last image on the way from `first` to `second` along `same` pairs, None where there is no way."""
    graph = coo_array((np.ones(len(same), bool), (same[:, 0], same[:, 1])), shape=(n, n)).tocsr()
    _, before = breadth_first_order(graph, first, directed=False)
    return int(before[second]) if before[second] >= 0 else None


def write_review(
    folder: Path, table: pd.DataFrame, duplicates: Duplicates, thumbs_of: ThumbsOf, reviewed_path: Path
) -> None:
    """Write `pairs.csv`, every pair, and `index.html`, a page on which a person decides them, into `folder`.

    `table`: records with `label`, `reason` (why left out, null where kept) and `split`. The page saves what was decided
    as a whole file in the place of `reviewed_path`, whose lines it keeps, those of other sources too.
    """
    order = np.argsort(-np.nan_to_num(duplicates.correlation, nan=2), kind="stable")
    pairs = pd.DataFrame(duplicates.pairs[order], columns=["first", "second"])
    pairs["correlation"] = duplicates.correlation[order]
    pairs["verdict"] = duplicates.verdict[order]
    ids, digests = table["image_id"].to_numpy(), table["sha256"].to_numpy()
    pairs.insert(0, "image_a", ids[pairs["first"]])
    pairs.insert(1, "image_b", ids[pairs["second"]])
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "pairs.csv", pairs[["image_a", "image_b", "correlation", "verdict"]], "%.4f")

    earlier = [cells for _, cells in read_lines(reviewed_path)]
    pairs = pairs[digests[pairs["first"]] != digests[pairs["second"]]]
    person = {tuple(sorted(cells[:2])) for cells in earlier}
    by_person = np.array(
        [tuple(sorted(ends)) in person for ends in zip(pairs["image_a"], pairs["image_b"], strict=True)]
    )
    by_person = by_person.astype(bool)  # of no pair, float
    unsure, same = pairs["verdict"] == "unsure", pairs["verdict"] == "same"
    parts = [
        (
            "To decide",
            "The pixels do not tell. Mostly these are two films of one patient, taken soon after each other. "
            "Until you decide, both are kept, in one split.",
            pairs[unsure & ~by_person],
            True,
        ),
        (
            "Taken as the same image",
            "The least alike come first. Of each set of copies one is kept. Files with the same bytes are not shown.",
            pairs[same & ~by_person].iloc[::-1],
            False,
        ),
        ("Decided before", "You can change what was decided.", pairs[by_person], True),
    ]
    write_page(
        folder / "index.html",
        "review.html",
        {
            "title": "Near-duplicates",
            "parts": [_part(title, text, rows, asked, table, thumbs_of) for title, text, rows, asked in parts],
            "earlier": earlier,
            "saved_as": reviewed_path.name,
            "saved_at": reviewed_path.as_posix(),
        },
    )


def _part(title: str, text: str, pairs: pd.DataFrame, asked: bool, table: pd.DataFrame, thumbs_of: ThumbsOf) -> dict:
    """`asked`: whether a person is to decide, so that the pairs count as work to do."""
    shown = pairs.iloc[:SHOWN]
    count = f"{len(pairs):,}" if len(shown) == len(pairs) else f"{len(shown)} of {len(pairs):,}; all are in pairs.csv"
    rows = table.iloc[shown[["first", "second"]].to_numpy().ravel()]
    thumbs = thumbs_of(rows) if len(rows) else np.empty((0, 1, 1), np.uint8)
    films = [_film(row, thumb) for row, thumb in zip(rows.to_dict("records"), thumbs, strict=True)]
    cards = [
        {
            "image_a": pair.image_a,
            "image_b": pair.image_b,
            "likeness": None if np.isnan(pair.correlation) else f"{pair.correlation:.3f}",
            "films": films[2 * i : 2 * i + 2],
        }
        for i, pair in enumerate(shown.itertuples())
    ]
    return {"title": title, "count": count, "text": text, "asked": asked, "pairs": cards}


def _film(row: dict, thumb: np.ndarray) -> dict:
    said = [row[c] for c in ("findings", "label") if not pd.isna(row[c]) and row[c]]
    return {
        "name": row["image_id"],
        "pixels": thumb,
        "shape": f"{row['width']} / {row['height']}",
        "notes": [
            f"patient {row['patient_id'].partition('/')[2]}",
            " → ".join(said) or "no finding stated",
            f"{row['width']} × {row['height']}",
            f"kept, {row['split']}" if pd.isna(row["reason"]) else f"left out: {row['reason']}",
        ],
    }
