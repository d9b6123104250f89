"""Which files were read before: the SHA-256 of what was read, by a file's inode, size and time of change.

If these are the same, the file is not read again; rsync, git and DVC do likewise. An unchanged tar is not even walked
again, since it can only be read from its start. The table belongs to this machine and is no output of the pipeline;
without it, every file is read and recognised by its bytes. Names of files are kept as digests, because a hospital's
file names may name patients.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cxr.dataset.manifest import read_table, to_table, write_table
from cxr.raw.archives import Member

SEEN_COLUMNS = {
    "key": "string",  # digest of the member's path
    "sha256": "string",  # of its bytes; null where they were not read
    "inode": "int64",  # of the file on disk that holds it
    "bytes": "int64",
    "changed_ns": "int64",
    "tar": "string",  # path of that file below the source, where it is a tar that may be skipped
    "path": "string",  # of such a tar's member
    "fault": "string",
}
RACY_NS = 2_000_000_000  # changed so shortly before it was read, a file may change again within one tick of its clock

Signature = tuple[int, int, int]  # inode, bytes, time of change in ns


class Seen:
    """The table at `path`; only what is noted in this run is kept by `save`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = read_table(path, SEEN_COLUMNS) if path.exists() else to_table([], SEEN_COLUMNS)
        signatures = zip(*(self._table[name] for name in ("inode", "bytes", "changed_ns")), strict=True)
        digests = zip(signatures, self._table["sha256"], strict=True)
        self._before: dict[str, tuple[Signature, str]] = dict(zip(self._table["key"], digests, strict=True))
        self._now: dict[str, tuple[Signature, str]] = {}
        self._signatures: dict[Path, Signature] = {}
        self._started_ns = time.time_ns()

    def digest(self, member: Member) -> str | None:
        """SHA-256 of the member's bytes, where the file that holds it has not changed since they were read."""
        if member.fault:  # a link that leads nowhere has no signature
            return None
        signature, sha256 = self._before.get(_key(member.path), (None, None))
        return sha256 if signature == self._signature(member.file) and isinstance(sha256, str) else None

    def tars(self, root: Path, is_known: Callable[[str], bool]) -> dict[str, list[tuple[str, str]]]:
        """Path and fault of each member of the tars below `root` that have not changed and of which every image that
        was read is known: what `cxr.raw.archives.Tree` takes as `listed`."""
        tars = {}
        for tar, rows in self._table.dropna(subset="tar").groupby("tar", sort=True):
            signature = tuple(rows[["inode", "bytes", "changed_ns"]].iloc[0])
            file = root / str(tar)
            if file.exists() and signature == self._signature(file) and all(map(is_known, rows["sha256"].dropna())):
                tars[str(tar)] = list(zip(rows["path"], rows["fault"], strict=True))
        return tars

    def note(self, path: str, file: Path, sha256: str) -> None:
        """Remember the member `path`, which lies in `file`."""
        self._now[_key(path)] = self._signature(file), sha256

    def save(self, root: Path, tars: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """Write what was noted, and the members of `tars`, each walked to its end."""
        rows = []
        for tar, members in tars.items():
            for path, fault in members:
                _, sha256 = self._now.pop(_key(path), (None, None))
                rows.append((_key(path), sha256, *self._signature(root / tar), tar, path, fault))
        rows += [(key, sha256, *signature, None, None, None) for key, (signature, sha256) in self._now.items()]
        settled = self._started_ns - RACY_NS
        kept = [dict(zip(SEEN_COLUMNS, row, strict=True)) for row in rows if row[4] < settled]
        write_table(to_table(kept, SEEN_COLUMNS), self.path)

    def _signature(self, file: Path) -> Signature:
        if file not in self._signatures:
            stat = file.stat()
            self._signatures[file] = stat.st_ino, stat.st_size, stat.st_mtime_ns
        return self._signatures[file]


def _key(path: str) -> str:
    return hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
