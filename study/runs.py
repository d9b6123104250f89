"""One run of the study: a clone of the repository with params.yaml of its own, `dvc repro evaluate` in it, and what it
measured brought back, as a DVC experiment and as a record.

The run uses a clone and not `dvc exp run --temp`, which loses its folder when it is killed. In a clone, the training
goes on after its last whole epoch, DVC's cache is shared, and any number of runs go on at once. The clone's dvc.lock
begins empty: DVC cannot save an experiment if dvc.lock names outputs that the cache does not have, and the study does
not run all stages.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
import yaml
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

from cxr.errors import CxrError, last_error
from cxr.files import write_json, write_text
from cxr.params import Params
from cxr.processes import end_group, stage_environment, start_group
from cxr.raw.origins import files_of, is_remote
from study.presets import DataGroup

TARGET = "evaluate"
NOT_RUN = {"explore", "gate", "package"}  # stages of dvc.yaml: a study measures and never judges
UNUSED = {"gate", "package", "monitor", "flows"}  # sections of params.yaml
RECORDS = Path("reports/study/runs")
WORKSPACES = Path(".dvc/tmp/study")
MEASURED = Path("reports/study/measured")  # within a workspace, written by `study.measure`
# Keras's line at the end of an epoch: steps, seconds, and seconds or milliseconds a step
EPOCH = re.compile(
    r"^(?P<steps>\d+)/(?P=steps) - (?P<seconds>\d+)s - (?P<step>\d+)(?P<unit>s|ms|us)/step", re.MULTILINE
)


@dataclass(frozen=True)
class Run:
    """One training. `trial_epochs`: what --epochs asked for. `values`: its whole params.yaml. `digest`: of all that
    its result depends on but the seed and the images."""

    preset: str
    data: DataGroup
    seed: int
    trial_epochs: int | None
    values: dict
    digest: str

    @property
    def name(self) -> str:
        """Of the experiment. A trial has its own, lest it take the place of a whole run."""
        trial = "" if self.trial_epochs is None else f"-e{self.trial_epochs}"
        return f"study-{self.preset}-{self.data}-s{self.seed}{trial}"


@dataclass(frozen=True)
class Record:
    """A finished run: `run.json` in its folder of reports/study/runs.

    `experiment`: the commit of the DVC experiment. `measures`: `slices` of reports/metrics.json. `seconds_per_epoch`:
    the median, None where DVC's cache had the trained model. `latency_ms`: one image in OpenVINO, the median.
    """

    name: str
    preset: str
    data: DataGroup
    seed: int
    trial_epochs: int | None
    digest: str
    values: dict
    experiment: str
    measures: dict
    parameters: int
    epochs_run: int
    seconds_per_epoch: float | None
    latency_ms: float


def digest(values: dict, root: Path) -> str:
    """Of the params that count, without the seed, and of the code that dvc.yaml names for the stages that run."""
    counting = Params.model_validate(values).model_dump_json(exclude={"seed", *UNUSED})
    found = hashlib.sha256(counting.encode())
    for path in code_files(root):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def code_files(root: Path) -> list[Path]:
    """The files of this repository that the stages up to evaluate name as their dependencies, and dvc.yaml."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    named = {
        root / dep
        for name, stage in stages.items()
        if name not in NOT_RUN
        for dep in stage.get("do", stage)["deps"]
        if dep.startswith(("cxr/", "stages/"))
    }
    files = {file for path in named for file in ([path] if path.is_file() else path.rglob("*"))}
    return [*sorted(file for file in files if file.suffix in (".py", ".json")), root / "dvc.yaml"]


def read_record(root: Path, name: str) -> Record | None:
    """None where no run of that name has finished. Raises CxrError where its record is no record."""
    path = root / RECORDS / name / "run.json"
    if not path.exists():
        return None
    try:
        return Record(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise CxrError(f"{path}: not the record of a run ({error}); delete {path.parent} and run again") from None


def read_records(root: Path) -> list[Record]:
    folders = sorted(path.parent.name for path in (root / RECORDS).glob("*/run.json"))
    return [record for name in folders if (record := read_record(root, name))]


def finished(root: Path, run: Run) -> bool:
    """Whether this very run, with these params and this code, has its record."""
    record = read_record(root, run.name)
    return record is not None and record.digest == run.digest


def run_all(root: Path, runs: Iterable[Run], jobs: int, say: Callable[[str], None]) -> dict[str, str]:
    """Make every run that has not finished, `jobs` at a time; returns a sentence for each that failed.

    However this ends, no process of a run survives it.
    """
    waiting = []
    for run in runs:
        if finished(root, run):
            say(f"{run.name}: finished before")
        else:
            waiting.append(run)
    failed: dict[str, str] = {}
    going: dict[str, tuple[Run, subprocess.Popen, float]] = {}
    try:
        while waiting or going:
            while waiting and len(going) < jobs:
                run = waiting.pop(0)
                goes_on = prepare(root, run)
                going[run.name] = run, start(root, run), time.monotonic()
                say(f"{run.name}: {'goes on' if goes_on else 'started'}, log {log_path(root, run)}")
            time.sleep(0.2)
            for name, (run, process, since) in list(going.items()):
                if process.poll() is None:
                    continue
                del going[name]
                minutes = (time.monotonic() - since) / 60
                if process.returncode == 0:
                    keep(root, run)
                    say(f"{name}: finished after {minutes:.1f} min")
                else:
                    failed[name] = reason(log_path(root, run), process.returncode)
                    say(f"{name}: failed after {minutes:.1f} min: {failed[name]}")
    finally:
        for _, process, _ in going.values():
            end_group(process)
    return failed


def workspace(root: Path, run: Run) -> Path:
    return root / WORKSPACES / run.name


def log_path(root: Path, run: Run) -> Path:
    return root / WORKSPACES / f"{run.name}.log"


def prepare(root: Path, run: Run) -> bool:
    """Make the run's workspace, or leave it where an interrupted run of the same params and code has one.

    Returns whether it was left. Raises CxrError where a process still works there.
    """
    folder = workspace(root, run)
    refuse_company(folder)
    mark = Path(".dvc/tmp/digest")
    if (folder / mark).exists() and (folder / mark).read_text() == run.digest:
        return True
    part = folder.with_name(f"{folder.name}.part")
    for old in (folder, part):
        shutil.rmtree(old, ignore_errors=True)
    log_path(root, run).unlink(missing_ok=True)
    clone(root, part)
    with modify_yaml(part / "params.yaml") as written:
        replace(written, run.values)
    bring_downloads(root, part, run.values)
    (part / mark).parent.mkdir(parents=True, exist_ok=True)
    write_text(part / mark, run.digest)
    part.rename(folder)
    return False


def refuse_company(folder: Path) -> None:
    """A study that was killed outright (SIGKILL) has left its runs alive."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder):
            raise CxrError(
                f"{folder}: process {process.pid} still works there; wait for its end or end it, and run again"
            )


def clone(root: Path, folder: Path) -> None:
    """The repository as its tracked files stand, changes that are not committed included, as `dvc exp run` takes it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    head = git(root, "rev-parse", "--verify", "HEAD").decode().strip()
    git(root, "clone", "--quiet", "--no-checkout", str(root), str(folder))
    git(folder, "checkout", "--quiet", "--detach", head)
    changes = git(root, "diff-index", "--patch", "--binary", "HEAD")
    if changes:
        git(folder, "apply", "--whitespace=nowarn", "-", stdin=changes)
    (folder / "dvc.lock").unlink(missing_ok=True)
    with Repo(str(root)) as repo:
        cache = repo.cache.local.path
    write_text(folder / ".dvc/config.local", f"[cache]\n    dir = {cache}\n")


def git(root: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, input=stdin, capture_output=True)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise CxrError(f"{root}: `git {arguments[0]}` ended with status {done.returncode}: {said}")
    return done.stdout


def replace(written: dict, values: dict) -> None:
    """Make `written` equal to `values`, keeping the comments of what stays."""
    for key in [key for key in written if key not in values]:
        del written[key]
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(written.get(key), dict):
            replace(written[key], value)
        elif key not in written or written[key] != value:
            written[key] = value


def bring_downloads(root: Path, folder: Path, values: dict) -> None:
    """Hard links to what the repository has downloaded: it is not in DVC's cache, and to fetch it may take hours."""
    for name, source in Params.model_validate(values).sources.items():
        files, digests = Path("data/raw", name, "files"), Path("data/checksums", f"{name}.sha256")
        if (
            any(is_remote(file.url) for file in files_of(source))
            and (root / files).is_dir()
            and (root / digests).exists()
        ):
            shutil.copytree(root / files, folder / files, symlinks=True, copy_function=os.link)
            shutil.copyfile(root / digests, folder / digests)


def start(root: Path, run: Run) -> subprocess.Popen:
    """Reproduce, measure, and save the experiment, in a process group of its own; what is said goes to the log."""
    steps = [
        ["dvc", "repro", TARGET],
        ["study.measure", str(MEASURED)],
        ["dvc", "exp", "save", "--force", "--name", run.name, TARGET],
    ]
    line = " && ".join(shlex.join([sys.executable, "-m", *step]) for step in steps)
    with open(log_path(root, run), "a") as log:
        return start_group(
            ["sh", "-c", line], workspace(root, run), stage_environment(),
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def reason(log: Path, status: int) -> str:
    """The last sentence of a failed run's log."""
    return last_error(log.read_text(errors="replace").splitlines()) or f"exit status {status}; its log is {log}"


def keep(root: Path, run: Run) -> None:
    """Bring the experiment and what was measured into the repository, whole or not at all, and clear the workspace."""
    folder, log = workspace(root, run), log_path(root, run)
    experiment = fetch_experiment(root, folder, run.name)
    measured = json.loads((folder / MEASURED / "measured.json").read_text())
    record = Record(
        **vars(run),
        name=run.name,
        experiment=experiment,
        seconds_per_epoch=seconds_per_epoch(log.read_text(errors="replace")),
        **measured,
    )
    write_json(folder / MEASURED / "run.json", asdict(record))
    (folder / MEASURED / "measured.json").unlink()
    shutil.move(log, folder / MEASURED / "log.txt")
    kept = root / RECORDS / run.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(kept, ignore_errors=True)
    (folder / MEASURED).rename(kept)
    shutil.rmtree(folder)


def fetch_experiment(root: Path, folder: Path, name: str) -> str:
    """Bring the experiment's commit into `root`, in place of an earlier one of that name, and return it."""
    baseline = git(folder, "rev-parse", "HEAD").decode().strip()
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    git(root, "fetch", "--quiet", str(folder), f"+{ref}:{ref}")
    return git(root, "rev-parse", ref).decode().strip()


def seconds_per_epoch(log: str) -> float | None:
    """The median over the epochs that Keras reports in `log`, from the milliseconds a step where it gives them."""
    seconds = [
        int(epoch["seconds"])
        if epoch["unit"] == "s"
        else int(epoch["steps"]) * int(epoch["step"]) * {"ms": 1e-3, "us": 1e-6}[epoch["unit"]]
        for epoch in EPOCH.finditer(log)
    ]
    return round(median(seconds), 2) if seconds else None
