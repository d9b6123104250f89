# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""The one schema of image tables: a record per ingested image, a manifest row per used image.

Nothing else names a column. Records are written by ingest (`data/images/<source>/records.parquet`), the manifest by
assemble (`data/manifest.parquet`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.files import writing

# what `cxr.pixels.descriptors.describe` measures; the columns of records, the prediction log and the drift reference
DESCRIPTORS = (
    "aspect", "mean", "contrast", "p05", "p95", "entropy", "sharpness", "noise", "border", "asymmetry",
)  # fmt: skip

SPLITS = ("train", "val", "test")

# What decoding finds out about one file, kept beside the pixels; see cxr.dataset.store.
FACT_COLUMNS: dict[str, str] = {
    "path": "string",  # within the source, archives looked through
    "sha256": "string",  # of the file's bytes
    "fault": "string",  # why there is no image; null where there is one
    "shard": "string",  # file name under data/images/<source>/; null without an image
    "row": "int32",  # row of that shard, -1 without an image
    "width": "int32",  # of the published file, pixels
    "height": "int32",
    "bits": "int16",  # per sample, of the published file
    "phash": "object",  # 32 bytes, 256-bit perceptual hash
    "content_score": "float32",  # probability of a frontal chest radiograph, by cxr.pixels.content
    "content_reason": "string",  # the likeliest other thing; null where there is none
    "not_frontal": "string",  # what in its header says that it is no frontal chest film, see cxr.pixels.stated
    "modality": "string",  # by its header, as in DICOM; null for PNG and JPEG, as the next four
    "stated_view": "string",
    "stated_age_years": "Float32",
    "stated_sex": "string",
    "burned_in": "boolean",  # whether letters are part of the picture
    "notes": "string",  # codes of what must not go unsaid, joined by |; null where there is none
    "mask_sha256": "string",  # of its mask's file, or of its boxes as text; null where it has no mask
    "mask_fault": "string",  # why that mask cannot be used
    "mask_share": "float32",  # of the square that the mask covers; NaN without one
    **dict.fromkeys(DESCRIPTORS, "float32"),
}

# column -> pandas dtype; what is not stated by a source is null
RECORD_COLUMNS: dict[str, str] = {
    "image_id": "string",  # <source>/<path within the source, archives looked through>
    "source": "string",
    "patient_id": "string",  # <source>/<the source's own id>
    "view_position": "string",  # PA, AP, LL as in DICOM
    "age_years": "Float32",
    "sex": "string",  # M, F, O
    "laterality": "string",  # L, R, U as in DICOM
    "findings": "string",  # the source's own words, joined by |
    "published_split": "string",  # train, val, test where the source publishes one
    "licence": "string",
    "boxes": "string",  # JSON [[x, y, width, height], ...] in pixels of the published file, null where none
    "width": "int32",  # of the published file, pixels
    "height": "int32",
    "bits": "int16",  # per sample, of the published file
    "sha256": "string",  # of the published file's bytes
    "phash": "object",  # 32 bytes, 256-bit perceptual hash
    "shard": "string",  # file name under data/images/<source>/
    "row": "int32",  # row of that shard
    "content_score": "float32",  # probability of a frontal chest radiograph, by cxr.pixels.content
    "modality": "string",  # CR, DX, ... as in DICOM
    "burned_in": "boolean",  # whether letters are part of the picture, by its header
    "notes": "string",  # codes of cxr.pixels.stated and of ingest, joined by |
    "mask": "string",  # the region that its mask shows, `lungs` or `opacities`; null where it has no mask
    "mask_share": "float32",  # of the square that the mask covers; NaN without one
    **dict.fromkeys(DESCRIPTORS, "float32"),
}

MANIFEST_COLUMNS: dict[str, str] = RECORD_COLUMNS | {
    "label": "string",  # class name of the task
    "group": "int32",  # images that share a patient or are duplicates; never in two splits
    "split": "string",  # train, val, test
    "fold": "int8",  # of k-fold, -1 for test and where there are no folds
    "copies": "int16",  # times an epoch shows the image: 0 undersampled, 1, or more
    "weight": "float32",  # of the image in the loss
}


def to_table(rows: list[dict], columns: dict[str, str]) -> pd.DataFrame:
    """Rows as a table with exactly `columns`, in their order and dtypes."""
    return pd.DataFrame.from_records(rows, columns=list(columns)).astype(columns)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write parquet under a temporary name, then rename, so that no half-written table is taken for whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as part:
        table.to_parquet(part, index=False, engine="pyarrow", compression="zstd")


def read_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Read a table written by `write_table` back with its dtypes."""
    return pd.read_parquet(path).astype(columns)


def class_codes(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """The position of each row's label in `classes`, int64 (n,): the order of the model's outputs."""
    return rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
