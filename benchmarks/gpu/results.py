"""One file for every step that is over: OUT/<step>.json, or OUT/<step>.failed.txt with a traceback."""

import json
from collections.abc import Iterable
from pathlib import Path


def result_of(out: Path, step: str) -> Path:
    return out / f"{step}.json"


def failure_of(out: Path, step: str) -> Path:
    return out / f"{step}.failed.txt"


def read_results(out: Path, steps: Iterable[str]) -> dict[str, dict]:
    """By step, of those that have one."""
    return {step: json.loads(path.read_text()) for step in steps if (path := result_of(out, step)).exists()}
