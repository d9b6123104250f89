"""Bring remote files to disk: resumed, retried, checked, and never half-written under their final name.

Libraries do only part of this. pooch does not resume. kagglehub and pypdl append whatever the server sends for a range,
even if the file has changed since. None of them waits as long as a server asks.
"""

import errno
import gzip
import hashlib
import http.client
import json
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from fsspec import AbstractFileSystem
from requests.auth import AuthBase
from tqdm import tqdm

from cxr.errors import SourceError
from cxr.files import write_json
from cxr.raw.archives import is_archive

ATTEMPTS = 6  # in a row without a new byte; 1 + 2 + 4 + 8 + 16 s lie between them
LONGEST_WAIT_S = 300  # a server that asks for more is tried by a person, later
TIMEOUT_S = (10, 60)  # to connect, and from one byte to the next
CHUNK = 1 << 20
BUSY = (408, 425, 429)  # and 5xx: the same request may succeed later

T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818  # no error until it is given up
    """A fault that may pass; its text completes `<address> ...`."""

    def __init__(self, fault: str, retry_after_s: float | None = None) -> None:
        super().__init__(fault)
        self.retry_after_s = retry_after_s


@dataclass
class Reply:
    """What a server sends: bytes of a file from `start` to its end.

    `size`: of the whole file, None where the server does not say. `validator`: changes when the file does, None where
    the server gives none. `framed`: the end of the file can be told from a broken connection.
    """

    start: int
    size: int | None
    validator: str | None
    framed: bool
    chunks: Iterator[bytes]
    close: Callable[[], None]


@dataclass(frozen=True)
class Remote:
    """One file to fetch: `name` is its path below the source's folder, `shown` its address without secrets.

    `open_at(start, validator)` asks for the bytes from `start` if the file still has this validator, else for all of
    them. It raises Interrupted for a fault that may pass, and SourceError for one that will not. `size`: as a listing
    states it.
    """

    name: str
    shown: str
    sha256: str | None
    open_at: Callable[[int, str | None], Reply] = field(repr=False)
    size: int | None = None


def size_of(remote: Remote, where: str) -> int | None:
    """The size that its server states. Not by HEAD, which addresses signed for GET refuse."""
    if remote.size is not None:
        return remote.size

    def ask() -> int | None:
        with closing(remote.open_at(0, None)) as reply:
            return reply.size

    return _insist(ask, lambda: 0, remote, where)


def fetch(remote: Remote, folder: Path, where: str) -> Path:
    """Fetch one file to `<name>.part` below `folder` and return that path.

    What an earlier, interrupted or killed run left there is continued if the file is still the same. `where` begins
    the sentence of an error: SourceError after `ATTEMPTS` in a row that brought no new byte.
    """
    part = _Part(remote, folder)
    with tqdm(desc=remote.name, unit="B", unit_scale=True, unit_divisor=1000) as bar:
        _insist(lambda: _continue(part, bar, where), part.kept, remote, where)
    return part.path


def kept_of(remote: Remote, folder: Path) -> int:
    """Bytes that an earlier run left and `fetch` can continue."""
    return _Part(remote, folder).kept()


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file, tqdm(
        desc=f"sha256 {path.name}", total=path.stat().st_size, unit="B", unit_scale=True, leave=False
    ) as bar:  # fmt: skip
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def check_archive(path: Path, name: str) -> None:
    """Read an archive to its end, before a wrong page or a cut file is recorded as what was published.

    `name` tells its kind. Raises SourceError, a sentence without its beginning. Members' own sums are left to ingest.
    """
    if not is_archive(Path(name)):
        return
    with open(path, "rb") as file:
        start = file.read(40)
    try:
        if name.lower().endswith(".zip"):
            zipfile.ZipFile(path).close()  # its directory stands at the end
        elif start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as file:
                while file.read(CHUNK):
                    pass
        else:
            with tarfile.open(path) as archive:
                archive.getmembers()
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{name} is no whole archive ({error}; it begins {start!r}); has it moved, or does it want a login?"
        ) from error


class _Part:
    """The bytes fetched so far, and in a note beside them of which file they are."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote = remote
        self.path = folder / f"{remote.name}.part"
        self.note = folder / f"{remote.name}.part.json"

    def kept(self) -> int:
        return self.state()[0]

    def state(self) -> tuple[int, str | None, int | None]:
        """Bytes kept, and the validator and size of their file; no byte where they cannot be continued."""
        try:
            note = json.loads(self.note.read_text())
            of, validator, size = note["of"], note["validator"], note["size"]
            kept = self.path.stat().st_size
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0, None, None
        if of != self.remote.shown or validator is None or (size is not None and kept > size):
            return 0, None, None
        return kept, validator, size

    def begin(self, reply: Reply) -> None:
        """Start over. In this order, so that no moment joins old bytes to a new note."""
        self.note.unlink(missing_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        write_json(self.note, {"of": self.remote.shown, "validator": reply.validator, "size": reply.size})


def _continue(part: _Part, bar: tqdm, where: str) -> None:
    """Fetch what is missing, in one connection. Raises Interrupted where it ends early."""
    kept, validator, size = part.state()
    if size is not None and kept == size:
        return
    reply = part.remote.open_at(kept, validator)
    if reply.start and size not in (None, reply.size):  # another file after all
        reply.close()
        reply = part.remote.open_at(0, None)
    with closing(reply):
        if not reply.start:
            part.begin(reply)
        bar.total, bar.n = reply.size, reply.start
        bar.refresh()
        try:
            with open(part.path, "ab") as file:
                for chunk in reply.chunks:
                    file.write(chunk)
                    bar.update(len(chunk))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SourceError(
                f"{where}: no space is left on the disk for {part.path}; free some and run again, what came is kept"
            ) from error
    kept = part.path.stat().st_size
    if reply.size is not None and kept < reply.size:
        raise Interrupted(f"broke off after {kept:,} of {reply.size:,} bytes")
    if reply.size is not None and kept > reply.size:
        _forget(part)
        raise SourceError(
            f"{where}: {part.remote.shown} stated {reply.size:,} bytes and sent {kept:,}; ask its publisher"
        )
    if not reply.framed and part.remote.sha256 is None and not is_archive(Path(part.remote.name)):
        _forget(part)
        raise SourceError(
            f"{where}: {part.remote.shown} states no length, so nobody can tell whether all of it came; "
            "give its digest: {url: ..., sha256: ...}"
        )


def _forget(part: _Part) -> None:
    part.note.unlink()
    part.path.unlink()


def _insist(attempt: Callable[[], T], kept: Callable[[], int], remote: Remote, where: str) -> T:
    """Try until it succeeds; only attempts that brought no new byte count against it."""
    furthest, failures = kept(), 0
    while True:
        try:
            return attempt()
        except Interrupted as fault:
            failures = 0 if kept() > furthest else failures + 1
            furthest = max(furthest, kept())
            wait_s = 2.0 ** max(0, failures - 1) if fault.retry_after_s is None else fault.retry_after_s
            if failures == ATTEMPTS or wait_s > LONGEST_WAIT_S:
                asked = f" and asks to wait {wait_s:.0f} s" if fault.retry_after_s else ""
                raise SourceError(
                    f"{where}: {remote.shown} {fault}{asked}, after {failures} attempts without a new byte; "
                    f"run again later; the {kept() / 1e6:,.1f} MB that came are kept"
                ) from fault
            tqdm.write(f"{remote.name}: {fault}; again in {wait_s:.0f} s", file=sys.stderr)
            sleep(wait_s)


def open_http(
    url: str, name: str, where: str, auth: AuthBase | tuple[str, str] | None, start: int, validator: str | None
) -> Reply:
    """`Remote.open_at` over HTTP: a range if the file is still the one of `validator` (RFC 9110, 13.1.5 and 14)."""
    # as it lies on the server: a length and a range of a compressed reply would be of something else
    headers = {"Accept-Encoding": "identity", "User-Agent": "Mozilla/5.0 (compatible; chest-xray-pipeline)"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    response = _get(url, where, headers, auth)
    shown = without_secrets(url)
    ranged = "Range" in headers
    if ranged and (
        response.status_code == 416 or (response.status_code == 206 and not _continues(response, start, validator))
    ):
        response.close()
        return open_http(url, name, where, auth, 0, None)
    if response.status_code in BUSY or response.status_code >= 500:
        response.close()
        raise Interrupted(f"answered {response.status_code} {response.reason}", _retry_after_s(response))
    if response.status_code != 200 and not (ranged and response.status_code == 206):
        response.close()
        login = " Does it want a login?" if response.status_code in (401, 403) else ""
        raise SourceError(
            f"{where}: {shown} answered {response.status_code} {response.reason}; is the address still right?{login}"
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    coding = response.headers.get("Content-Encoding", "identity")
    if kind == "text/html" and not name.lower().endswith((".html", ".htm")):
        response.close()
        raise SourceError(f"{where}: {shown} is a web page, not {name}; does it want a login, or has the file moved?")
    if coding != "identity" and not name.lower().endswith((".gz", ".tgz")):
        response.close()
        raise SourceError(f"{where}: {shown} is sent only in the coding {coding!r}, expected {name} as it is")
    length = response.headers.get("Content-Length", "")
    length = int(length) if length.isdecimal() and not response.raw.chunked else None
    start = start if response.status_code == 206 else 0
    return Reply(
        start=start,
        size=None if length is None else start + length,
        validator=_validator(response),
        framed=length is not None or response.raw.chunked,
        chunks=_http_chunks(response),
        close=response.close,
    )


def _get(url: str, where: str, headers: dict[str, str], auth: Any) -> requests.Response:
    shown = without_secrets(url)
    try:
        return requests.get(url, headers=headers, auth=auth, stream=True, timeout=TIMEOUT_S)
    except (
        requests.exceptions.InvalidSchema,  # a redirect to file:// too
        requests.exceptions.InvalidURL,
        requests.exceptions.TooManyRedirects,
    ) as error:
        raise SourceError(f"{where}: {shown} cannot be fetched ({error}); correct the address") from error
    except requests.RequestException as error:
        raise Interrupted(f"cannot be reached ({_cause(error)})") from error


def _continues(response: requests.Response, start: int, validator: str | None) -> bool:
    """Whether a 206 holds the bytes from `start` to the end of the same file; not every server heeds If-Range."""
    span = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first, _, last = span[0].partition("-")
    whole = span[2]
    return (
        first == str(start)
        and _validator(response) == validator
        and (whole == "*" or (last.isdecimal() and whole == str(int(last) + 1)))
        and not response.raw.chunked
        and response.headers.get("Content-Length", "").isdecimal()
    )


def _validator(response: requests.Response) -> str | None:
    """A weak ETag (`W/`) does not promise equal bytes; If-Range does not take it."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _retry_after_s(response: requests.Response) -> float | None:
    """Seconds, given as such or as a date; None where absent or unreadable."""
    try:
        return urllib3.Retry(retry_after_max=10**9).get_retry_after(response.raw)
    except urllib3.exceptions.InvalidHeader:
        return None


def _http_chunks(response: requests.Response) -> Iterator[bytes]:
    """The bytes as they arrive, so that none of them is lost when the connection is."""
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Interrupted(f"broke off ({_cause(error)})") from error


def _cause(error: Exception) -> str:
    """The innermost reason: `Connection refused`, not the four wrappers around it."""
    if isinstance(error, http.client.IncompleteRead):
        return "before its end"
    inner = next((e for e in (getattr(error, "reason", None), *error.args) if isinstance(e, Exception)), None)
    return _cause(inner) if inner else str(error) or "the connection was lost"


def open_fsspec(
    files: AbstractFileSystem, path: str, shown: str, where: str, start: int, validator: str | None
) -> Reply:
    """`Remote.open_at` on any file system that fsspec opens."""
    try:
        files.invalidate_cache()
        size, now = files.info(path)["size"], files.ukey(path)
        start = start if now == validator else 0
        file = files.open(path, "rb")
        file.seek(start)
    except (FileNotFoundError, PermissionError) as error:
        raise SourceError(f"{where}: {shown}: {str(error) or 'not found'}; is the address still right?") from error
    except Exception as error:  # every backend has its own kinds
        raise Interrupted(f"cannot be opened ({_cause(error)})") from error
    return Reply(start, size, now, True, _file_chunks(file), file.close)


def _file_chunks(file: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(CHUNK)
        except Exception as error:  # every backend has its own kinds
            raise Interrupted(f"broke off ({_cause(error)})") from error
        if not chunk:
            return
        yield chunk


def without_secrets(url: str) -> str:
    """For messages and notes: without a password and without the query, where signed addresses keep their key."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
