# Great Expectations re-exports without saying so, and its enumerations are given as words.
# pyright: reportArgumentType=false, reportPrivateImportUsage=false, reportReturnType=false
"""The first door: what ingest recorded of every source, before any of it is joined."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from checks.page import Gallery, refused_images, write_page
from checks.suites import Result, Table, hold, measured, write_report
from cxr.dataset.manifest import RECORD_COLUMNS, SPLITS
from cxr.dataset.rejected import OF_A_CELL
from cxr.dataset.store import read_thumbs
from cxr.params import ValidateParams
from cxr.tasks import Region

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

OF_A_ROW = r"^(?!image without).*\brows?\b"  # the reasons that leave out a row of a table, not a file
UNREADABLE = r"^unreadable (?:image|file)"
NAMED_PATIENT = (
    r"(?i)^[^/]+/(?!(?:.*/)?(?:nan|none|null|unknown|anonymous)?$)"  # <source>/<what tells one from another>
)
SHA256 = r"^[0-9a-f]{64}$"


def expectations(sources: Iterable[str], params: ValidateParams) -> dict[str, list["Expectation"]]:
    """Every expectation, by the table it is about, each with its reason in `notes`."""
    from great_expectations import expectations as e

    youngest, oldest = params.age_years
    return {
        "sources": [
            e.ExpectColumnValuesToBeInSet(
                column="other_columns", value_set=[""], notes="one schema, in cxr/dataset/manifest.py; ingest it again"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="unreadable_share",
                max_value=params.max_unreadable_share,
                notes="so many broken files mean a broken download",
            ),
            e.ExpectColumnValuesToBeBetween(
                column="rejected_share",
                max_value=params.max_rejected_share,
                notes="a reader that refuses most files does not fit the source",
            ),
            e.ExpectColumnValuesToBeBetween(
                column="odd_share",
                max_value=params.max_odd_share,
                notes="so many images near black or white were probably decoded wrongly",
            ),
            e.ExpectColumnValuesToBeBetween(
                column="images_per_patient",
                min_value=1,
                strict_min=True,
                severity="warning",
                notes="every image has a patient of its own; unless the source has one film a patient, two films of "
                "one patient may sit in train and test: name the patient in params.yaml",
            ),
        ],
        "images": [
            e.ExpectColumnValuesToNotBeNull(column="image_id", notes="a row is an image"),
            e.ExpectColumnValuesToBeUnique(column="image_id", notes="a row is an image"),
            e.ExpectColumnValuesToBeInSet(
                column="source", value_set=sorted(sources), notes="the sources that params.yaml names"
            ),
            e.ExpectColumnValuesToNotBeNull(
                column="patient_id", notes="an unknown patient cannot be kept in one split"
            ),
            e.ExpectColumnValuesToMatchRegex(
                column="patient_id", regex=NAMED_PATIENT, notes="a placeholder turns many patients into one"
            ),
            e.ExpectColumnValuesToNotBeNull(column="sha256", notes="copies are found by it"),
            e.ExpectColumnValuesToMatchRegex(column="sha256", regex=SHA256, notes="copies are found by it"),
            e.ExpectColumnValuesToBeUnique(
                column="sha256",
                severity="warning",
                notes="the source holds the same file twice, perhaps under two patients; assemble keeps one",
            ),
            e.ExpectColumnValuesToMatchRegex(
                column="findings", regex=r"\S", severity="warning", notes="an image without a finding has no label"
            ),
            e.ExpectColumnValuesToBeInSet(
                column="published_split", value_set=list(SPLITS), notes="assemble keeps a published test list"
            ),
            e.ExpectColumnValuesToBeInSet(
                column="view_position",
                value_set=["PA", "AP"],
                notes="frontal radiographs only; a source that states no view is not judged by it",
            ),
            e.ExpectColumnValuesToBeBetween(
                column="age_years",
                min_value=youngest,
                max_value=oldest,
                severity="warning",
                notes="an age that nobody has: is it months, or a date?",
            ),
            e.ExpectColumnValuesToBeInSet(
                column="sex", value_set=["M", "F", "O"], severity="warning", notes="as in DICOM"
            ),
            e.ExpectColumnValuesToBeInSet(
                column="laterality", value_set=["L", "R", "U"], severity="warning", notes="as in DICOM"
            ),
            e.ExpectColumnValuesToNotBeNull(
                column="licence", severity="warning", notes="without a licence, not everyone may use the image"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="width", min_value=params.min_side, severity="warning", notes="too small to see anything"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="height", min_value=params.min_side, severity="warning", notes="too small to see anything"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="bits", min_value=8, max_value=16, severity="warning", notes="with fewer bits the lungs are lost"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="content_score",
                min_value=params.min_content_score,
                severity="warning",
                notes="below, it may be no frontal chest radiograph; ingest.min_content_score refuses it",
            ),
            *measured(params),
            e.ExpectColumnValuesToBeInSet(
                column="mask", value_set=list(get_args(Region)), notes="the regions of which there are masks"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="mask_share", min_value=0, max_value=1, notes="a share of the square's pixels"
            ),
            e.ExpectColumnValuesToNotBeNull(column="shard", notes="a record points at its pixels"),
            e.ExpectColumnValuesToBeBetween(column="row", min_value=0, notes="a record points at its pixels"),
        ],
        "patients": [
            e.ExpectColumnValuesToBeBetween(
                column="images",
                max_value=params.max_images_per_patient,
                severity="warning",
                notes="an id with very many images is probably a placeholder, not a patient",
            ),
            e.ExpectColumnValuesToBeBetween(
                column="sexes", max_value=1, severity="warning", notes="two patients share the id, or a row is wrong"
            ),
        ],
        "rejected": [
            e.ExpectColumnValuesToMatchRegex(
                column="reason", regex=r"\S", notes="nothing is left out without a reason"
            ),
        ],
    }


def tables(by_source: dict[str, pd.DataFrame], rejected: pd.DataFrame, params: ValidateParams) -> dict[str, Table]:
    """The tables that are judged. `rejected`: see `read_rejected`."""
    columns = list(RECORD_COLUMNS)
    whole = {source: table.reindex(columns=columns) for source, table in by_source.items()}  # what lacks is null
    images = pd.concat(whole.values(), ignore_index=True)
    patients = images.groupby("patient_id").agg(images=("image_id", "size"), sexes=("sex", "nunique")).reset_index()
    sources = pd.DataFrame([_shares(s, table, rejected[rejected["source"] == s], params) for s, table in whole.items()])
    sources["other_columns"] = [", ".join(sorted(set(table) ^ set(columns))) for table in by_source.values()]
    return {
        "sources": Table(sources, "source"),
        "images": Table(images, "image_id"),
        "patients": Table(patients, "patient_id"),
        "rejected": Table(rejected, "image_id"),
    }


def _shares(source: str, records: pd.DataFrame, rejected: pd.DataFrame, params: ValidateParams) -> dict:
    """One row of the table of sources; shares are of its files, 0 to 1."""
    of_files = ~rejected["reason"].str.contains(OF_A_ROW) & ~rejected["reason"].str.contains(OF_A_CELL)
    files = len(records) + int(of_files.sum())
    patients = int(records["patient_id"].nunique()) if len(records) >= params.min_images_for_patients else 0
    odd = ~records["mean"].between(*params.mean_range) | (records["contrast"] < params.min_std)
    return {
        "source": source,
        "files": files,
        "images": len(records),
        "unreadable_share": int(rejected["reason"].str.contains(UNREADABLE).sum()) / files,
        "rejected_share": 1 - len(records) / files,
        "odd_share": float(odd.mean()),
        "images_per_patient": len(records) / patients if patients else np.nan,
    }


def read_rejected(images: Path, sources: Iterable[str]) -> pd.DataFrame:
    """What ingest left out of every source; `shard` is empty where nothing could be decoded."""
    tables = [
        pd.read_csv(images / source / "rejected.csv", dtype=str, keep_default_na=False).assign(source=source)
        for source in sources
    ]
    rejected = pd.concat(tables, ignore_index=True)
    return rejected.assign(image_id=rejected["source"] + "/" + rejected["path"])


def validate_records(
    sources: Iterable[str], params: ValidateParams, images: Path, report: Path, docs: Path
) -> list[Result]:
    """Judge the records of all sources below `images`; write the verdict and the Data Docs."""
    by_source = {source: pd.read_parquet(images / source / "records.parquet") for source in sources}
    rejected = read_rejected(images, by_source)
    judged = tables(by_source, rejected, params)
    results = hold(judged, expectations(by_source, params), docs)

    def read(rows: pd.DataFrame) -> np.ndarray:
        return read_thumbs(images, rows)  # the whole image, before anything was cut off it

    shown = judged["images"].rows.dropna(subset=["shard"])
    gallery = Gallery(shown, {"images": "image_id", "patients": "patient_id"}, ("findings",), read)
    write_page(docs, "records", results, gallery, refused_images(rejected, read))
    write_report(report, results)
    return results
