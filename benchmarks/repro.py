"""Time `dvc repro` in fresh clones: stage by stage, in all, a second time; what it measured; whether two clones agree.

`python -m benchmarks.repro` runs the demo in two clones; `python -m benchmarks.repro --real FOLDER` takes the sources
from FOLDER/kermany, FOLDER/nih and FOLDER/covid, in one. A clone holds what is committed and nothing else.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("kermany", "nih", "covid")
SAME = ("data/manifest.parquet", "reports/metrics.json", "reports/assembly.json")


def clone(folder: Path, real: Path | None) -> Path:
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, folder], check=True)
    if real:
        params = folder / "params.yaml"
        text = params.read_text()
        for source in SOURCES:
            entry = f"    reader: {source}\n    origin: "
            text = text.replace(f"{entry}demo", f"{entry}{real / source}")
        params.write_text(text)
    return folder


def stages(folder: Path) -> list[str]:
    """Every stage, in an order in which they can run: that of dvc.yaml."""
    command = ["dvc", "stage", "list", "--name-only"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()


def timed(folder: Path, *command: str) -> tuple[float, float, int]:
    """Wall seconds, peak memory of the largest process in MB, and exit status."""
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return time.monotonic() - start, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def measures(path: Path) -> str:
    """What `evaluate` measured, slice by slice, with 95 % intervals."""
    rows = ["| slice of test | images | accuracy | balanced accuracy | AUROC |", "| --- | ---: | --- | --- | --- |"]
    for name, found in json.loads(path.read_text())["slices"].items():
        cells = [
            f"{found[metric]:.3f} ({' to '.join(f'{bound:.3f}' for bound in found['interval_95'][metric])})"
            if found[metric] is not None
            else "undefined"
            for metric in ("accuracy", "balanced_accuracy", "auroc_macro")
        ]
        rows.append(f"| {name} | {found['n']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of the real sources")
    real = parser.parse_args().real
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    with tempfile.TemporaryDirectory() as scratch:
        first = clone(Path(scratch, "first"), real and real.resolve())
        print("| stage | seconds | peak MB | status |\n| --- | ---: | ---: | ---: |")
        for stage in stages(first):
            seconds, memory, status = timed(first, "dvc", "repro", "--single-item", stage)
            print(f"| {stage} | {seconds:.1f} | {memory:.0f} | {status} |", flush=True)
        seconds, _, status = timed(first, "dvc", "repro")
        print(f"\n`dvc repro` with nothing to do: {seconds:.1f} s, status {status}", flush=True)
        print("\n" + measures(first / "reports/metrics.json"))
        if not real:
            second = clone(Path(scratch, "second"), None)
            seconds, _, status = timed(second, "dvc", "repro")
            print(f"`dvc repro` in a fresh clone: {seconds:.1f} s, status {status}")
            for name in SAME:
                digests = {hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (first, second)}
                print(f"{name}: {'the same bytes' if len(digests) == 1 else 'DIFFERENT'} in both clones")


if __name__ == "__main__":
    main()
