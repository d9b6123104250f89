"""The results of a folder as Markdown."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.gpu.metrics import measure
from benchmarks.gpu.results import read_results
from cxr.errors import CxrError


def print_table(out: Path) -> None:
    """Raises CxrError where there is no result yet."""
    results = read_results(out, sorted(path.stem for path in out.glob("*.json") if path.name != "settings.json"))
    if not results:
        raise CxrError(f"{out}: no results here; `python -m benchmarks.gpu --data FOLDER --out {out}` makes them")
    if found := results.get("facts"):
        print("; ".join(f"{name} {value}" for name, value in found.items() if name != "longest_piece_s"))
    matrix = results.get("matrix", {"best": {}})
    for precision, best in matrix["best"].items():
        each = ", ".join(f"{side}: {rate:.4g}" for side, rate in matrix["tflops"][precision].items())
        print(f"\nMatrix product in {precision}: {best:.4g} TFLOP/s at best (by side: {each})")
    rows = [speed_row(found, matrix["best"]) for name, found in results.items() if name.startswith("speed-")]
    print_rows(
        "network (parameters)|precision|batch|GFLOP an image|images/s, constant batch|images/s, real input"
        "|share|TFLOP/s|of the matrix rate",
        rows,
    )
    groups: dict[str, list[dict]] = {}
    for name, found in results.items():
        if name.startswith("study-"):
            groups.setdefault(found["preset"], []).append(found)
    print_rows(
        "preset|task|parameters|seeds|epochs|s an epoch|images/s|accuracy|AUROC|seeds averaged|published",
        map(study_row, groups.values()),
    )
    for path in sorted(out.glob("*.failed.txt")):
        print(f"\nfailed: {path.name.removesuffix('.failed.txt')}: {path.read_text().splitlines()[-1]}")


def print_rows(head: str, rows: Iterable[str]) -> None:
    names = head.split("|")
    print(f"\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in rows:
        print(f"| {row} |")


def speed_row(found: dict, best: dict[str, float]) -> str:
    rate = best.get(found["precision"])
    cells = (
        f"{found['network']} ({found['parameters']:,})",
        found["precision"],
        f"{found['batch_size']}",
        f"{found['gflop_per_image']:.3g}",
        f"{found['constant_images_per_s']:,.0f}",
        f"{found['real_images_per_s']:,.0f}",
        f"{found['share_of_constant']:.3f}",
        f"{found['tflops']:.3g}",
        f"{found['tflops'] / rate:.1%}" if rate else "",
    )
    return " | ".join(cells)


def study_row(runs: list[dict]) -> str:
    """`runs` differ by their seeds."""
    first = runs[0]
    averaged = measure(np.array(first["y_true"]), np.mean([run["probabilities"] for run in runs], axis=0))
    cells = (
        first["preset"],
        f"{first['task']}, {first['precision']}",
        f"{first['parameters']:,}",
        ", ".join(str(run["seed"]) for run in runs),
        ", ".join(str(run["epochs"]) for run in runs),
        f"{np.median([run['seconds_per_epoch'] for run in runs]):.2f}",
        f"{np.median([run['images_per_s'] for run in runs]):,.0f}",
        spread([run["accuracy"] for run in runs]),
        spread([run["auroc"] for run in runs]),
        f"{averaged['accuracy']:.4f}, {averaged['auroc']:.4f}",
        ", ".join(f"{name} {value}" for name, value in first["published"].items()),
    )
    return " | ".join(cells)


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")
