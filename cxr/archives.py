"""Walk the files of a source, looking through zip and tar archives without unpacking them."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from cxr.errors import SourceError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Member:
    """One file. `path` is relative to the source, archives looked through; `read` is valid until the next one."""

    path: str
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def walk(root: Path) -> Iterator[Member]:
    """Every file below `root`, in the order of names; the files of an archive in the archive's order.

    Raises SourceError for an archive that cannot be read to its end.
    """
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        folder = path.parent.relative_to(root)
        if is_archive(path):
            for member in _walk_archive(path):
                yield Member(str(folder / _inside(member.path, path)), partial(_read_named, path, member.read))
        else:
            yield Member(str(folder / path.name), path.read_bytes)


def _inside(name: str, archive: Path) -> PurePosixPath:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise SourceError(
            f"{archive}: member {name!r} points outside the archive; fetch the archive from its publisher"
        )
    return inside


def _walk_archive(path: Path) -> Iterator[Member]:
    with _named(path):
        yield from _walk_zip(path) if path.suffix.lower() == ".zip" else _walk_tar(path)


def _read_named(path: Path, read: Callable[[], bytes]) -> bytes:
    with _named(path):
        return read()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which archive it is that cannot be read."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise SourceError(f"{path}: not a whole archive ({error}); fetch it again") from error


def _walk_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield Member(info.filename, lambda info=info: archive.read(info))


def _walk_tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r|*") as archive:  # a stream: each member is read once, in passing
        for info in archive:
            if info.isfile():
                yield Member(info.name, lambda info=info: _read_member(archive, info))


def _read_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None  # `isfile` was checked
    return file.read()
