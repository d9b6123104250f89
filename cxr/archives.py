"""Walk the files of a source, looking through zip and tar archives without unpacking them."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from cxr.errors import SourceError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Member:
    """One file of a source. `read` is cheap in the order of `Tree.walk`, and may be slow or fail later.

    `path`: relative to the source, archives looked through. `file`: what holds it on disk, itself or its archive.
    """

    path: str
    file: Path
    read: Callable[[], bytes] = field(repr=False)

    @property
    def is_loose(self) -> bool:
        return not is_archive(self.file)


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


class Tree:
    """The files below `root`, archives looked through.

    `listed` gives the member names of archives that need not be read again, by their path relative to `root`.
    """

    def __init__(self, root: Path, listed: Mapping[str, Sequence[str]] | None = None) -> None:
        self.root = root
        self.listed = listed or {}

    def files(self) -> list[Path]:
        """Every file on disk, in the order of names."""
        return sorted(Path(folder, name) for folder, _, names in os.walk(self.root, followlinks=True) for name in names)

    def loose(self) -> Iterator[Member]:
        """The files that are no archives."""
        for path in self.files():
            if not is_archive(path):
                yield Member(str(path.relative_to(self.root)), path, path.read_bytes)

    def walk(self) -> Iterator[Member]:
        """Every file, in the order of names; the files of an archive in the archive's order.

        Raises SourceError for an archive that cannot be read to its end.
        """
        for path in self.files():
            folder = path.parent.relative_to(self.root)
            if not is_archive(path):
                yield Member(str(folder / path.name), path, path.read_bytes)
                continue
            names = self.listed.get(str(path.relative_to(self.root)))
            if names is None:
                for name, read in _walk_archive(path):
                    yield Member(str(folder / _inside(name, path)), path, partial(_read_named, path, read))
            else:
                for name in names:
                    yield Member(str(folder / _inside(name, path)), path, partial(_read_again, path, name))


def _inside(name: str, archive: Path) -> PurePosixPath:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts:
        raise SourceError(
            f"{archive}: member {name!r} points outside the archive; fetch the archive from its publisher"
        )
    return inside


def _walk_archive(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with _named(path):
        yield from _walk_zip(path) if path.suffix.lower() == ".zip" else _walk_tar(path)


def _read_again(path: Path, name: str) -> bytes:
    """Read one member of an archive that is not being walked: from its start, if it is a tar."""
    for found, read in _walk_archive(path):
        if found == name:
            return _read_named(path, read)
    raise SourceError(f"{path}: member {name!r} is gone; run again")


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


def _walk_zip(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, partial(archive.read, info)


def _walk_tar(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    with tarfile.open(path, "r|*") as archive:  # a stream: each member is read once, in passing
        for info in archive:
            if info.isfile():
                yield info.name, partial(_read_member, archive, info)


def _read_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None  # `isfile` was checked
    return file.read()
