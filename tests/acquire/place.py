"""Where `acquire` puts a source, archives to fetch, and what a folder holds."""

import hashlib
import io
import zipfile
from pathlib import Path

from cxr.params import PublishedSource, load_params
from stages import acquire as stage

ROOT = Path(__file__).parents[2]
DEMO = load_params().demo


class Place:
    """Where `acquire` puts one source."""

    def __init__(self, root: Path) -> None:
        self.raw = root / "data/raw/nih/files"
        self.checksums = root / "data/checksums/nih.sha256"

    def acquire(self, origin: str | list, reader: str = "nih") -> Path:
        source = PublishedSource(reader=reader, origin=origin)
        stage.acquire("nih", source, DEMO.model_copy(update={"nih": 24}), 0, self.raw, self.checksums)
        return self.raw

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.raw)): p.read_bytes() for p in sorted(self.raw.rglob("*")) if p.is_file()}

    def left(self) -> list[str]:
        """What an unfinished download left."""
        part = self.raw.with_name("files.part")
        return sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names or ("a.txt",):
            archive.writestr(name, name * 100)
    return buffer.getvalue()


def state_of(folder: Path) -> dict[str, tuple]:
    """Everything of a folder that DVC or a stage could harm."""
    return {
        str(path): (stat.st_mode, stat.st_ino, stat.st_nlink, stat.st_mtime_ns, path.is_file() and path.read_bytes())
        for path in [folder, *folder.rglob("*")]
        for stat in [path.lstat()]
    }
