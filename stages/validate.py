"""Great Expectations on exactly what train will read; a failed critical expectation stops the pipeline."""

from __future__ import annotations

import html
import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cxr.errors import plain_errors
from cxr.labels import TASKS
from cxr.manifest import MANIFEST_COLUMNS, SPLITS, read_table
from cxr.params import TaskName, ValidateParams, load_params
from cxr.store import read_images

if TYPE_CHECKING:
    import great_expectations as gx
    from great_expectations.expectations import Expectation

DATA_DOCS_CSS = Path(__file__).with_name("data_docs.css")
SHOWN_ROWS = 5  # of a failed expectation, in its sentence


def expectations(task: TaskName, params: ValidateParams) -> dict[str, list[Expectation]]:
    """Every expectation, by the table it is about, each with its reason in `notes`."""
    from great_expectations import expectations as e

    low, high = params.mean_range
    return {
        "images": [
            e.ExpectTableColumnsToMatchOrderedList(
                column_list=[*MANIFEST_COLUMNS, "pixel_mean", "pixel_std"], notes="one schema, in cxr/manifest.py"
            ),
            e.ExpectColumnValuesToBeUnique(column="image_id", notes="a row is an image"),
            e.ExpectColumnValuesToBeUnique(column="sha256", notes="the same file twice counts one patient twice"),
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
                notes="a class of one source can be told by its source, without looking at the lungs",
            ),
        ],
    }


def tables(manifest: pd.DataFrame, classes: tuple[str, ...], images: Path) -> dict[str, tuple[pd.DataFrame, str]]:
    """The tables that are judged, each with the column that names its rows."""
    pixels = read_images(images, manifest).reshape(len(manifest), -1)
    counts = manifest.pivot_table(index="label", columns="split", values="row", aggfunc="size", fill_value=0)
    by_class = counts.reindex(index=list(classes), columns=list(SPLITS), fill_value=0)
    by_class["sources"] = manifest.groupby("label")["source"].nunique().reindex(list(classes), fill_value=0)
    by_group = manifest.groupby("group")["split"].nunique().rename("splits").reset_index()
    measured = manifest.assign(pixel_mean=[float(p.mean()) for p in pixels], pixel_std=[float(p.std()) for p in pixels])
    return {
        "images": (measured, "image_id"),
        "groups": (by_group, "group"),
        "classes": (by_class.rename_axis("class", axis=0).rename_axis(None, axis=1).reset_index(), "class"),
    }


def validate(
    task: TaskName, params: ValidateParams, manifest: Path, images: Path, report: Path, docs: Path
) -> list[str]:
    """Write the verdict and the Data Docs; returns the sentences of critical expectations that failed."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    shutil.rmtree(docs, ignore_errors=True)
    _write_docs_to(context, docs)
    judged = tables(read_table(manifest, MANIFEST_COLUMNS), TASKS[task].classes, images)
    results = []
    for name, suite in expectations(task, params).items():
        table, index = judged[name]
        results += _run(context, name, table, index, suite)
    context.build_data_docs()
    take_offline(docs)
    write_index(docs, results)
    report.parent.mkdir(parents=True, exist_ok=True)
    verdict = {"passed": all(r["success"] or r["severity"] != "critical" for r in results), "expectations": results}
    report.write_text(json.dumps(verdict, indent=2) + "\n")
    for result in results:
        print("pass   " if result["success"] else f"{result['severity']:8}"[:8], result["sentence"])
    return [r["sentence"] for r in results if not r["success"] and r["severity"] == "critical"]


def _write_docs_to(context: gx.data_context.EphemeralDataContext, docs: Path) -> None:
    for site in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        site_name="docs",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())},
        },
    )


def take_offline(docs: Path) -> None:
    """Replace what the pages load from public CDNs, scripts included, by one local sheet: a review fetches nothing."""
    sheet = f"<style>{DATA_DOCS_CSS.read_text()}</style></head>"
    for page in docs.rglob("*.html"):
        text = re.sub(
            r"<link[^>]+https?://[^>]*>|<script[^>]+https?://.*?</script>", "", page.read_text(), flags=re.DOTALL
        )
        text = re.sub(r"<footer.*?</footer>|<img[^>]+https?://[^>]*>", "", text, flags=re.DOTALL)
        page.write_text(text.replace("</head>", sheet, 1))


def write_index(docs: Path, results: list[dict]) -> None:
    """One page with every expectation and its reason; Great Expectations' own index needs scripts from CDNs."""
    rows = [
        "<tr>"
        + f'<td class="text-{"success" if r["success"] else "danger" if r["severity"] == "critical" else "warning"}">'
        + f"{'passed' if r['success'] else r['severity']}</td>"
        + "".join(f"<td>{html.escape(r[key] or '')}</td>" for key in ("sentence", "reason"))
        + "</tr>"
        for r in results
    ]
    pages = sorted(page.relative_to(docs) for page in (docs / "validations").rglob("*.html"))
    links = "".join(f'<li><a href="{page}">{page.parts[1]}</a></li>' for page in pages)
    (docs / "index.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data validation</title>'
        f"<style>{DATA_DOCS_CSS.read_text()}</style></head><body><h1>Data validation</h1>"
        f"<p>What train will read, against {len(results)} expectations: "
        f"{sum(r['success'] for r in results)} passed.</p>"
        f"<table><tr><th>result</th><th>expectation</th><th>reason</th></tr>"
        f"{''.join(rows)}</table><h2>Details by table</h2><ul>{links}</ul></body></html>\n"
    )


def _run(
    context: gx.data_context.EphemeralDataContext, name: str, table: pd.DataFrame, index: str, suite: list[Expectation]
) -> list[dict]:
    import great_expectations as gx

    batch = (
        context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe("all rows")
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=name, data=batch, suite=context.suites.add(gx.ExpectationSuite(name=name, expectations=suite))
        )
    )
    outcome = definition.run(
        batch_parameters={"dataframe": table},
        run_id=gx.RunIdentifier(run_name="manifest"),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [index]},
    )
    return [_plain(name, index, result) for result in outcome.results]


def _plain(table: str, index: str, result: gx.core.ExpectationValidationResult) -> dict:
    """One result as plain values with its sentence."""
    config, found = result.expectation_config, result.result
    kwargs = {k: v for k, v in config.kwargs.items() if k not in ("batch_id", "column")}
    rows = [str(entry[index]) for entry in found.get("unexpected_index_list") or []]
    values = found.get("unexpected_list") or []
    name = f"{config.type}({', '.join([config.kwargs.get('column', table), *(f'{k}={v}' for k, v in kwargs.items())])})"
    sentence = f"{table}: {name if len(name) < 160 else config.type}"
    if not result.success:
        shown = ", ".join(f"{r} ({v})" for r, v in zip(rows[:SHOWN_ROWS], values[:SHOWN_ROWS], strict=False))
        more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
        observed = f"{len(rows)} of {found.get('element_count')} rows: {shown}{more}" if rows else found.get("details")
        sentence += f": found {observed or found.get('observed_value')}; {config.notes}"
    return {
        "table": table,
        "expectation": config.type,
        "column": config.kwargs.get("column"),
        "severity": str(getattr(config.severity, "value", config.severity)),
        "success": bool(result.success),
        "reason": config.notes,
        "rows": rows[:100],
        "sentence": sentence,
    }


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        failures = validate(
            p.task, p.validate_, Path("data/manifest.parquet"), Path("data/images"),
            Path("reports/validation.json"), Path("reports/data-docs"),
        )  # fmt: skip
    if failures:
        sys.exit("error: validate: " + "; ".join(failures))
