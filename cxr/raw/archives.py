# The types of tarfile and gzip leave out what their documentation names.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Walk the files of a source, looking through zip and tar archives without unpacking them.

Nothing is written, no link in an archive is followed, and only one file at a time is in memory, whatever an archive
claims. A file that cannot be used is still listed, with the reason. An archive that cannot be read to its end, or that
inflates out of all proportion, ends the walk.

Python's zipfile and tarfile do the reading. The layer above them is our own, because fsspec's archive file systems read
a whole tar before they give its first file, follow its links, keep only one of several files with the same name, and
set no limit to what a file claims or inflates to.
"""

import errno
import gzip
import io
import math
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from cxr.errors import ImageError, SourceError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

MAX_FILE_BYTES = 256_000_000  # of one file: twice the largest radiograph that is decoded, and any table of labels
MAX_MEMBERS = 2_000_000  # of one archive: five times the images of the largest public set
MAX_DIRECTORY_BYTES = 128_000_000  # of a zip: Python takes ten times as much memory for it
MAX_HEADER_BYTES = 16_384  # of what extends a tar header, such as a long name
MAX_RATIO, BOMB_BYTES = 200, 64_000_000  # packed radiographs shrink to a tenth; more bytes than this must keep to it
MAX_SPARSE_WORK = 10_000_000_000  # bytes times pieces: tarfile copies what it has of a sparse file for each piece
MAX_NAME = 1000  # characters; a file system takes 255 a folder
CHUNK = 1 << 20

LINK = "a link; only what is stored as a file is read"
SPECIAL = "a device, pipe or socket, not a file"
# what zipfile, tarfile and gzip raise on damaged bytes
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, ValueError, LookupError,
    OverflowError, RecursionError, NotImplementedError,
)  # fmt: skip
EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1  # of a zip's member
INFLATION = 1032  # times, the most that deflate reaches
GZIP_START = b"\x1f\x8b"

Entry = tuple[str, str, Callable[[], bytes]]  # name within the archive, fault, read


@dataclass(frozen=True)
class Member:
    """One file of a source.

    `path`: relative to the source, archives looked through; UTF-8 without control characters, and no other member's.
    `file`: what holds it on disk, itself or its archive. `fault`: why it cannot be read, empty if nothing is known; it
    quotes no name. `read` is cheap in the order of `Tree.walk`, and may be slow or fail later; it raises ImageError for
    this file and SourceError for its archive.
    """

    path: str
    file: Path
    read: Callable[[], bytes] = field(repr=False)
    fault: str = ""

    @property
    def is_loose(self) -> bool:
        """Whether `file` is what `read` gives."""
        return not self.fault and not is_archive(self.file)


def is_archive(path: PurePath) -> bool:
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


class Tree:
    """The files below `root`, archives looked through.

    `listed`: `path` and `fault` of the members of archives that need not be read again, by the archive's path relative
    to `root`. `walked`: the same for the tars of this walk, once it has ended; tars in which a member has the path of
    another file are left out.
    """

    def __init__(self, root: Path, listed: Mapping[str, Sequence[tuple[str, str]]] | None = None) -> None:
        self.root = root
        self.listed = listed or {}
        self.walked: dict[str, list[tuple[str, str]]] = {}

    def files(self) -> list[Path]:
        """Every file on disk, in the order of names.

        Links are followed. A folder that is reached again, from inside itself perhaps, is not entered twice: the second
        path stands here as if it were a file.
        """
        found = []
        entered = set()
        waiting = [(self.root, True)]
        while waiting:
            path, is_folder = waiting.pop()
            if is_folder and (folder := _identity(path)) not in entered:
                entered.add(folder)
                with os.scandir(path) as entries:
                    inside = sorted(((entry.name, _is_folder(entry)) for entry in entries), reverse=True)
                waiting += [(path / name, is_dir) for name, is_dir in inside]
            else:
                found.append(path)
        return found

    def loose(self) -> Iterator[Member]:
        """The files that are no archives."""
        for file in self.files():
            if not is_archive(file):
                yield self._loose(file)

    def walk(self) -> Iterator[Member]:
        """Every file, in the order of names; the files of an archive in the archive's order.

        Of files with the same path the first is read. Raises SourceError for an archive that cannot be read to its end.
        """
        times: dict[str, int] = {}
        tars: dict[str, list[tuple[str, str]]] = {}
        bound: set[Path] = set()  # archives of whose members some depend on other files
        for member in self._members():
            path = member.path
            while path in times:
                times[member.path] += 1
                path = f" ({times[member.path]})".join(os.path.splitext(member.path))
            times[path] = 1
            if path != member.path:
                bound.add(member.file)
                member = _member(path, member.file, "another file before it has the same path", member.read)
            if is_archive(member.file) and member.file.suffix.lower() != ".zip":  # a zip has a list of its own
                tars.setdefault(str(member.file.relative_to(self.root)), []).append((member.path, member.fault))
            yield member
        self.walked = {tar: members for tar, members in tars.items() if self.root / tar not in bound}

    def anytime(self, member: Member) -> Member:
        """The member, to be read when a walk has left it: slowly if it lies in a tar, which is read from its start."""
        if member.fault or not is_archive(member.file):
            return member
        folder = member.file.relative_to(self.root).parent
        return replace(member, read=partial(_read_again, member.file, folder, member.path))

    def _members(self) -> Iterator[Member]:
        for file in self.files():
            place = file.relative_to(self.root)
            if not is_archive(file):
                yield self._loose(file)
            elif str(place) in self.listed:
                for path, fault in self.listed[str(place)]:
                    yield _member(path, file, fault, partial(_read_again, file, place.parent, path))
            else:
                yield from _walk_archive(file, place.parent)

    def _loose(self, file: Path) -> Member:
        path = _readable(str(file.relative_to(self.root)))
        return _member(path, file, _fault_on_disk(file, MAX_FILE_BYTES), file.read_bytes)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; as a file it gets its reason
        return False


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _member(path: str, file: Path, fault: str, read: Callable[[], bytes]) -> Member:
    return Member(path, file, partial(_refuse, fault) if fault else read, fault)


def _refuse(fault: str) -> bytes:
    raise ImageError(fault)


def _readable(name: str) -> str:
    """A name that tables and terminals can show: other bytes than UTF-8 and control characters become `\\xe9`."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), name)


def _fault_on_disk(file: Path, most: float) -> str:
    try:
        found = file.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return "a link that leads nowhere"
        raise
    if stat.S_ISDIR(found.st_mode):
        return "a link to a folder that has another path, under which it is read"
    if not stat.S_ISREG(found.st_mode):
        return SPECIAL  # opening a pipe would wait for its other end
    return _too_large(found.st_size, most)


def _too_large(size: int, most: float = MAX_FILE_BYTES) -> str:
    return f"{size} bytes; more than {most} are not read" if size > most else ""


def _out_of_proportion(file: Path | str, why: str) -> SourceError:
    return SourceError(f"{file}: {why}; that is no archive of radiographs, fetch it from its publisher")


def _is_bomb(given: int, packed: int) -> bool:
    return given > max(BOMB_BYTES, MAX_RATIO * packed)


def _walk_archive(file: Path, folder: Path) -> Iterator[Member]:
    """The members of an archive that lies in `folder` of the source."""
    with _named(file):
        if fault := _fault_on_disk(file, math.inf):
            raise OSError(fault)
        with open(file, "rb") as stream:
            start = stream.read(64).lstrip()
        if start.startswith(b"<"):
            raise OSError("a web page, maybe one that asks for a login")
        walk = _walk_zip if file.suffix.lower() == ".zip" or start.startswith(b"PK") else _walk_tar
        for number, (name, fault, read) in enumerate(walk(file)):
            if number == MAX_MEMBERS:
                raise _out_of_proportion(file, f"it has more than {MAX_MEMBERS} members")
            name = name.replace("\\", "/")  # as old Windows programs separate folders
            inside = PurePosixPath(name)
            if inside.is_absolute() or ".." in inside.parts or PureWindowsPath(name).drive:
                fault = fault or "its name points outside the archive"
            elif len(name) > MAX_NAME:
                inside, fault = PurePosixPath(name[:MAX_NAME]), fault or f"a name of {len(name)} characters"
            yield _member(_readable(str(folder / inside)), file, fault, partial(_read_named, file, read))


def _read_again(file: Path, folder: Path, path: str) -> bytes:
    """Read one member of an archive that is not being walked: from its start, if it is a tar."""
    for member in _walk_archive(file, folder):
        if member.path == path:
            return member.read()
    raise SourceError(f"{file}: {path!r} is no longer in it; run again")


def _read_named(file: Path, read: Callable[[], bytes]) -> bytes:
    with _named(file):
        return read()


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Say which archive it is that cannot be read, and what it seems to be."""
    try:
        yield
    except DAMAGE as error:
        found = str(error) or "it ends before its last member"  # as of EOFError, which says nothing
        raise SourceError(f"{file}: not a whole archive ({found}); fetch it again") from error


class _Zip(io.FileIO):
    """A zip on disk. Its directory, read in one piece, must not fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise _out_of_proportion(str(self.name), f"its directory claims {size} bytes")
        return super().read(-1 if size is None else size)


def _walk_zip(file: Path) -> Iterator[Entry]:
    with _Zip(file) as stream, zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        packed = sum(info.compress_size for info in infos)
        whole = file.stat().st_size
        if packed > whole:
            raise _out_of_proportion(file, f"its members claim {packed} packed bytes, the archive has {whole}")
        faults = [_zip_fault(info) for info in infos]
        given = sum(info.file_size for info, fault in zip(infos, faults, strict=True) if not fault)
        if _is_bomb(given, whole):
            raise _out_of_proportion(file, f"it inflates to {given} bytes, more than {MAX_RATIO} times its size")
        for info, fault in zip(infos, faults, strict=True):
            if not info.filename.endswith("/") or info.file_size:
                yield _zip_name(info), fault, partial(_read_zipped, archive, info)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names that are not marked as UTF-8 are read as cp437; many programs write UTF-8 without the mark."""
    if info.flag_bits & UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_fault(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return LINK
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return SPECIAL
    if info.flag_bits & ENCRYPTED_FLAG:
        return "encrypted; pack it without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # others cannot be inflated piece by piece within a bound
        return f"packed by method {info.compress_type} of zip; only stored and deflated files are read"
    if _is_bomb(info.file_size, info.compress_size):
        return f"{info.compress_size} bytes that inflate to {info.file_size}, more than {MAX_RATIO} times as many"
    return _too_large(info.file_size)


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Raises ImageError for a damaged member: those after it can be read."""
    try:
        with archive.open(info) as file:
            # in pieces, since zipfile inflates as much as it is asked for before it looks at the size that is claimed
            return b"".join(iter(partial(file.read, CHUNK), b""))
    except DAMAGE:  # their words quote the member's name
        raise ImageError("damaged in its zip archive: it cannot be unpacked, or its checksum is wrong") from None


class _Gzip(gzip.GzipFile):
    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if _is_bomb(self.tell(), self.fileobj.tell()):
            raise _out_of_proportion(self.name, f"it inflates to more than {MAX_RATIO} times its size")
        return data


class _Header(tarfile.TarInfo):
    """A header that tells damage, which tarfile takes for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # the mark of the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a member or the end should be") from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in EXTENSIONS and header.size > MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of type {header.type!r} claims {header.size} bytes")
        return header


def _walk_tar(file: Path) -> Iterator[Entry]:
    """As a stream: each member is read once, in passing."""
    with open(file, "rb") as packed:
        start = packed.read(2)
        packed.seek(0)
        stream = _Gzip(fileobj=packed) if start == GZIP_START else packed
        with tarfile.open(
            fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            end = file.stat().st_size * (1 if stream is packed else INFLATION)
            while (info := archive.next()) is not None:
                if archive.offset > end:  # tarfile would seek there in small steps, for years
                    raise tarfile.ReadError("unexpected end of data")
                archive.members = []  # or all that were passed stay in memory
                if not info.isdir():
                    yield info.name, _tar_fault(info), partial(_read_tarred, archive, info)
            while rest := archive.fileobj.read(CHUNK):  # gzip's check sum stands at the end
                if rest.count(0) < len(rest):
                    raise ValueError("more follows after its end")


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return LINK
    if not info.isfile():
        return SPECIAL
    if info.sparse and not _is_sound(info.sparse, info.size):
        return f"a sparse file in {len(info.sparse)} pieces, too many or damaged; pack it whole (tar without -S)"
    return _too_large(info.size)


def _is_sound(pieces: list[tuple[int, int]], size: int) -> bool:
    """Whether tarfile will find the pieces (place, length) of a sparse file within the archive, and soon."""
    lengths = [length for _, length in pieces]
    return min(map(min, pieces)) >= 0 and sum(lengths) <= MAX_FILE_BYTES and len(pieces) * size <= MAX_SPARSE_WORK


def _read_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None  # `isfile` was checked
    return file.read()
