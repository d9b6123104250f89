# The types of Prefect and networkx leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""Run the DVC pipeline, one Prefect task per stage: the same stages, skipped when unchanged, as `dvc repro` by hand."""

import json
import sys
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from cxr.errors import CxrError, last_error
from cxr.processes import run_group, stage_environment
from flows import repository
from flows.lock import exclusive

LOCK = Path(".dvc/tmp/retrain.lock")
LOCK_WAIT_S = 600
METRICS = Path("reports/metrics.json")
GATE = Path("reports/gate.json")


@flow(name="retrain")
def retrain(lock_wait_s: float = LOCK_WAIT_S) -> State:
    """Reproduce every stage in order; the first that fails ends the run with its sentence.

    Metrics and the gate's verdict are published as soon as their stage has ended, well or not.
    """
    root = repository()
    try:
        with exclusive(root / LOCK, lock_wait_s):
            stages = stage_names(root)
            for stage in stages:
                state = reproduce.with_options(task_run_name=stage)(root, stage, return_state=True)
                if stage == "evaluate":
                    publish_metrics(root / METRICS)
                if stage == "gate":
                    publish_gate(root / GATE)
                if not state.is_completed():
                    return Failed(message=state.message)
    except CxrError as error:
        return Failed(message=str(error))
    return Completed(message=f"all {len(stages)} stages are up to date")


def stage_names(root: Path) -> list[str]:
    """The pipeline's stages by name, each after all that it depends on. Raises CxrError where DVC finds no pipeline."""
    try:
        with chdir(root), Repo() as repo:  # DVC names stages relative to the working directory
            graph = networkx.reverse_view(repo.index.graph)
            ordered = networkx.lexicographical_topological_sort(graph, key=lambda stage: stage.addressing)
            names = [stage.addressing for stage in ordered if stage.cmd]  # a file under `dvc add` has no command
    except DvcException as error:
        raise CxrError(f"{root}: DVC cannot read the pipeline ({error})") from None
    if not names:
        raise CxrError(f"{root}: there is no stage in dvc.yaml")
    return names


@task(retries=0)
def reproduce(root: Path, stage: str) -> State:
    """Run one stage where it has changed; its state tells the stage's own last sentence where it fails."""
    logger = get_run_logger()
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        logger.info(line)

    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    status = run_group(command, root, stage_environment(), log)
    if status == 0:
        skipped = any("didn't change, skipping" in line for line in lines)
        return Completed(message="unchanged, skipped" if skipped else "reproduced")
    return Failed(message=last_error(lines) or f"{stage}: exit status {status}")


def publish_gate(path: Path) -> None:
    """Publish the gate's verdict as an artifact; a gate that stopped before its verdict has left none."""
    if path.exists():
        gate = json.loads(path.read_text())
        create_markdown_artifact(gate_markdown(gate), key="gate", description="The gate's verdict on the candidate")


def publish_metrics(path: Path) -> None:
    """Publish the evaluation's metrics as a table, a row per metric and a column per slice."""
    if path.exists():
        slices = json.loads(path.read_text())["slices"]
        create_table_artifact(metrics_table(slices), key="metrics", description="The candidate on the test split")


def gate_markdown(gate: Mapping) -> str:
    """The verdict and one table row per rule."""
    failed = [rule for rule in gate["rules"] if not rule["passed"]]
    verdict = "The gate passed." if gate["passed"] else f"The gate failed {len(failed)} of {len(gate['rules'])} rules."
    rows = [
        f"| {'passed' if rule['passed'] else '**failed**'} | {rule['sentence'].replace('|', '/')} |"
        for rule in gate["rules"]
    ]
    return "\n".join([f"**{verdict}**", "", "| | rule |", "| --- | --- |", *rows])


def metrics_table(slices: Mapping[str, Mapping]) -> list[dict[str, str]]:
    """One row per metric, those of one class as `metric[class]` as in gate rules, and one column per slice."""
    columns = {name: _cells(measures) for name, measures in slices.items()}
    metrics = dict.fromkeys(metric for cells in columns.values() for metric in cells)
    return [{"metric": metric} | {name: cells.get(metric, "") for name, cells in columns.items()} for metric in metrics]


def _cells(measures: Mapping) -> dict[str, str]:
    intervals = measures.get("interval_95", {})
    found = {}
    for metric, value in measures.items():
        if not isinstance(value, Mapping):
            low_high = f" ({intervals[metric][0]:.3f} to {intervals[metric][1]:.3f})" if metric in intervals else ""
            found[metric] = _number(value) + low_high
    for name, of_class in measures.get("classes", {}).items():
        found |= {f"{metric}[{name}]": _number(value) for metric, value in of_class.items()}
    return found


def _number(value: float | None) -> str:
    return "undefined" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
