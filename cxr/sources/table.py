"""Radiographs of one's own with a CSV that says of each what is known; `columns` tells which column holds what.

Who made the labels and how, whom the images show and under which licence is for the owner to say, in params.yaml and
in a note of one's own. The path column may hold an image's path within the source, the end of it, or its name, with
or without extension; what fits several images is set aside, not guessed, unless it is the whole path of one.
A column `lungs` or `opacities` names, in the same ways, a PNG or JPEG in which that region of the image is white; its
cell may be empty.
"""

from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter
from pathlib import PurePosixPath
from typing import get_args

from cxr.errors import SourceError
from cxr.params import TableSource
from cxr.raw.archives import Member, Tree
from cxr.sources.reading import (
    Found,
    Row,
    SetAside,
    age,
    by_key,
    ends_with,
    frontal_fault,
    is_image,
    not_an_image,
    read_csv,
    sex,
)
from cxr.tasks import Region

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(tree: Tree, params: TableSource) -> Iterator[Found | SetAside]:
    table, rows, images = _read_table(tree, params)
    rows, left_out = by_key(rows, itemgetter(params.columns["path"]), params.columns.values())
    yield from left_out
    row_of: dict[str, Row] = {}
    masks: dict[str, str] = {}  # path of an image: path of its mask
    region = next((region for region in get_args(Region) if region in params.columns), None)
    places = _by_ending(images)
    whole = set(images)
    for name, row in rows.items():
        fitting = [name] if name in whole else places.get(name.strip("/"), [])
        if not fitting:
            yield SetAside(name, "row without an image")
        elif len(fitting) > 1:
            yield SetAside(name, "row fits several images", f"{fitting[0]}, {fitting[1]}")
        elif fitting[0] in row_of:
            yield SetAside(name, "another row fits this image", row.where)
        else:
            row_of[fitting[0]] = row
            if region and (cell := row[params.columns[region]]):
                drawn = [cell] if cell in whole else places.get(cell.strip("/"), [])
                if len(drawn) == 1:
                    masks[fitting[0]] = drawn[0]
                else:
                    yield SetAside(cell, "row names no mask", f"{len(drawn)} files fit ({row.where})")
    named = set(masks.values())
    members = {member.path: tree.anytime(member) for member in tree.walk() if member.path in named} if named else {}
    for member in tree.walk():
        if member.path == table or (member.path in named and member.path not in row_of):
            continue
        if not is_image(member.path):
            yield not_an_image(member.path)
        elif member.path not in row_of:
            yield SetAside(member.path, "image without a row")
        else:
            said = {key: row_of[member.path][column] for key, column in params.columns.items()}
            mask = members.get(masks.get(member.path, ""))
            yield _read_row(member, said, params, region if mask else None, mask)


def _read_row(
    member: Member, said: dict[str, str], params: TableSource, region: Region | None, mask: Member | None
) -> Found | SetAside:
    """`said`: the row's cells by what they hold."""
    split = said.get("published_split", "")
    if not said["patient_id"]:
        return SetAside(member.path, "no patient stated")
    if not said["findings"]:
        return SetAside(member.path, "no finding stated")
    if split and split.lower() not in SPLITS:
        return SetAside(member.path, "unknown published split", f"{split!r} is not one of train, val, test")
    view = said["view_position"].upper() if "view_position" in said else None
    fault = frontal_fault(member.path, view) if view is not None else None
    return fault or Found(
        path=member.path,
        member=member,
        patient_id=said["patient_id"],
        findings=said["findings"],
        view_position=view,
        age_years=age(said.get("age_years", "")),
        sex=sex(said.get("sex", "")),
        published_split=SPLITS.get(split.lower()),
        licence=params.licence,
        region=region,
        mask=mask,
    )


def _read_table(tree: Tree, params: TableSource) -> tuple[str, list[Row], list[str]]:
    """The table's path, its rows, and the paths of all images."""
    tables, images = [], []
    for member in tree.walk():
        if ends_with(member.path, params.table):
            tables.append((member.path, read_csv(member, params.columns.values())))
        elif is_image(member.path):
            images.append(member.path)
    if len(tables) != 1:
        raise SourceError(f"{tree.root}: {len(tables) or 'no'} files {params.table}; sources names the one with labels")
    return *tables[0], images


def _by_ending(paths: list[str]) -> dict[str, list[str]]:
    """Paths by every way to name them: whole or from any folder on, with and without extension."""
    places = defaultdict(list)
    for path in paths:
        parts = PurePosixPath(path).parts
        for start in range(len(parts)):
            name = PurePosixPath(*parts[start:])
            for way in {str(name), str(name.with_suffix(""))}:
                places[way].append(path)
    return places
