# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""Hold the prediction log's last hours against the release's test split: a report, and a verdict in one line.

Great Expectations judge the images and answers one by one (`checks.incoming`), Evidently their distribution.

`python -m flows.monitor` does it once, without a Prefect server.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from cxr.files import write_json, write_text
from cxr.pages import write_page
from cxr.params import MonitorParams, ValidateParams, load_params
from cxr.release import drift_report
from cxr.release.drift import ColumnDrift, DriftVerdict, comparable_columns, drift_columns, drift_verdict, log_table
from cxr.release.prediction_log import open_log, read_since
from flows import repository

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

REFERENCE = Path("models/release/reference.parquet")
RELEASE = Path("models/release/release.json")
REPORTS = Path("reports/drift")
NAMED_FAULTS = 2  # that the one line spells out
FOLDER = "%Y%m%dT%H%M%SZ"  # below REPORTS, the end of the window in UTC
EVIDENTLY = "evidently.html"  # beside report.html
KEPT_PAGES = (
    168  # Evidently's page holds 3.7 MB of script; a week of hourly ones is 0.6 GB. Verdicts are kept for ever.
)

HEADINGS = ["measure", "images", "p-value", "change of the mean, in standard deviations", "verdict"]


@dataclass(frozen=True)
class Watched:
    """What one window gave: the verdict on drift, every expectation on what came in, and the folder written.

    `version`: of the model. `now`: when the window ends. `first`: see `drift_report.first_seen`.
    """

    drift: DriftVerdict
    incoming: list[Result]
    folder: Path
    version: str
    now: datetime
    first: Mapping[str, datetime]

    @property
    def changes(self) -> list[str]:
        """A sentence for each measure that changed."""
        return drift_report.what_changed(self.drift.columns, self.first)

    @property
    def unmet(self) -> list[Result]:
        """The expectations that are not met, critical ones first."""
        return sorted((result for result in self.incoming if not result.success), key=lambda r: not r.critical)

    @property
    def state(self) -> str:
        """In one word. A fault comes first: drift says nothing if the images were measured wrongly."""
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
        return self.drift.to_dict() | {
            "sentence": self.sentence(),
            "state": self.state,
            "version": self.version,
            "unmet_expectations": unmet,
        }


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

    folder = REPORTS / now.strftime(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    drifted = [column.column for column in verdict.columns if column.drifted]
    first = drift_report.first_seen(drifted, earlier_verdicts(REPORTS, folder.name), version)
    watched = Watched(verdict, incoming, folder, version, now, first)
    if snapshot:
        write_page(folder / "report.html", "drift.html", page_values(watched, current, reference))
        write_text(folder / EVIDENTLY, snapshot.get_html_str(as_iframe=False))
        drop_old_pages(REPORTS)
    write_json(folder / "verdict.json", watched.to_dict())
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


def page_values(watched: Watched, current: pd.DataFrame, reference: pd.DataFrame) -> dict:
    """What the template `drift.html` shows: first what changed, last the p-values and the requests by their ids."""
    verdict = watched.drift
    headline, kind = drift_report.headline(verdict, len(failures(watched.incoming)))
    return {
        "title": "Drift report",
        "headline": headline,
        "kind": kind,
        "window": drift_report.window(verdict, watched.now),
        "changes": watched.changes,
        "unmet": [{"kind": r.severity, "text": in_short(r), "sentence": r.sentence} for r in watched.unmet],
        "pictures": drift_report.pictures(verdict, current, reference),
        "sentence": watched.sentence(),
        "how_to_read": drift_report.how_to_read(verdict),
        "heads": HEADINGS,
        "rows": [cells(column) for column in verdict.columns],
        "checked": expected(watched),
        "evidently": EVIDENTLY,
    }


def in_short(result: Result) -> str:
    """What is not met, without the names of rows."""
    n = len(result.failing)
    found = f"{n} of {result.n_rows} " + ("row fails" if result.n_rows == 1 else "rows fail") if n else "fails"
    return f"{result.rule}: {found}; {result.reason}"


def markdown(watched: Watched) -> str:
    """The verdict for the Prefect UI."""
    verdict = watched.drift
    lines = [f"**{watched.sentence()}**", "", f"Written to `{watched.folder}`.", ""]
    lines += [f"- {sentence}" for sentence in watched.changes]
    if verdict.enough:
        table = [HEADINGS, ["---"] * len(HEADINGS), *map(cells, verdict.columns)]
        lines += ["", drift_report.how_to_read(verdict), "", *(f"| {' | '.join(row)} |" for row in table)]
    lines += ["", expected(watched), "", *(f"- {r.severity}: {r.sentence}" for r in watched.unmet)]
    return "\n".join(lines)


def expected(watched: Watched) -> str:
    """How many of the checks on incoming images are met."""
    n = len(watched.incoming)
    return f"{n - len(watched.unmet)} of {n} checks on the images and their answers are met."


def cells(column: ColumnDrift) -> list[str]:
    """One row under HEADINGS."""
    shift = "constant in the reference" if column.shift_sd is None else f"{column.shift_sd:+.2f}"
    return [column.column, str(column.n_current), f"{column.p:.2g}", shift, "drift" if column.drifted else "no drift"]


def earlier_verdicts(reports: Path, name: str) -> Iterator[tuple[datetime, dict]]:
    """Time and verdict of every report before the folder `name`, the newest first, read one by one."""
    for path in sorted(reports.glob("*/verdict.json"), reverse=True):
        if path.parent.name < name:
            yield datetime.strptime(path.parent.name, FOLDER).replace(tzinfo=UTC), json.loads(path.read_text())


def drop_old_pages(reports: Path) -> None:
    """Keep the newest KEPT_PAGES pages; what they concluded stays in their `verdict.json`."""
    for old in sorted(reports.glob("*/report.html"))[:-KEPT_PAGES]:
        old.unlink()
        old.with_name(EVIDENTLY).unlink(missing_ok=True)


if __name__ == "__main__":
    with plain_errors(), chdir(repository()):
        p = load_params()
        watched = watch(p.monitor, p.validate_, datetime.now(UTC))
        for result in watched.unmet:
            print(f"{result.severity}: {result.sentence}")
        print(f"{watched.sentence()}\nwritten to {watched.folder}")
