"""Bring one source to data/raw/<source>/files unchanged: draw the demo, link what is local, download what is not."""

import os
import shutil
import sys
from pathlib import Path

from cxr.demo import draw_source
from cxr.errors import SourceError, plain_errors
from cxr.params import DemoParams, RemoteFile, SourceParams, load_params
from cxr.raw.archives import ARCHIVE_SUFFIXES, is_archive
from cxr.raw.checksums import Checksums
from cxr.raw.download import Remote, check_archive, fetch, kept_of, sha256_of, size_of
from cxr.raw.origins import files_of, is_remote, remotes


def acquire(name: str, source: SourceParams, demo: DemoParams, seed: int, raw: Path, checksums: Path) -> None:
    """Make `raw` what `source.origin` says; downloads that were not finished wait in `<raw>.part`.

    Nothing local is copied: a directory becomes a link at `raw`, an archive a link in it. `checksums`: the file that
    keeps the digests of what was downloaded.
    """
    where = f"sources.{name}.origin"
    part = raw.with_name(raw.name + ".part")
    recorded = Checksums(checksums)
    if source.origin == "demo":
        draw(source.reader, part, demo, seed)
    else:
        files = files_of(source)
        local = {file: local_path(file, raw, where) for file in files if not is_remote(file.url)}
        if len(files) == 1 and any(path.is_dir() for path in local.values()):
            link_directory(local[files[0]], part, name)
        else:
            archives = local_archives(local, where)
            download([file for file in files if file not in local], set(archives), raw, part, recorded, where)
            for link, path in archives.items():
                (part / link).symlink_to(path)
    recorded.save()
    remove(raw)
    part.rename(raw)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link; never what a link points to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def draw(reader: str, part: Path, demo: DemoParams, seed: int) -> None:
    remove(part)
    part.mkdir(parents=True)
    try:
        draw_source(reader, part, getattr(demo, reader), seed)
    except BaseException:
        remove(part)
        raise


def local_path(file: RemoteFile, raw: Path, where: str) -> Path:
    """The absolute path of a local origin, links in it kept: what a link named `current` points to may change.

    Raises SourceError where it is neither directory nor archive, or overlaps with `raw`, which is replaced.
    """
    path = Path(os.path.abspath(Path(file.url).expanduser()))
    own = Path(os.path.abspath(raw.parent))
    for origin in (path, path.resolve()):
        if origin == own or own in origin.parents or origin in own.parents:
            raise SourceError(f"{where}: {path} overlaps with {raw.parent}, which is replaced; move it elsewhere")
    if not path.exists():
        raise SourceError(f"{where}: {path} does not exist; give `demo`, an address, or a directory or an archive")
    if not path.is_dir() and not is_archive(path):
        raise SourceError(f"{where}: {path} is not a directory and not one of {', '.join(ARCHIVE_SUFFIXES)}")
    return path


def link_directory(origin: Path, part: Path, name: str) -> None:
    """Make `part` a link to `origin`. Raises SourceError if no file is in it."""
    walked = list(os.walk(origin))
    links = [Path(folder, name) for folder, names, _ in walked for name in names if Path(folder, name).is_symlink()]
    if not links and not any(files for _, _, files in walked):
        raise SourceError(f"sources.{name}.origin: {origin} holds no file; expected the source as published")
    if links:
        print(f"{links[0]} is a link, and DVC sees no change behind it: after one, run dvc repro -f -s ingest@{name}")
    remove(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.symlink_to(origin, target_is_directory=True)


def local_archives(local: dict[RemoteFile, Path], where: str) -> dict[str, Path]:
    """Local archives by their file names, each checked against the digest that is given for it."""
    archives = {}
    for file, path in local.items():
        if path.is_dir():
            raise SourceError(f"{where}: {path} is a directory; make it the only origin, or pack it into an archive")
        if file.sha256 and (found := sha256_of(path)) != file.sha256:
            raise SourceError(f"{where}: {path} has the sha256 {found}, expected {file.sha256}; correct one of them")
        link = file.name or path.name
        if link in archives:
            raise SourceError(f"{where}: several files are named {link}; write {{url: ..., name: ...}} for each")
        archives[link] = path
    return archives


def download(files: list[RemoteFile], taken: set[str], raw: Path, part: Path, recorded: Checksums, where: str) -> None:
    """Make `part` a folder of the downloaded files and nothing else; what `raw` or `part` has is not fetched again."""
    wanted = remotes(files, taken, where)
    names = {remote.name for remote in wanted}
    tidy(part, names | {f"{name}{suffix}" for name in names for suffix in (".part", ".part.json")})
    missing = [remote for remote in wanted if not keep(remote, raw, part, recorded)]
    check_space(missing, part, where)
    for remote in missing:
        path = fetch(remote, part, where)
        check(remote, path, recorded, where)
        path.rename(part / remote.name)
    tidy(part, names)


def tidy(part: Path, names: set[str]) -> None:
    """Make `part` a folder without any file but these: another origin may have left some."""
    if part.is_symlink():
        part.unlink()
    part.mkdir(parents=True, exist_ok=True)
    for folder, _, files in os.walk(part):
        for path in (Path(folder, file) for file in files):
            if str(path.relative_to(part)) not in names:
                path.unlink()


def keep(remote: Remote, raw: Path, part: Path, recorded: Checksums) -> bool:
    """Whether the file is here with the digest it must have; it is moved from `raw` to `part`."""
    expected = remote.sha256 or recorded.of(remote.name)
    for folder in (part, raw):
        path = folder / remote.name
        own = path.is_file() and not path.is_symlink() and not folder.is_symlink()
        if own and expected and sha256_of(path) == expected:
            (part / remote.name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(part / remote.name)
            return True
    return False


def check_space(missing: list[Remote], part: Path, where: str) -> None:
    """Refuse before the first byte what the disk cannot hold; a size that no server states is not known."""
    sizes = [size_of(remote, where) for remote in missing]
    kept = [kept_of(remote, part) for remote in missing]
    needed = sum(max(0, size - have) for size, have in zip(sizes, kept, strict=True) if size is not None)
    free = shutil.disk_usage(part).free
    if needed > free:
        raise SourceError(
            f"{where}: the download needs {needed / 1e6:,.0f} MB, the disk of {part.parent} has {free / 1e6:,.0f} MB "
            f"free; free {(needed - free) / 1e6:,.0f} MB and run again"
        )


def check(remote: Remote, path: Path, recorded: Checksums, where: str) -> None:
    """Hold a whole file to its digest, or record it. A file that fails is removed, for it cannot be continued."""
    found = sha256_of(path)
    expected = remote.sha256 or recorded.of(remote.name)
    place = "sha256 in params.yaml" if remote.sha256 else f"its line in {recorded.path}"
    try:
        if expected is None:
            check_archive(path, remote.name)
            recorded.record(remote.name, found)
        elif found != expected:
            raise SourceError(
                f"{remote.name} has the sha256 {found}, expected {expected}: its publisher changed it, or it was "
                f"damaged on the way; run again, or delete {place} to accept the new file"
            )
    except SourceError as error:
        path.unlink()
        path.with_name(f"{path.name}.json").unlink()
        raise SourceError(f"{where}: {error}") from error


if __name__ == "__main__":
    with plain_errors():
        source_name = sys.argv[1]  # dvc.yaml names the sources
        p = load_params()
        acquire(
            source_name, p.sources[source_name], p.demo, p.seed,
            Path("data/raw") / source_name / "files", Path("data/checksums") / f"{source_name}.sha256",
        )  # fmt: skip
