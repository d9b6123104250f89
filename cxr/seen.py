"""Which files were read before: the SHA-256 of what was read, by a file's inode, size and time of change.

As rsync, git and DVC do, a file of which these are the same is not read again. The table is this machine's own: it is
no output of the pipeline, and without it every file is read and known by its bytes.
"""

import time
from pathlib import Path

from cxr.archives import Member
from cxr.manifest import read_table, to_table, write_table

SEEN_COLUMNS = {"path": "string", "inode": "int64", "bytes": "int64", "changed_ns": "int64", "sha256": "string"}
RACY_NS = 2_000_000_000  # changed so shortly before it was read, a file may change again within one tick of its clock

Signature = tuple[int, int, int]  # inode, bytes, time of change in ns


class Seen:
    """The table at `path`; only what is noted in this run is kept by `save`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before: dict[str, tuple[Signature, str]] = {}
        self._now: list[dict] = []
        self._signatures: dict[Path, Signature] = {}
        self._started_ns = time.time_ns()
        if path.exists():
            table = read_table(path, SEEN_COLUMNS)
            signatures = zip(table["inode"], table["bytes"], table["changed_ns"], strict=True)
            self._before = dict(zip(table["path"], zip(signatures, table["sha256"], strict=True), strict=True))

    def digest(self, member: Member) -> str | None:
        """SHA-256 of the member's bytes, where the file that holds it has not changed since they were read."""
        signature, sha256 = self._before.get(member.path, (None, None))
        return sha256 if signature == self._signature(member.file) else None

    def note(self, path: str, file: Path, sha256: str) -> None:
        """Remember the member `path`, which lies in `file`."""
        signature = self._signature(file)
        if signature[2] < self._started_ns - RACY_NS:
            row = (path, *signature, sha256)
            self._now.append(dict(zip(SEEN_COLUMNS, row, strict=True)))

    def save(self) -> None:
        write_table(to_table(self._now, SEEN_COLUMNS), self.path)

    def _signature(self, file: Path) -> Signature:
        if file not in self._signatures:
            stat = file.stat()
            self._signatures[file] = stat.st_ino, stat.st_size, stat.st_mtime_ns
        return self._signatures[file]
