"""Child processes in a group of their own, so that ending one ends whatever it has started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

GRACE_S = 10  # between SIGTERM and SIGKILL; Prefect itself kills a cancelled run after 30 s


def stage_environment() -> dict[str, str]:
    """Ours, with this Python first on the PATH since stages call `python`, and with plain lines for the log: no
    colours, no block buffering, a progress bar's state every 10 s."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    plain = {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "10", "COLUMNS": "140"}
    return {**os.environ, **plain, "PATH": path}


def start_group(command: Sequence[str], cwd: Path, env: Mapping[str, str], **options) -> subprocess.Popen:
    """Start a command as the leader of a new process group; `options` go to Popen."""
    return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **options)


def run_group(command: Sequence[str], cwd: Path, env: Mapping[str, str], log: Callable[[str], None]) -> int:
    """Run a command, hand each line of its output to `log` as it comes, and return the exit status.

    However this ends, by an exception in `log` or by a signal's, no process of the group survives it.
    """
    process = start_group(
        command, cwd, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1
    )
    try:
        for line in process.stdout or ():
            if line.strip():
                log(line.rstrip())
        return process.wait()
    finally:
        end_group(process)


def end_group(process: subprocess.Popen, grace_s: float = GRACE_S) -> None:
    """End every process of the group: SIGTERM, and SIGKILL to what is left after `grace_s`."""
    _signal_group(process.pid, signal.SIGTERM)
    _wait_while(lambda: any(map(_lives, _group(process.pid))), grace_s)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def end_family(process: subprocess.Popen) -> None:
    """End every descendant, then the group.

    Prefect's worker gives each flow run a session of its own, and at its own end kills the run before that has ended
    its children and said how it ended. So the runs are ended first, with time for a `run_group` of theirs.
    """
    with suppress(psutil.NoSuchProcess):
        descendants = psutil.Process(process.pid).children(recursive=True)
        _signal(descendants, signal.SIGTERM)
        _wait_while(lambda: any(map(_lives, descendants)), 2 * GRACE_S)
        _signal(descendants, signal.SIGKILL)
    end_group(process)


def _signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _group(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                members.append(process)
    return members


def _lives(process: psutil.Process) -> bool:
    """A dead process that nobody has reaped, as in a container without an init, does not live."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_while(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        time.sleep(0.1)
