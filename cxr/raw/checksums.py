"""The digests of downloaded files: recorded when a file first comes, enforced from then on, kept in Git."""

import re
from pathlib import Path

from cxr.errors import SourceError
from cxr.files import write_whole

LINE = re.compile(r"^(?P<sha256>[0-9a-f]{64}) [ *](?P<name>.+)$")
HEADER = "# downloaded files, as sha256sum -c reads them; a line deleted here is recorded anew\n"


class Checksums:
    """File name -> SHA-256, in a file of one line each. Raises SourceError for a line that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recorded: dict[str, str] = {}
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
            if line and not line.startswith("#"):
                match = LINE.match(line)
                if not match:
                    raise SourceError(
                        f"{path} line {number}: {line!r} is no line of sha256sum; restore it from Git, or delete it"
                    )
                self.recorded[match["name"]] = match["sha256"]

    def of(self, name: str) -> str | None:
        return self.recorded.get(name)

    def record(self, name: str, sha256: str) -> None:
        """At once, so that a run that is killed later need not fetch this file again."""
        self.recorded[name] = sha256
        self.save()

    def save(self) -> None:
        lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(self.recorded.items())]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, "".join([HEADER, *lines]).encode())
