"""Bring one source to data/raw/<source> unchanged: draw the demo, or copy a local directory or archive."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

from cxr.archives import ARCHIVE_SUFFIXES, is_archive
from cxr.demo import draw_source
from cxr.errors import SourceError, plain_errors
from cxr.params import DemoParams, SourceName, load_params

FICLONE = 0x40049409  # ioctl of Linux: share the file's blocks, copy on write


def acquire(source: SourceName, origin: str, demo: DemoParams, seed: int, raw: Path) -> None:
    """Fill `raw` from `origin`; nothing is left there when that fails.

    Files are reflinked where the file system can and copied elsewhere. Never hard-linked: DVC takes write permission
    from what it caches, and through a hard link it would take it from the origin.
    """
    part = raw.with_name(raw.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if origin == "demo":
            draw_source(source, part, getattr(demo, source), seed)
        else:
            copy_origin(source, Path(origin).expanduser(), part)
        shutil.rmtree(raw, ignore_errors=True)
        part.rename(raw)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def copy_origin(source: str, origin: Path, destination: Path) -> None:
    """Copy a directory's contents or one archive. Raises SourceError where `origin` is neither."""
    where = f"sources.{source}.origin"
    if origin.is_dir():
        files = [Path(folder, name) for folder, _, names in os.walk(origin, followlinks=True) for name in names]
        if not files:
            raise SourceError(f"{where}: {origin} holds no file; expected the source as published")
        for file in files:
            copy = destination / file.relative_to(origin)
            copy.parent.mkdir(parents=True, exist_ok=True)
            clone(file, copy)
    elif origin.is_file() and is_archive(origin):
        clone(origin, destination / origin.name)
    elif origin.exists():
        raise SourceError(f"{where}: {origin} is no directory and none of {', '.join(ARCHIVE_SUFFIXES)}")
    else:
        raise SourceError(f"{where}: {origin} does not exist; give `demo`, or a path to a directory or an archive")


def clone(origin: Path, destination: Path) -> None:
    """Reflink or copy the contents of one file, not its permissions."""
    with open(origin, "rb") as read, open(destination, "wb") as write:
        try:
            fcntl.ioctl(write.fileno(), FICLONE, read.fileno())
        except OSError:  # this file system cannot, or the origin lies on another
            shutil.copyfileobj(read, write, 1 << 20)


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        name: SourceName = sys.argv[1]  # type: ignore[assignment]  # dvc.yaml names the sources
        acquire(name, str(p.sources[name].origin), p.demo, p.seed, Path("data/raw") / name)
