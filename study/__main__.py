"""Run presets of published systems as DVC experiments and set them beside ours in reports/study.

`python -m study` runs all of them, `python -m study nam2022 small` two; `--list` names them. What has
finished is not run again, and what was interrupted goes on.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from cxr.errors import CxrError, plain_errors
from study.presets import Changes, DataGroup, Preset, load_presets, read_base, settings
from study.report import REPORT, markdown, rows_of, write_report
from study.runs import Run, digest, finished, read_records, run_all

ROOT = Path(__file__).resolve().parent.parent
PRESETS = Path("studies")
CORES_A_JOB = 8  # TensorFlow uses all cores; below, two trainings only wait for each other


def study(root: Path, arguments: argparse.Namespace) -> None:
    """Run what is asked for and write the report on all that has finished.

    Raises CxrError that names every failed run, after the others have ended.
    """
    everything = load_presets(root / PRESETS)
    presets = load_presets(root / PRESETS, arguments.presets)
    changes = Changes(arguments.epochs, arguments.weights, tuple(arguments.set))
    runs = plan(root, presets, arguments.data, arguments.seeds, changes)
    if arguments.list:
        print(listing(root, presets, runs))
        return
    try:
        failed = run_all(root, runs, arguments.jobs, lambda line: print(line, flush=True))
    finally:
        write_report(root, everything, read_records(root))
    print(markdown(rows_of(presets, read_records(root))), f"{REPORT}/index.html", sep="\n")
    if failed:
        raise CxrError(f"study: {len(failed)} of {len(runs)} runs failed: {'; '.join(map(': '.join, failed.items()))}")


def plan(
    root: Path, presets: dict[str, Preset], groups: list[DataGroup] | None, seeds: int, changes: Changes
) -> list[Run]:
    """Every run that is asked for, checked before the first begins: seed by seed, so that all have one early."""
    base = read_base(root / "params.yaml")
    runs = []
    for seed in range(base["seed"], base["seed"] + seeds):
        for name, preset in presets.items():
            for data in groups or preset.data:
                values = settings(name, preset, data, base, changes, seed, root)
                runs.append(Run(name, data, seed, changes.epochs, values, digest(values, root)))
    return runs


def listing(root: Path, presets: dict[str, Preset], runs: list[Run]) -> str:
    """A line for each preset: its groups, how many of its runs have finished, its title."""
    width = max(map(len, presets))
    lines = []
    for name, preset in presets.items():
        own = [run for run in runs if run.preset == name]
        done = sum(finished(root, run) for run in own)
        groups = ", ".join(dict.fromkeys(run.data for run in own))
        lines.append(f"{name:{width}}  {done} of {len(own)} finished  {groups:24}  {preset.title}")
    return "\n".join(lines)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected 1 or more")
    return number


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m study", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", help="names in studies/; none for all")
    parser.add_argument("--list", action="store_true", help="name the presets and what of them has finished")
    parser.add_argument("--data", nargs="+", choices=get_args(DataGroup), help="instead of each preset's own groups")
    parser.add_argument("--seeds", type=positive, default=1, help="so many, from params.yaml's on")
    parser.add_argument("--epochs", type=positive, help="a trial: at most so many a phase; the table says so")
    parser.add_argument("--weights", help="of the published backbones: none, imagenet or a file")
    parser.add_argument("--jobs", type=positive, default=max(1, (os.cpu_count() or 1) // CORES_A_JOB), help="at a time")
    parser.add_argument(
        "-S", dest="set", metavar="KEY=VALUE", action="append", default=[], help="a param, over every preset's"
    )
    return parser.parse_args(arguments)


def interrupt(*_) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    with plain_errors():
        try:
            study(ROOT, parse())
        except KeyboardInterrupt:
            sys.exit("interrupted; the same command goes on where it was")
