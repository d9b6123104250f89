"""Errors for the person who reads them: where, what was found, what was expected, what to do."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class CxrError(Exception):
    """A fault that a person can mend; its text is one whole sentence."""


class ParamsError(CxrError):
    """params.yaml does not fit the schema."""


class SourceError(CxrError):
    """An origin, archive or table of a source cannot be used."""


class ImageError(CxrError):
    """One image cannot be read; the run goes on without it and keeps the reason."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn expected faults into one line on stderr and exit status 1; CXR_TRACEBACK=1 shows the traceback."""
    try:
        yield
    except (CxrError, OSError) as error:
        if os.environ.get("CXR_TRACEBACK"):
            raise
        sys.exit(f"error: {_sentence(error)}")


def last_error(lines: list[str]) -> str | None:
    """The last sentence after `error:`, as our stages end, or else after `ERROR:`, as DVC does."""
    for marker in ("error: ", "ERROR: "):
        found = [line.removeprefix(marker) for line in lines if line.startswith(marker)]
        if found:
            return found[-1]
    return None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or f"below {os.getcwd()} or its temporary folder"
        return f"{where}: no space is left on the disk; free some and run again (nothing half-written was kept)"
    return str(error)
