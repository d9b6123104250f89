"""One retraining at a time: two `dvc repro` in one repository stop each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cxr.errors import CxrError


@contextmanager
def exclusive(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file; the kernel frees it when its holder ends, however it ends.

    Raises CxrError that names the holder after `wait_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path, timeout=wait_s, fallback_to_soft=False).acquire()
    except Timeout:
        holder = path.read_text() or "(unknown)"
        raise CxrError(f"{path}: process {holder} is still retraining after {wait_s:g} s; try again later") from None
    with held:
        path.write_text(str(os.getpid()))  # in place, since the lock is on this very file
        yield
