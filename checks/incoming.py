# Great Expectations re-exports without saying so, and its enumerations are given as words.
# pyright: reportArgumentType=false, reportPrivateImportUsage=false, reportReturnType=false
"""The third door: images that come in. The monitor judges by it what the service was sent and answered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from checks.suites import Result, Table, hold, measured
from cxr.dataset.manifest import DESCRIPTORS
from cxr.params import ValidateParams
from cxr.release.drift import log_table

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

SUM_TOLERANCE = 1e-3  # of probabilities: a region's shares are float32 means over every pixel


def expectations(
    classes: Sequence[str], reference: pd.DataFrame, params: ValidateParams, min_images: int
) -> dict[str, list["Expectation"]]:
    """Every expectation, by the table it is about, each with its reason in `notes`."""
    from great_expectations import expectations as e

    return {
        "window": [
            e.ExpectColumnValuesToBeBetween(
                column="images", min_value=min_images, severity="warning", notes="fewer give no verdict on drift"
            ),
            e.ExpectColumnValuesToBeBetween(
                column="versions",
                max_value=1,
                severity="warning",
                notes="only scores of the released version are compared",
            ),
        ],
        "images": [
            *measured(params),
            *(
                e.ExpectColumnValuesToBeBetween(
                    column=name,
                    min_value=float(reference[name].min()),
                    max_value=float(reference[name].max()),
                    mostly=1 - params.max_unseen_share,
                    severity="warning",
                    notes="the model was not tested on such images",
                )
                for name in DESCRIPTORS
            ),
        ],
        "answers": [
            e.ExpectColumnValuesToBeInSet(
                column="predicted", value_set=list(classes), notes="an answer is one of the released classes"
            ),
            *(e.ExpectColumnValuesToNotBeNull(column=name, notes="every class has a probability") for name in classes),
            *(
                e.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=1, notes="it is a probability")
                for name in classes
            ),
            e.ExpectColumnValuesToBeBetween(
                column="sum",
                min_value=1 - SUM_TOLERANCE,
                max_value=1 + SUM_TOLERANCE,
                notes="the classes exclude each other",
            ),
        ],
    }


def tables(rows: Sequence[Mapping], classes: Sequence[str], version: str) -> dict[str, Table]:
    """The tables that are judged; `answers` are those of the released version, since others may have other classes."""
    images = log_table(rows, classes, version)[list(DESCRIPTORS)]
    images.insert(0, "request_id", [row["request_id"] for row in rows])
    of_release = [row for row in rows if row["model_version"] == version]
    answers = pd.DataFrame([row["probabilities"] for row in of_release], columns=list(classes), dtype=float)
    answers["sum"] = answers.sum(axis=1)
    answers["request_id"] = [row["request_id"] for row in of_release]
    answers["predicted"] = [row["predicted"] for row in of_release]
    versions = len({row["model_version"] for row in rows})
    window = pd.DataFrame([{"window": "all images", "images": len(rows), "versions": versions}])
    return {
        "window": Table(window, "window"),
        "images": Table(images, "request_id"),
        "answers": Table(answers, "request_id"),
    }


def hold_incoming(
    rows: Sequence[Mapping],
    classes: Sequence[str],
    version: str,
    reference: pd.DataFrame,
    params: ValidateParams,
    min_images: int,
    docs: Path | None = None,
) -> list[Result]:
    """Hold rows of the prediction log, see `cxr.release.prediction_log.read_since`, against the released reference."""
    return hold(tables(rows, classes, version), expectations(classes, reference, params, min_images), docs)
