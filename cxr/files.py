"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """The temporary name under which to write what will be `path`.

    When the block ends it is on the disk and takes its name; when the block fails, it is removed and `path` stays as it
    was.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # what is written next must not outlive it in a power cut
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, *parts: bytes | np.ndarray) -> None:
    with writing(path) as part, open(part, "wb") as file:
        file.writelines(parts)
