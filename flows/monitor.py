# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""Hold the prediction log's last hours against the release's test split: an Evidently page, and a verdict in one line.

Great Expectations judge the images and answers one by one (`checks.incoming`), Evidently their distribution.

`python -m flows.monitor` does it once, without a Prefect server.
"""

import json
import os
from contextlib import chdir
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from checks.incoming import hold_incoming
from checks.suites import Result, failures
from cxr.errors import CxrError, plain_errors
from cxr.params import MonitorParams, ValidateParams, load_params
from cxr.release.drift import ColumnDrift, DriftVerdict, comparable_columns, drift_columns, drift_verdict, log_table
from cxr.release.prediction_log import open_log, read_since
from flows import repository

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

REFERENCE = Path("models/release/reference.parquet")
RELEASE = Path("models/release/release.json")
REPORTS = Path("reports/drift")
NAMED_FAULTS = 2  # that the one line spells out
KEPT_PAGES = 168  # a page holds 3.7 MB of script; a week of hourly ones is 0.6 GB. Verdicts are kept for ever.

HEADINGS = ["column", "images", "p (Kolmogorov-Smirnov)", "shift of the mean, in reference sd", "verdict"]
STYLE = """<style>
.verdict { font: 15px/1.5 system-ui, sans-serif; max-width: 1320px; margin: 0 auto; padding: 24px;
  color: #111; background: #fff }
.verdict h1 { font-size: 21px; line-height: 1.35 }
.verdict table { border-collapse: collapse }
.verdict td, .verdict th { padding: 3px 28px 3px 0; text-align: left; border-bottom: 1px solid #ddd }
.verdict .drifted { font-weight: 600; color: #b00020 }
</style>"""


@dataclass(frozen=True)
class Watched:
    """What one window gave: the verdict on drift, every expectation on what came in, and the folder written."""

    drift: DriftVerdict
    incoming: list[Result]
    folder: Path

    @property
    def unmet(self) -> list[Result]:
        """The expectations that are not met, critical ones first."""
        return sorted((result for result in self.incoming if not result.success), key=lambda r: not r.critical)

    @property
    def state(self) -> str:
        """In one word; a fault comes first, since drift is no use to know of what was measured wrongly."""
        if failures(self.incoming):
            return "Fault"
        return "Drift" if self.drift.drift else "NoDrift" if self.drift.enough else "NoVerdict"

    def sentence(self) -> str:
        """In one line."""
        faults = failures(self.incoming)
        if not faults:
            return self.drift.sentence()
        more = f"; and {len(faults) - NAMED_FAULTS} more" if len(faults) > NAMED_FAULTS else ""
        return f"fault: {'; '.join(faults[:NAMED_FAULTS])}{more}; {self.drift.sentence()}"

    def to_dict(self) -> dict:
        """For JSON: the verdict on drift, and the expectations that are not met."""
        unmet = [result.to_dict() for result in self.unmet]
        return self.drift.to_dict() | {"sentence": self.sentence(), "state": self.state, "unmet_expectations": unmet}


@flow(name="monitor", log_prints=True)
def monitor() -> State:
    """Publish the verdict as the run's state and as an artifact; neither drift nor a fault fails the run."""
    try:
        with chdir(repository()):
            p = load_params()
            watched = watch(p.monitor, p.validate_, datetime.now(UTC))
    except CxrError as error:
        return Failed(message=str(error))
    print(watched.sentence())
    create_markdown_artifact(markdown(watched), key="drift", description="Prediction log against the reference")
    return Completed(name=watched.state, message=watched.sentence())


def watch(params: MonitorParams, limits: ValidateParams, now: datetime) -> Watched:
    """Judge the window that ends `now` and write `verdict.json`, and `report.html` where there is a verdict.

    Descriptors are compared over every row of the window, scores only over those of the released version, because
    the reference's scores are the released model's. The folder written is one under REPORTS.
    Raises CxrError where the release, its reference or the log cannot be read.
    """
    facts = read_facts(RELEASE)
    classes, version = facts["classes"], facts["version"]
    reference = read_reference(REFERENCE, classes, params.min_images)
    rows = read_window(os.environ.get("CXR_PREDICTION_LOG", params.log), now - timedelta(hours=params.window_hours))
    incoming = hold_incoming(rows, classes, version, reference, limits, params.min_images)
    current = log_table(rows, classes, version)

    columns = comparable_columns(current, params.min_images)
    snapshot = compare(current, reference, columns, params.alpha) if columns else None
    p_values = snapshot_p_values(snapshot) if snapshot else {}
    verdict = drift_verdict(p_values, current, reference, params.alpha, params.min_images, params.window_hours)

    folder = REPORTS / now.strftime("%Y%m%dT%H%M%SZ")
    folder.mkdir(parents=True, exist_ok=True)
    watched = Watched(verdict, incoming, folder)
    if snapshot:
        (folder / "report.html").write_text(page(snapshot, watched), encoding="utf-8")
        drop_old_pages(REPORTS)
    (folder / "verdict.json").write_text(json.dumps(watched.to_dict(), indent=2) + "\n")
    return watched


def read_facts(path: Path) -> dict:
    """What release.json says; the monitor needs its `classes` and `version` alone, not the model."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CxrError(f"{path}: no release to watch; `dvc repro` builds one") from None


def read_reference(path: Path, classes: list[str], min_images: int) -> pd.DataFrame:
    """The drift reference. Raises CxrError where it is missing, of other classes, or short of `min_images`."""
    try:
        reference = pd.read_parquet(path)
    except FileNotFoundError:
        raise CxrError(f"{path}: the drift reference is missing; `dvc repro package` releases it") from None
    expected = drift_columns(classes)
    if list(reference) != expected:
        differing = ", ".join(sorted(set(reference) ^ set(expected))) or "their order"
        raise CxrError(
            f"{path}: its columns are not those of the release (they differ in {differing}); run `dvc repro`"
        )
    if len(reference) < min_images:
        raise CxrError(f"{path}: {len(reference)} images, at least {min_images} (monitor.min_images) are needed")
    return reference


def read_window(url: str, since: datetime) -> list[dict]:
    """The prediction log's rows since then. Raises CxrError where the log cannot be read."""
    try:
        return read_since(open_log(url), since)
    except SQLAlchemyError as error:
        where = make_url(url).render_as_string(hide_password=True)
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise CxrError(f"monitor.log: the prediction log {where} cannot be read ({reason})") from None


def compare(current: pd.DataFrame, reference: pd.DataFrame, columns: list[str], alpha: float) -> "Snapshot":
    """Evidently's Kolmogorov-Smirnov test of each column at alpha / columns.

    Method and threshold are explicit because Evidently's defaults change with the size of the reference: above 1,000
    rows they alarm on nearly every window of 50 images.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.tests import gt

    threshold = alpha / len(columns)
    report = Report([ValueDrift(column=c, method="ks", threshold=threshold, tests=[gt(threshold)]) for c in columns])
    definition = DataDefinition(numerical_columns=columns)
    return report.run(
        Dataset.from_pandas(current[columns], definition), Dataset.from_pandas(reference[columns], definition)
    )


def snapshot_p_values(snapshot: "Snapshot") -> dict[str, float]:
    """The p-value per column that the page shows, so that verdict and page cannot disagree."""
    return {metric["config"]["column"]: float(metric["value"]) for metric in snapshot.dict()["metrics"]}


def page(snapshot: "Snapshot", watched: Watched) -> str:
    """Evidently's page, which loads nothing from elsewhere, with the verdict and what came in on top."""
    verdict = watched.drift
    rows = [
        f"<tr{' class=drifted' if column.drifted else ''}><td>{'<td>'.join(map(escape, cells(column)))}</tr>"
        for column in verdict.columns
    ]
    unmet = [
        f"<tr{' class=drifted' if r.critical else ''}><td>{r.severity}<td>{escape(r.sentence)}</tr>"
        for r in watched.unmet
    ]
    summary = (
        f'{STYLE}<section class="verdict"><h1>{escape(watched.sentence())}</h1><p>{escape(reading(verdict))}</p>'
        f"<table><tr><th>{'<th>'.join(HEADINGS)}</tr>{''.join(rows)}</table>"
        f"<h1>What came in</h1><p>{expected(watched)}</p><table>{''.join(unmet)}</table></section>"
    )
    return snapshot.get_html_str(as_iframe=False).replace("<body>", f"<body>{summary}", 1)


def markdown(watched: Watched) -> str:
    """The verdict for the Prefect UI."""
    lines = [f"**{watched.sentence()}**", "", f"Written to `{watched.folder}`."]
    if watched.drift.enough:
        table = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, watched.drift.columns)]
        lines += ["", reading(watched.drift), "", *(f"| {' | '.join(row)} |" for row in table)]
    lines += ["", expected(watched), "", *(f"- {r.severity}: {r.sentence}" for r in watched.unmet)]
    return "\n".join(lines)


def expected(watched: Watched) -> str:
    """How much of what is expected of incoming images is met."""
    return (
        f"{len(watched.incoming)} expectations on the images and their answers, {len(watched.unmet)} of them not met."
    )


def cells(column: ColumnDrift) -> list[str]:
    """One row under HEADINGS."""
    shift = "constant in the reference" if column.shift_sd is None else f"{column.shift_sd:+.2f}"
    return [column.column, str(column.n_current), f"{column.p:.2g}", shift, "drift" if column.drifted else "no drift"]


def reading(verdict: DriftVerdict) -> str:
    """How the table is to be read."""
    m, threshold = len(verdict.columns), verdict.threshold or 0
    return (
        f"{m} columns, and each drifts where p ≤ {threshold:.2g}: without drift, at most {m * threshold:.0%} of the "
        "reports raise an alarm. Read the shift beside p: with many images even a negligible shift has a small p."
    )


def drop_old_pages(reports: Path) -> None:
    """Keep the newest KEPT_PAGES pages; what they concluded stays in their `verdict.json`."""
    for old in sorted(reports.glob("*/report.html"))[:-KEPT_PAGES]:
        old.unlink()


if __name__ == "__main__":
    with plain_errors(), chdir(repository()):
        p = load_params()
        watched = watch(p.monitor, p.validate_, datetime.now(UTC))
        for result in watched.unmet:
            print(f"{result.severity}: {result.sentence}")
        print(f"{watched.sentence()}\nwritten to {watched.folder}")
