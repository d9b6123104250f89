# Words that a person wrote become the words of the vocabulary here.
# pyright: reportArgumentType=false
"""Radiographs of one's own with CSVs that say of each what is known; `columns` tells which column holds what.

Who made the labels and how, whom the images show and under which licence is for the owner to say, in params.yaml and
in a note of one's own. The path column may hold an image's path within the source, the end of it, or its name, in any
letter case, with or without extension; what fits several images is set aside, not guessed.
`join` names further tables. Findings stand in one column or in `labels`, a column for each. A column `lungs` or
`opacities` names a PNG or JPEG in which that region of the image is white; its cell may be empty.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import get_args

from cxr.errors import SourceError
from cxr.params import COLUMN_OF, Join, TableSource
from cxr.raw.archives import Member, Tree
from cxr.sources.names import Names
from cxr.sources.reading import (
    SPLITS,
    VIEW_NOT_STATED,
    Found,
    Row,
    SetAside,
    age,
    by_key,
    cell_faults,
    ends_with,
    grouped,
    is_image,
    not_an_image,
    read_csv,
    stated_view,
    view_fault,
)
from cxr.tasks import Region
from cxr.words import NOT_STATED, label_value, plain_word, sex_of, shown, view_of

POSITIVE, NEGATIVE, BLANK, UNCERTAIN = "positive", "negative", "blank", "set-aside"
LIST = re.compile(r"""\[\s*(?:(?:'[^']*'|"[^"]*")\s*(?:,\s*|(?=\])))*\]""")
LIST_WORD = re.compile(r"""'([^']*)'|"([^"]*)\"""")


@dataclass(frozen=True)
class Joined:
    """A further table by its keys, which are cells of the tables before it or groups. `used`: keys that were asked."""

    join: Join
    path: str
    columns: frozenset[str]
    rows: dict[tuple[str, ...], Row]
    used: set[tuple[str, ...]] = field(default_factory=set)


@dataclass(frozen=True)
class Tables:
    """`rows`: of the first table, by the cell that names the image; `where`: the paths of all tables."""

    rows: dict[str, list[Row]]
    joined: list[Joined]
    where: set[str]
    images: list[str]
    left_out: list[SetAside]


@dataclass(frozen=True)
class Said:
    """What the tables say of one image. `cells`: by what they hold; `views`: every cell that speaks of the view."""

    row: Row
    cells: dict[str, str]
    views: list[str]


def read(tree: Tree, params: TableSource) -> Iterator[Found | SetAside]:
    tables = _read_tables(tree, params)
    yield from tables.left_out
    region = next((region for region in get_args(Region) if region in params.columns), None)
    drawn = [cell for rows in tables.rows.values() if region and (cell := rows[0].get(params.columns[region], ""))]
    names = Names(tables.images, [*tables.rows, *drawn])
    rows_of: dict[str, list[Row]] = {}
    masks: dict[str, str] = {}  # path of an image: path of its mask
    for name, rows in tables.rows.items():
        fitting = names.fitting(name)
        if not fitting:
            yield SetAside(name, "row without an image")
        elif len(fitting) > 1:
            yield SetAside(name, "row fits several images", f"{fitting[0]}, {fitting[1]}")
        elif fitting[0] in rows_of:
            yield SetAside(name, "another row fits this image", f"{fitting[0]}, {rows[0].where}")
        else:
            rows_of[fitting[0]] = rows
            if region and (cell := rows[0].get(params.columns[region], "")):
                files = names.fitting(cell)
                if len(files) == 1:
                    masks[fitting[0]] = files[0]
                else:
                    yield SetAside(cell, "row names no mask", f"{len(files)} files fit ({rows[0].where})")
    # every image is told of before the first is decoded: what the tables get wrong stops the run at once
    told = {path: _tell(path, rows, tables.joined, params) for path, rows in rows_of.items()}
    for joined in tables.joined:
        for key, row in joined.rows.items():
            if key not in joined.used:
                yield SetAside(row.where, "row without an image")
    named = set(masks.values())
    members = {member.path: tree.anytime(member) for member in tree.walk() if member.path in named} if named else {}
    for member in tree.walk():
        if member.path in tables.where or (member.path in named and member.path not in told):
            continue
        if not is_image(member.path):
            yield not_an_image(member.path)
        elif member.path not in told:
            yield SetAside(member.path, "image without a row")
        elif isinstance(said := told[member.path], SetAside):
            yield said
        else:
            mask = members.get(masks.get(member.path, ""))
            yield from _read_image(member, said, params, region if mask else None, mask)


def _read_image(
    member: Member, said: Said, params: TableSource, region: Region | None, mask: Member | None
) -> Iterator[Found | SetAside]:
    cells = said.cells
    split = cells.get("published_split", "")
    if not cells.get("patient_id"):
        yield SetAside(member.path, "no patient stated")
        return
    if not cells["findings"]:
        yield SetAside(member.path, "no finding stated")
        return
    if split and split.casefold() not in SPLITS:
        yield SetAside(member.path, "unknown published split", f"{shown(split)} is not one of train, val, test")
        return
    view, fault = _view(member.path, said.views, params)
    if fault:
        yield fault
        return
    sex_words = {plain_word(word): meaning for word, meaning in params.sex_words.items()}
    yield from cell_faults(said.row.where, cells.get("age_years", ""), cells.get("sex", ""), sex_words)
    sex = sex_of(cells.get("sex", ""), sex_words)
    yield Found(
        path=member.path,
        member=member,
        patient_id=cells["patient_id"],
        findings=cells["findings"],
        view_position=view,
        age_years=age(cells.get("age_years", "")),
        sex=None if sex == NOT_STATED else sex,
        published_split=SPLITS.get(split.casefold()),
        licence=params.licence,
        region=region,
        mask=mask,
    )


def _view(path: str, texts: list[str], params: TableSource) -> tuple[str | None, SetAside | None]:
    """PA, AP or None where the tables do not tell, and why the image is left out."""
    own = {plain_word(word): meaning for word, meaning in params.view_words.items()}
    meanings = [(view_of(text, own), text) for text in texts]
    stated = [(meaning, text) for meaning, text in meanings if meaning != NOT_STATED]
    faults = [fault for meaning, text in stated if (fault := view_fault(path, meaning, text))]
    exact = {meaning for meaning, _ in stated} & {"PA", "AP"}
    if faults:
        return None, faults[0]
    if texts and not stated:
        return None, SetAside(path, VIEW_NOT_STATED)
    if len(exact) > 1:
        return None, SetAside(
            path, "view positions contradict each other", ", ".join(shown(text) for _, text in stated)
        )
    return stated_view(next(iter(exact), None)), None


# ------------------------------------------------------------------------------------------------ what the tables say


def _tell(path: str, rows: list[Row], joined: list[Joined], params: TableSource) -> Said | SetAside:
    """What the tables say of the image at `path`. Raises SourceError where they cannot be believed."""
    row = rows[0]
    groups: dict[str, list[str]] = {}
    for part in params.extract:
        if part.column is None:
            _find(part.pattern, path, groups)
    of_row = groups | {name: list(found) for name, found in groups.items()}
    for part in params.extract:
        if part.column in row:
            _find(part.pattern, row[part.column], of_row)
    partners: list[Row] = []
    whole = dict(row)
    without = ""
    for table in joined:
        key = tuple((of_row.get(ours) or [whole.get(ours, "")])[0] for ours in table.join.keys)
        partner = table.rows.get(key)
        if partner is None:
            without = without or f"no row of {table.path} has its {' and '.join(table.join.keys)} ({row.where})"
            continue  # what other tables say of this image is accounted for all the same
        table.used.add(key)
        for other in (row, *partners):
            _agree(other, partner, table, params)
        partners.append(partner)
        whole |= {column: cell for column, cell in partner.items() if not whole.get(column)}
    if without:
        return SetAside(path, "image without a row", without)
    for part in params.extract:
        if part.column is not None and part.column not in row:
            _find(part.pattern, whole[part.column], of_row)
    cells = {name: whole[column] for name, column in params.columns.items()}
    views = [cells["view_position"]] if "view_position" in cells else []
    for group, found in of_row.items():
        if group == "view":
            views += found
        elif group != "study":
            cells[COLUMN_OF[group]] = found[0]
    if params.labels:
        cells["findings"], unsure = _findings(rows, partners, params)
        if unsure:
            return SetAside(path, "uncertain finding", unsure)
        if not cells["findings"] and any(whole[label] for label in params.labels):
            return SetAside(path, "no positive label")
    elif LIST.fullmatch(cells["findings"]):
        words = [(first or second).strip() for first, second in LIST_WORD.findall(cells["findings"])]
        cells["findings"] = "|".join(dict.fromkeys(filter(None, words)))
    return Said(row, cells, views)


def _find(pattern: str, text: str, groups: dict[str, list[str]]) -> None:
    """Add what `pattern` finds in `text`, by its groups; a group that is not found is an empty cell."""
    match = re.search(pattern, text)
    for name in re.compile(pattern).groupindex:
        groups.setdefault(name, []).append(((match and match[name]) or "").strip())


def _agree(row: Row, partner: Row, table: Joined, params: TableSource) -> None:
    """Raises SourceError where two rows of one image differ in a column that both have and the source uses."""
    theirs_by = table.join.keys.values()  # a key has found its own already, and a group may be a part of its cell
    for column in (column for column in _used(params) if column not in theirs_by):
        ours, theirs = row.get(column), partner.get(column)
        if ours and theirs and ours != theirs:
            raise SourceError(
                f"{row.where} and {partner.where} are joined by {' and '.join(table.join.keys)} and disagree on "
                f"{column}; mend the one that is wrong, or join by a column that tells them apart"
            )


def _findings(rows: list[Row], partners: list[Row], params: TableSource) -> tuple[str, str]:
    """The labels that are positive, joined by bars, and the first that is uncertain and must not be guessed."""
    positive = []
    for label in params.labels:
        holders = rows if label in rows[0] else [row for row in partners if label in row][:1]
        votes = Counter(_meaning(row, label, params) for row in holders)
        if votes[UNCERTAIN]:
            return "", label
        needed = {"majority": len(holders) // 2 + 1, "any": 1}.get(params.readers_agree or "all", len(holders))
        if votes[POSITIVE] >= needed:
            positive.append(label)
    return "|".join(positive), ""


def _meaning(row: Row, label: str, params: TableSource) -> str:
    """What a cell of a label column counts as."""
    cell, values = row[label], params.label_values or ()
    if not cell:
        return BLANK
    for meaning, known in values:
        if label_value(cell) in [label_value(value) for value in known]:
            return params.labels[label] if meaning == "uncertain" else meaning
    expected = "; ".join(f"{', '.join(map(str, known))} for {meaning}" for meaning, known in values if known)
    raise SourceError(
        f"{row.where}: label {label} is {shown(cell)}; label_values knows {expected}; add it there, or mend the table"
    )


# ----------------------------------------------------------------------------------------------- find and read


def _used(params: TableSource) -> list[str]:
    """Every column that the source names, but those of the keys of joins."""
    extracted = [part.column for part in params.extract if part.column is not None]
    return list(dict.fromkeys([*params.columns.values(), *extracted, *params.labels]))


def _read_tables(tree: Tree, params: TableSource) -> Tables:
    wanted = [*params.tables, *(join.table for join in params.join)]
    members: dict[str, list[Member]] = {name: [] for name in wanted}
    images = []
    path = params.columns["path"]
    read: dict[str, list[Row]] = {}
    for member in tree.walk():
        for name in members:
            if _is_table(member.path, name):
                members[name].append(member)
                join = next((join for join in params.join if join.table == name), None)
                needed = [path] if join is None else list(join.keys.values())
                read[name] = read_csv(member, dict.fromkeys(needed))
        if is_image(member.path):
            images.append(member.path)
    for name, found in members.items():
        if len(found) != 1:
            several = f": {found[0].path}, {found[1].path}" if found else ""
            raise SourceError(
                f"{tree.root}: {len(found) or 'no'} files {name}{several}; params.yaml must name "
                "exactly one; give more of its path if needed"
            )
    where = {found[0].path for found in members.values()}
    first = [row for name in params.tables for row in read[name]]
    joined, left_out = [], []
    for join in params.join:
        table, unused = _by_keys(join, members[join.table][0].path, read[join.table])
        joined.append(table)
        left_out += unused
    _check_columns(tree, params, read, joined)
    rows, unused = _by_image(first, params)
    return Tables(rows, joined, where, images, left_out + unused)


def _is_table(path: str, name: str) -> bool:
    path, name = path.casefold(), name.casefold()
    return ends_with(path, name) or ends_with(path, f"{name}.gz")


def _by_keys(join: Join, path: str, rows: list[Row]) -> tuple[Joined, list[SetAside]]:
    """The table by its keys. Raises SourceError where a key stands in several rows."""
    left_out = [SetAside(row.where, "unreadable row", row.fault) for row in rows if row.fault]
    by_key: dict[tuple[str, ...], Row] = {}
    columns = list(join.keys.values())
    for row in rows:
        key = itemgetter(*columns)(row) if len(columns) > 1 else (row[columns[0]],)
        if row.fault:
            continue
        if not all(key):
            left_out.append(SetAside(row.where, "row without a name"))
        elif key in by_key:
            raise SourceError(
                f"{path}: rows {by_key[key].number} and {row.number} have the same {' and '.join(columns)}; a table "
                "that is joined has one row for each; remove the repeats, or join by more columns"
            )
        else:
            by_key[key] = row
    return Joined(join, path, frozenset(rows[0]) if rows else frozenset(), by_key), left_out


def _check_columns(tree: Tree, params: TableSource, read: dict[str, list[Row]], joined: list[Joined]) -> None:
    """Raises SourceError where a column of the source is in no table, or the key of a join in none before it."""
    firsts = [frozenset(rows[0]) for name in params.tables if (rows := read[name])]
    if not firsts or any(not table.columns for table in joined):
        return  # an empty table has no rows to be wrong about
    groups = {group for part in params.extract for group in re.compile(part.pattern).groupindex}
    at_hand = frozenset.intersection(*firsts)
    names = list(params.tables)
    for table in joined:
        for key in table.join.keys:
            if key not in at_hand and key not in groups:
                raise SourceError(
                    f"{tree.root}: {table.join.table} is joined by {key}, which is no column of {', '.join(names)} and "
                    f"no group of extract; found {', '.join(sorted(filter(None, at_hand)))[:500]}"
                )
        at_hand |= table.columns
        names.append(table.join.table)
    for column in _used(params):
        if column not in at_hand:
            found = ", ".join(sorted(filter(None, at_hand)))[:500]
            raise SourceError(f"{tree.root}: no column {column} in {', '.join(names)}; found {found}")


def _by_image(rows: list[Row], params: TableSource) -> tuple[dict[str, list[Row]], list[SetAside]]:
    """The rows of each image, one unless it was read by several, by the cell that names it; and what cannot be used."""
    name = itemgetter(params.columns["path"])
    said = [column for column in _used(params) if not (params.readers_agree and column in params.labels)]
    keys = [key for join in params.join for key in join.keys]
    if params.readers_agree is None:
        kept, left_out = by_key(rows, name, (*said, *keys))
        return {key: [row] for key, row in kept.items()}, left_out
    groups, left_out = grouped(rows, name)
    kept = {}
    for key, same in groups.items():
        if len({tuple(row.get(column) for column in said) for row in same}) > 1:
            left_out += [SetAside(key, "rows contradict each other", row.where) for row in same]
        else:
            kept[key] = same
    return kept, left_out
