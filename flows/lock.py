"""One retraining at a time: two `dvc repro` in one repository stop each other."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr.errors import CxrError


@contextmanager
def exclusive(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file; the kernel frees it when its holder ends, however it ends.

    Raises CxrError that names the holder after `wait_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + wait_s
        while not _try(file):
            if time.monotonic() >= deadline:
                raise CxrError(f"{path}: process {_holder(file)} has been retraining for over {wait_s:g} s; try later")
            time.sleep(min(0.2, wait_s))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _try(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file) -> str:
    file.seek(0)
    return file.read() or "(unknown)"
