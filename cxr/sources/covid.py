"""Public COVID-19 collections: covid-chestxray-dataset (Cohen et al. 2020), Figure1 and Actualmed (agchung), merged.

A few hundred images cut from publications and web pages; findings as the publication states them, licences per row
(some non-commercial, many unstated).
Only frontal X-rays are kept: CT slices, laterals and unstated views are set aside.
Known faults: several images a patient, rows without an image, `todo` findings, metadata that is not UTF-8 (Figure1).
Cite: Cohen JP et al., arXiv:2006.11988; Wang L, Wong A, Sci Rep 10 (2020) 19549.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from cxr.archives import Tree
from cxr.errors import SourceError
from cxr.params import PublishedSource
from cxr.sources.reading import Found, SetAside, age, is_image, not_an_image, read_csv, sex

COLUMNS = ("patientid", "finding", "view", "modality")  # age, sex and license are optional: not all three state them
VIEWS = {
    "PA": "PA",
    "AP": "AP",
    "AP Supine": "AP",
    "AP erect": "AP",
    "AP semi erect": "AP",
    "L": "LL",
    "Lateral": "LL",
}


def read(tree: Tree, params: PublishedSource) -> Iterator[Found | SetAside]:
    collections = _read_tables(tree)
    seen = set()
    for member in tree.walk():
        path = PurePosixPath(member.path)
        if not is_image(member.path):
            if path.name != "metadata.csv":
                yield not_an_image(member.path)
            continue
        row = collections.get(str(path.parent), {}).get(_key(path.name))
        if row is None:
            yield SetAside(member.path, "image without a row")
            continue
        seen.add((str(path.parent), _key(path.name)))
        fault = _not_frontal(row, member.path)
        yield fault or Found(
            path=member.path,
            member=member,
            patient_id=f"{path.parent.parent.name}/{_patient(row['patientid'])}",
            findings=row["finding"],
            view_position=VIEWS[row["view"]],
            age_years=age(row.get("age", "")),
            sex=sex(row.get("sex", "")),
            licence=row.get("license") or None,
        )
    for folder, rows in collections.items():
        for name in rows:
            if (folder, name) not in seen:
                yield SetAside(f"{folder}/{name}", "row without an image")


def _read_tables(tree: Tree) -> dict[str, dict[str, dict[str, str]]]:
    """Image folder -> key of the file name -> row, for every metadata.csv beside an `images` folder."""
    collections = {}
    for member in tree.walk():
        path = PurePosixPath(member.path)
        if path.name == "metadata.csv":
            rows = {_key(_file_name(row)): row for row in read_csv(member, COLUMNS)}
            collections[str(path.parent / "images")] = rows
    if not collections:
        raise SourceError(f"{tree.root}: no metadata.csv; expected one beside each images folder, as on GitHub")
    return collections


def _file_name(row: dict[str, str]) -> str:
    """covid-chestxray-dataset names the file, Actualmed the image, Figure1 only the patient."""
    return row.get("filename") or row.get("imagename") or row["patientid"]


def _key(name: str) -> str:
    """File names are compared without a known image extension: Figure1's table leaves it out."""
    return re.sub(r"\.(jpe?g|png|gz)$", "", name, flags=re.IGNORECASE)


def _patient(patient_id: str) -> str:
    """`COVID-00003a` and `COVID-00003b` are two images of one patient in Figure1."""
    return re.sub(r"^(COVID-\d+)[a-z]$", r"\1", patient_id)


def _not_frontal(row: dict[str, str], path: str) -> SetAside | None:
    view, modality = row["view"], row["modality"]
    if modality != "X-ray":
        return SetAside(path, "not an X-ray", f"modality {modality!r}, view {view!r}")
    if view in ("", "?"):
        return SetAside(path, "view position not stated")
    if VIEWS.get(view) not in ("PA", "AP"):
        return SetAside(path, "not a frontal view", f"view {view!r}")
    return None
