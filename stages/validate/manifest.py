# Great Expectations re-exports without saying so, and its enumerations are given as words.
# pyright: reportArgumentType=false, reportCallIssue=false, reportPrivateImportUsage=false
"""The second door: exactly what train will read."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd

from checks.page import Gallery, write_page
from checks.suites import Result, Table, hold, write_report
from cxr.dataset.manifest import MANIFEST_COLUMNS, SPLITS, read_table
from cxr.dataset.store import read_images, read_masks
from cxr.params import ValidateParams
from cxr.tasks import TASKS, Task, TaskName

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

BLOCK = 64  # images in memory at a time


def expectations(task: TaskName, params: ValidateParams) -> dict[str, list["Expectation"]]:
    """Every expectation, by the table it is about, each with its reason in `notes`."""
    from great_expectations import expectations as e

    low, high = params.mean_range
    suites = {
        "images": [
            e.ExpectTableColumnsToMatchOrderedList(
                column_list=[*MANIFEST_COLUMNS, "pixel_mean", "pixel_std", "pixel_change"],
                notes="one schema, in cxr/dataset/manifest.py",
            ),
            e.ExpectColumnValuesToBeUnique(column="image_id", notes="a row is an image"),
            e.ExpectColumnValuesToBeUnique(column="sha256", notes="a file that is in twice counts a patient twice"),
            e.ExpectColumnValuesToBeInSet(
                column="label", value_set=list(TASKS[task].classes), notes="the task's classes"
            ),
            e.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), notes="no image outside the splits"),
            e.ExpectColumnValuesToNotBeNull(
                column="patient_id", notes="an unknown patient cannot be kept in one split"
            ),
            e.ExpectColumnValuesToBeInSet(
                column="view_position", value_set=["PA", "AP"], notes="frontal radiographs only", severity="warning"
            ),
            e.ExpectColumnValuesToBeBetween(column="copies", min_value=0, notes="an image is shown or not"),
            e.ExpectColumnValuesToBeBetween(
                column="weight", min_value=0, strict_min=True, notes="a weight of zero would hide an image"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="pixel_mean", min_value=low, max_value=high, notes="outside, the image is near black or white"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="pixel_std", min_value=params.min_std, notes="below, the image is constant or near empty"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="pixel_change", max_value=0.01, notes="the pixels are not those that were ingested"
            ),
        ],
        "groups": [
            e.ExpectColumnValuesToBeBetween(
                column="splits", max_value=1, notes="a patient or a duplicate in two splits leaks the answer"
            ),
        ],
        "classes": [
            *(
                e.ExpectColumnValuesToBeBetween(
                    column=split, min_value=minimum, notes=f"fewer {split} images tell nothing"
                )
                for split, minimum in (
                    ("train", params.min_train_per_class),
                    ("val", params.min_val_per_class),
                    ("test", params.min_test_per_class),
                )
            ),
            e.ExpectColumnValuesToBeBetween(
                column="sources",
                min_value=params.min_sources_per_class,
                severity="warning",
                notes="the model can tell the class by its source, without looking at the lungs",
            ),
        ],
    }
    if TASKS[task].localises:
        suites["masks"] = [
            e.ExpectColumnValuesToBeInSet(
                column="mask", value_set=[TASKS[task].region], notes="a mask of another region teaches the wrong thing"
            ),
            e.ExpectColumnValuesToNotBeNull(column="mask", notes="an image without a mask teaches nothing"),
            e.ExpectColumnValuesToBeBetween(
                column="mask_change", max_value=1e-6, notes="the masks are not those that were ingested"
            ),
        ]
    return suites


def tables(manifest: pd.DataFrame, task: Task, images: Path) -> dict[str, Table]:
    """The tables that are judged."""
    classes = task.needed
    counts = manifest.pivot_table(index="label", columns="split", values="row", aggfunc="size", fill_value=0)
    by_class = counts.reindex(index=list(classes), columns=list(SPLITS), fill_value=0)
    by_class["sources"] = manifest.groupby("label")["source"].nunique().reindex(list(classes), fill_value=0)
    by_group = manifest.groupby("group")["split"].nunique().rename("splits").reset_index()
    measured = manifest.join(measure(manifest, images))
    measured["pixel_change"] = (measured["pixel_mean"] - measured["mean"]).abs()
    judged = {
        "images": Table(measured, "image_id"),
        "groups": Table(by_group, "group"),
        "classes": Table(by_class.rename_axis("class").rename_axis(None, axis=1).reset_index(), "class"),
    }
    if task.localises:
        masks = manifest[["image_id", "mask"]].copy()
        masks["mask_change"] = (mask_shares(manifest, images) - manifest["mask_share"]).abs()
        judged["masks"] = Table(masks, "image_id")
    return judged


def measure(manifest: pd.DataFrame, images: Path) -> pd.DataFrame:
    """`pixel_mean` and `pixel_std` of every image as it lies in the shards, in grey levels; the index of `manifest`."""
    rows = manifest.sort_values(["source", "shard", "row"])
    measured = []
    for start in range(0, len(rows), BLOCK):
        for image in read_images(images, rows[start : start + BLOCK]):
            mean, std = cv2.meanStdDev(image)
            measured.append((mean.item(), std.item()))
    return pd.DataFrame(measured, index=rows.index, columns=["pixel_mean", "pixel_std"])


def mask_shares(manifest: pd.DataFrame, images: Path) -> pd.Series:
    """The share of the square that each mask covers as it lies in the shards, 0 to 1; the index of `manifest`."""
    rows = manifest.sort_values(["source", "shard", "row"])
    shares = [
        (read_masks(images, rows[start : start + BLOCK]) > 0).mean(axis=(1, 2)) for start in range(0, len(rows), BLOCK)
    ]
    return pd.Series(np.concatenate(shares), rows.index)


def validate_manifest(
    task: TaskName, params: ValidateParams, manifest: Path, images: Path, report: Path, docs: Path
) -> list[Result]:
    """Judge the manifest and the pixels it points at; write the verdict and the Data Docs."""
    judged = tables(read_table(manifest, MANIFEST_COLUMNS), TASKS[task], images)
    results = hold(judged, expectations(task, params), docs)

    def read(rows: pd.DataFrame) -> np.ndarray:
        return read_images(images, rows)  # the square that train reads

    by = {"images": "image_id", "groups": "group", "masks": "image_id"}
    write_page(docs, "manifest", results, Gallery(judged["images"].rows, by, ("label", "split"), read))
    write_report(report, results)
    return results
