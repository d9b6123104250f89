"""Public COVID-19 collections: covid-chestxray-dataset (Cohen et al. 2020), Figure1 and Actualmed (agchung), merged.

A few hundred images cut from publications and web pages; findings as the publication states them, licences per row
(some non-commercial, many unstated).
Only frontal X-rays are kept: CT slices, laterals and unstated views are set aside.
Known faults: several images a patient, rows without an image, `todo` findings, metadata that is not UTF-8 (Figure1).
A collection is known by its columns, not by its folder, so that a clone, a GitHub archive and a link give the same
patients.
Lung masks: files of the images' names in a folder `lung-masks`, or the repository's own `annotations/lungVAE-masks`,
`<image>_mask.png`. The former are drawn by people, the heart's shadow included, arrows and letters left out; the latter
by a network (Selvan et al. 2020), and used where there is no other.
Cite: Cohen JP et al., arXiv:2006.11988; Wang L, Wong A, Sci Rep 10 (2020) 19549.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cxr.errors import SourceError
from cxr.params import PublishedSource
from cxr.raw.archives import Member, Tree
from cxr.sources.reading import (
    Found,
    Row,
    SetAside,
    age,
    by_key,
    cell_faults,
    is_image,
    not_an_image,
    read_csv,
    sex,
    stated_view,
    view_fault,
)
from cxr.words import view_of

COLUMNS = ("patientid", "finding", "view", "modality")  # age, sex and license are optional: not all three state them
MASKED = "covid-chestxray-dataset"
MASK_FOLDERS = ("lung-masks", "lungVAE-masks")  # the former is believed before the latter


@dataclass(frozen=True)
class Collection:
    """One of the three: its name on GitHub, and its rows by the key of an image's file name."""

    name: str
    rows: dict[str, Row]


def read(tree: Tree, params: PublishedSource) -> Iterator[Found | SetAside]:
    collections: dict[str, Collection] = {}  # by the folder of the images
    masks: dict[str, dict[str, Member]] = {folder: {} for folder in MASK_FOLDERS}  # by the key of their image
    for member in tree.walk():
        path = PurePosixPath(member.path)
        if path.parent.name in MASK_FOLDERS and is_image(member.path):
            masks[path.parent.name].setdefault(_image_of(path), tree.anytime(member))
        elif path.name == "metadata.csv":
            rows = read_csv(member, COLUMNS)
            folder = str(path.parent / "images")
            kept, left_out = by_key(
                rows,
                lambda row: _key(_file_name(row)),
                said=(*COLUMNS, "age", "sex"),
                shown=lambda name, folder=folder: f"{folder}/{name}",
            )
            collections[folder] = Collection(_collection(rows), kept)
            yield from left_out
    if not collections:
        raise SourceError(f"{tree.root}: no metadata.csv; expected one beside each images folder, as on GitHub")
    drawn, traced = masks.values()
    yield from _read_images(tree, collections, traced | drawn)


def _read_images(
    tree: Tree, collections: dict[str, Collection], masks: dict[str, Member]
) -> Iterator[Found | SetAside]:
    """`masks`: by the key of their image."""
    seen = set()
    masked = set()
    waiting = []
    for member in tree.walk():
        path = PurePosixPath(member.path)
        if not is_image(member.path):
            if path.name != "metadata.csv":
                yield not_an_image(member.path)
            continue
        if path.parent.name in MASK_FOLDERS:
            waiting.append(member.path)
            continue
        collection = collections.get(str(path.parent))
        row = collection and collection.rows.get(_key(path.name))
        if collection is None or row is None:
            yield SetAside(member.path, "image without a row")
            continue
        seen.add((str(path.parent), _key(path.name)))
        mask = masks.get(_key(path.name)) if collection.name == MASKED else None
        if mask:
            masked.add(mask.path)
        view = view_of(row["view"])
        if fault := _no_x_ray(row, member.path) or view_fault(member.path, view, row["view"]):
            yield fault
            continue
        yield from cell_faults(row.where, row.get("age", ""), row.get("sex", ""))
        yield Found(
            path=member.path,
            member=member,
            patient_id=f"{collection.name}/{_patient(row['patientid'])}",
            findings=row["finding"],
            view_position=stated_view(view),
            age_years=age(row.get("age", "")),
            sex=sex(row.get("sex", "")),
            licence=row.get("license") or None,
            region="lungs" if mask else None,
            mask=mask,
        )
    for path in waiting:
        if path not in masked:
            other = masks[_image_of(PurePosixPath(path))].path
            yield SetAside(path, "mask without an image") if other == path else SetAside(path, "another mask", other)
    for folder, collection in collections.items():
        for name in collection.rows:
            if (folder, name) not in seen:
                yield SetAside(f"{folder}/{name}", "row without an image")


def _collection(rows: list[Row]) -> str:
    columns = rows[0] if rows else {}
    if "filename" in columns:
        return "covid-chestxray-dataset"
    return "Actualmed-COVID-chestxray-dataset" if "imagename" in columns else "Figure1-COVID-chestxray-dataset"


def _file_name(row: Row) -> str:
    """covid-chestxray-dataset names the file, Actualmed the image, Figure1 only the patient."""
    return row.get("filename") or row.get("imagename") or row["patientid"]


def _key(name: str) -> str:
    """File names are compared without a known image extension: Figure1's table leaves it out."""
    return re.sub(r"\.(jpe?g|png|gz)$", "", name, flags=re.IGNORECASE)


def _image_of(mask: PurePosixPath) -> str:
    """The key of the image that a mask is of."""
    return _key(mask.name).removesuffix("_mask") if mask.parent.name == "lungVAE-masks" else _key(mask.name)


def _patient(patient_id: str) -> str:
    """`COVID-00003a` and `COVID-00003b` are two images of one patient in Figure1."""
    return re.sub(r"^(COVID-\d+)[a-z]$", r"\1", patient_id)


def _no_x_ray(row: Row, path: str) -> SetAside | None:
    view, modality = row["view"], row["modality"]
    return None if modality == "X-ray" else SetAside(path, "not an X-ray", f"modality {modality!r}, view {view!r}")
