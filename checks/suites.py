# Great Expectations re-exports without saying so, and its enumerations are given as words.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportPrivateImportUsage=false, reportReturnType=false
"""Hold tables against suites of expectations, and say every result in one sentence that names the rows."""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr import pages
from cxr.files import write_json, write_text
from cxr.params import ValidateParams

if TYPE_CHECKING:
    import great_expectations as gx
    from great_expectations.expectations import Expectation

SENTENCE_ROWS = 5  # of a failed expectation
REPORT_ROWS = 100
VALUE_LETTERS = 24  # of a value: a SHA-256 is told from another by fewer

RULES = {
    "expect_column_values_to_not_be_null": "{column} must be given",
    "expect_column_values_to_be_unique": "{column} must be unique",
    "expect_column_values_to_match_regex": "{column} must match {regex}",
    "expect_table_columns_to_match_ordered_list": "the columns must be those of the schema, in its order",
}

# What `cxr.pixels.descriptors.describe` can give at all; beyond, a number was not measured on a uint8 image.
POSSIBLE = {
    "aspect": (1e-4, 1e4),
    "mean": (0, 255),
    "contrast": (0, 127.5),  # half black, half white
    "p05": (0, 255),
    "p95": (0, 255),
    "entropy": (0, 8),
    "sharpness": (0, 6.1),  # log10 of the variance of values within ±1020
    "noise": (0, 427),
    "border": (-0.01, 255.01),  # computed as a difference
    "asymmetry": (-255, 255),
}


@dataclass(frozen=True)
class Table:
    """Rows to judge; the column `name` names a row."""

    rows: pd.DataFrame
    name: str


@dataclass(frozen=True)
class Result:
    """One expectation held against its table.

    `expected`: the expectation as it is written in the suite of `table`. `rule`: the same in words. `reason`: why it is
    expected. `failing`: name and value of each row that does not meet it, as text; empty where the expectation is of
    the table as a whole. `sentence`: all of it in one line.
    """

    table: str
    expected: str
    rule: str
    column: str | None
    severity: str
    success: bool
    reason: str
    n_rows: int
    failing: tuple[tuple[str, str], ...]
    sentence: str

    @property
    def critical(self) -> bool:
        """Whether it must stop what comes next."""
        return not self.success and self.severity == "critical"

    def to_dict(self) -> dict:
        """For JSON, with the first REPORT_ROWS rows."""
        rows = [name for name, _ in self.failing[:REPORT_ROWS]]
        return vars(self) | {"failing": len(self.failing), "failing_rows": rows}


def measured(params: ValidateParams) -> list["Expectation"]:
    """What is expected of the descriptors of any image."""
    from great_expectations import expectations as e

    low, high = params.mean_range
    return [
        e.ExpectColumnValuesToBeBetween(
            column="mean",
            min_value=low,
            max_value=high,
            severity="warning",
            notes="outside, the image is near black or white",
        ),
        e.ExpectColumnValuesToBeBetween(
            column="contrast",
            min_value=params.min_std,
            severity="warning",
            notes="below, the image is constant or near empty",
        ),
        *(e.ExpectColumnValuesToNotBeNull(column=name, notes="every image is measured") for name in POSSIBLE),
        *(
            e.ExpectColumnValuesToBeBetween(
                column=name, min_value=low, max_value=high, notes="beyond, it was not measured on an 8-bit image"
            )
            for name, (low, high) in POSSIBLE.items()
        ),
    ]


def hold(
    tables: Mapping[str, Table], suites: Mapping[str, Sequence["Expectation"]], docs: Path | None = None
) -> list[Result]:
    """Hold each table against its suite; `docs` becomes a folder of Great Expectations' pages."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    for logger in ("great_expectations", ProgressBarsConfig.__module__):  # this one sets a level of its own
        logging.getLogger(logger).setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    results = [result for name, suite in suites.items() for result in _run(context, name, tables[name], suite)]
    if docs:
        shutil.rmtree(docs, ignore_errors=True)
        _build_docs(context, docs)
        take_offline(docs)
    return results


def failures(results: Sequence[Result]) -> list[str]:
    """The sentences of what must stop."""
    return [result.sentence for result in results if result.critical]


def write_report(path: Path, results: Sequence[Result]) -> None:
    """The verdict as JSON that holds no time, since other stages depend on it."""
    verdict = {"passed": not failures(results), "expectations": [result.to_dict() for result in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, verdict)


def print_results(results: Sequence[Result]) -> None:
    for result in results:
        print("pass    " if result.success else f"{result.severity:8}", result.sentence)


def take_offline(docs: Path) -> None:
    """Give Great Expectations' pages our look, in the place of what they load from public CDNs, scripts included.

    They escape no value; the policy in the head makes whatever a file of a source is named run nothing.
    """
    shutil.rmtree(docs / "static", ignore_errors=True)  # 4 MB of fonts and films for what is taken out
    for page in docs.rglob("*.html"):
        text = re.sub(
            r"<link[^>]+(?:https?://|static/)[^>]*>|<script[^>]+https?://.*?</script>",
            "",
            page.read_text(),
            flags=re.DOTALL,
        )
        text = re.sub(r"<footer.*?</footer>|<img[^>]+https?://[^>]*>", "", text, flags=re.DOTALL)
        write_text(page, text.replace("<head>", f"<head>{pages.head()}", 1))


def _build_docs(context: "gx.data_context.EphemeralDataContext", docs: Path) -> None:
    context.add_data_docs_site(
        site_name="docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())},
        },
    )
    context.build_data_docs()


def _run(
    context: "gx.data_context.EphemeralDataContext", name: str, table: Table, suite: Sequence["Expectation"]
) -> list[Result]:
    import great_expectations as gx

    batch = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=name, data=batch, suite=context.suites.add(gx.ExpectationSuite(name=name, expectations=list(suite)))
        )
    )
    outcome = definition.run(
        batch_parameters={"dataframe": table.rows},
        run_id=gx.RunIdentifier(run_name="all"),
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [table.name],
            "return_unexpected_index_query": False,
        },
    )
    return [_plain(name, table, result) for result in outcome.results]


def _plain(name: str, table: Table, result: "gx.core.ExpectationValidationResult") -> Result:
    config = result.expectation_config
    column = config.kwargs.get("column")
    failing = [
        (str(entry[table.name]), _text(entry[column or table.name])[:VALUE_LETTERS])
        for entry in result.result.get("unexpected_index_list") or []
    ]
    if config.type == "expect_column_values_to_be_unique":
        failing.sort(key=lambda row: row[1])  # equal values side by side
    settings = [f"{k}={_text(v)}" for k, v in config.kwargs.items() if k not in ("batch_id", "column", "column_list")]
    expected = f"{name}: {config.type}({', '.join([column or name, *settings])})"
    rule = f"{name}: {_rule(config.type, column or name, config.kwargs)}"
    found = "" if result.success else f": found {_found(result, failing, len(table.rows))}; {config.notes}"
    return Result(
        table=name,
        expected=expected,
        rule=rule,
        column=column,
        severity=str(getattr(config.severity, "value", config.severity)),
        success=bool(result.success),
        reason=str(config.notes),
        n_rows=len(table.rows),
        failing=tuple(failing),
        sentence=f"{rule}{found}",
    )


def _rule(kind: str, column: str, settings: Mapping[str, Any]) -> str:
    """An expectation in words."""
    if kind == "expect_column_values_to_be_between":
        rule = f"{column} must be {_range(settings)}"
    elif kind == "expect_column_values_to_be_in_set":
        values = [_text(value) or "empty" for value in settings["value_set"]]
        rule = f"{column} must be {'one of ' if len(values) > 1 else ''}{', '.join(values)}"
    elif kind in RULES:
        rule = RULES[kind].format(**{**settings, "column": column})
    else:  # as Great Expectations names it
        rule = f"{column}: {kind.replace('_', ' ')}"
    share = float(settings.get("mostly") or 1)
    return rule if share == 1 else f"{rule}, in at least {share:.0%} of the rows"


def _range(settings: Mapping[str, Any]) -> str:
    low, high = settings.get("min_value"), settings.get("max_value")
    least = f"{'above' if settings.get('strict_min') else 'at least'} {_text(low)}"
    most = f"{'below' if settings.get('strict_max') else 'at most'} {_text(high)}"
    if low is None or high is None:
        return most if low is None else least
    strict = settings.get("strict_min") or settings.get("strict_max")
    return f"{least} and {most}" if strict else f"between {_text(low)} and {_text(high)}"


def _found(result: "gx.core.ExpectationValidationResult", failing: list[tuple[str, str]], n_rows: int) -> str:
    if failing:
        shown = ", ".join(f"{row} ({value})" for row, value in failing[:SENTENCE_ROWS])
        more = f" and {len(failing) - SENTENCE_ROWS} more" if len(failing) > SENTENCE_ROWS else ""
        return f"{len(failing)} of {n_rows} rows: {shown}{more}"
    details = result.result.get("details") or result.result.get("observed_value")
    return str(details or _raised(result))


def _raised(result: "gx.core.ExpectationValidationResult") -> str:
    """Why Great Expectations could not tell, such as a column that is not there."""
    told = [info for info in result.exception_info.values() if isinstance(info, dict)]
    return "; ".join(sorted({info["exception_message"] for info in told})) or "no reason given"


def _text(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "null" if np.isnan(value) else f"{float(value):.4g}"
    return "null" if value is None or value is pd.NA else str(value)
