"""NIH ChestX-ray14 (Wang et al. 2017): 112,120 frontal radiographs of 30,805 adults and children.

Labels are text-mined from reports: their positive predictive value is 10 to 30 points below what is documented
(Oakden-Rayner 2019). Open, with attribution to the NIH Clinical Center.
Known faults: a few impossible ages; several hundred images a patient; a partial download lacks most images.
Cite: Wang X et al., CVPR 2017, 3462-3471.
"""

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
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
    read_text,
    sex,
    stated_view,
    view_fault,
)
from cxr.words import view_of

COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


def read(tree: Tree, params: PublishedSource) -> Iterator[Found | SetAside]:
    rows, left_out, published = _read_tables(tree)
    yield from left_out
    seen = set()
    for member in tree.walk():
        name = PurePosixPath(member.path).name
        if not is_image(member.path):
            if not _is_table(name):
                yield not_an_image(member.path)
            continue
        row = rows.get(name)
        if row is None:
            yield SetAside(member.path, "image without a row")
            continue
        seen.add(name)
        view = view_of(row["View Position"])
        if fault := view_fault(member.path, view, row["View Position"]):
            yield fault
            continue
        yield from cell_faults(row.where, row["Patient Age"], row["Patient Gender"])
        yield Found(
            path=member.path,
            member=member,
            patient_id=row["Patient ID"],
            findings=row["Finding Labels"],
            view_position=stated_view(view),
            age_years=age(row["Patient Age"]),
            sex=sex(row["Patient Gender"]),
            published_split=published.get(name),
            licence="NIH open, attribution",
        )
    for name in rows:
        if name not in seen:
            yield SetAside(name, "row without an image")


def _is_table(name: str) -> bool:
    return name.startswith("Data_Entry_2017") or name in ("train_val_list.txt", "test_list.txt")


def _read_tables(tree: Tree) -> tuple[dict[str, Row], list[SetAside], dict[str, str]]:
    """Rows by image name, the rows that cannot be used, and the published split by image name."""
    rows, left_out, published = None, [], {}
    # tables are published beside the archives; only where they are not, archives are searched
    for member in chain(_loose_files(tree), () if _has_entries(tree) else tree.walk()):
        name = PurePosixPath(member.path).name
        if name.startswith("Data_Entry_2017") and name.endswith(".csv") and rows is None:
            rows, left_out = by_key(read_csv(member, COLUMNS), itemgetter("Image Index"), COLUMNS)
        elif name in ("train_val_list.txt", "test_list.txt"):
            split = "test" if name == "test_list.txt" else "train"
            published |= dict.fromkeys(read_text(member).split(), split)
    if rows is None:
        raise SourceError(f"{tree.root}: no Data_Entry_2017*.csv; it is published beside the image archives")
    return rows, left_out, published


def _has_entries(tree: Tree) -> bool:
    return any(path.name.startswith("Data_Entry_2017") and path.suffix == ".csv" for path in tree.files())


def _loose_files(tree: Tree) -> Iterator[Member]:
    return (member for member in tree.loose() if member.path.endswith((".csv", ".txt")))
