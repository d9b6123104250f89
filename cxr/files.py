# An array of NumPy is a buffer, which its types do not say.
# pyright: reportArgumentType=false
"""Files that are whole or not there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """The temporary name under which to write what will be `path`.

    If the block succeeds, the file is flushed to the disk and renamed to `path`. If it fails, the file is removed and
    `path` stays as it was.
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


def write_text(path: Path, text: str) -> None:
    """In UTF-8, the ends of lines as they are in `text`."""
    write_whole(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """In the form of every JSON file of the project, which a person reads in a diff."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """The columns of `table` without its index, in UTF-8; `float_format` such as `%.4f`."""
    write_text(path, table.to_csv(index=False, lineterminator="\n", float_format=float_format))
