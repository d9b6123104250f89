"""Ingest beside a bare loop, a simulated NIH download, and what 1 % of new images costs.

`python -m benchmarks.ingest FOLDER` needs a folder of radiographs to draw from (FOLDER/kermany). It makes films of the
sizes that the sources publish (JPEGs of 1.2 to 2.9 megapixels, PNGs of 1024 x 1024), enlarged from them with grain
added, since real ones of that size are not at hand; every file has bytes of its own.

The bare loop is what nothing can beat: processes that read, decode and resize, and keep nothing. Ingest also hashes,
describes, judges, checks, writes shards and accounts for every file. The rounds alternate, so that a busy machine is
busy for both.
"""

import argparse
import contextlib
import io
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil
import yaml

from cxr.params import load_params
from cxr.pixels.header import read_header
from cxr.pixels.raster import jpeg_scale

SIZE = load_params().ingest.pixels.size
ROUNDS = 3
DISTINCT = 200  # pictures; the files made from them differ in their bytes and not in their pixels
SIZES = ((1152, 1008), (1320, 976), (1488, 1144), (1656, 1320), (2040, 1424))  # width, height of published JPEGs
# the stage's own function, as `python -m stages.ingest` calls it
RUN = """
import sys
from pathlib import Path
from cxr.params import load_params
from stages.ingest.stream import ingest
p, reader, raw, out = load_params(), sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
ingest(reader, p.sources[reader], p.ingest, raw, out, out.with_suffix(".seen"))
"""
NIH_IMAGES, NIH_ARCHIVES = 112_120, 12


def pictures(folder: Path, rng: np.random.Generator) -> list[np.ndarray]:
    """Real films of 224 x 224, uint8."""
    files = sorted((folder / "kermany").rglob("*.jpeg"))
    chosen = rng.choice(len(files), DISTINCT, replace=False)
    return [cv2.imread(str(files[i]), cv2.IMREAD_GRAYSCALE) for i in chosen]


def enlarge(picture: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A film of a published size: smooth enlargement has no grain, which is most of what a decoder works on."""
    large = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = cv2.GaussianBlur(rng.normal(0, 6, large.shape).astype(np.float32), (0, 0), 0.8)
    return np.clip(large + grain, 0, 255).astype(np.uint8)


def encoded(films: list[np.ndarray], kind: str, rng: np.random.Generator) -> list[bytes]:
    if kind == "jpeg":
        sized = [enlarge(film, *SIZES[i % len(SIZES)], rng) for i, film in enumerate(films)]
        return [cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for film in sized]
    return [cv2.imencode(".png", enlarge(film, 1024, 1024, rng))[1].tobytes() for film in films]


def films(kinds: list[bytes], first: int, n: int) -> Iterator[tuple[int, bytes]]:
    """`n` numbered files: the pictures in turn, each with its number behind its end, where decoders do not look."""
    for i in range(first, first + n):
        yield i, kinds[i % len(kinds)] + i.to_bytes(8, "big")


def write_folder(folder: Path, kinds: list[bytes], first: int, n: int) -> None:
    """Kermany's layout, by turns normal and not; the clocks say that the files are old."""
    suffix = "jpeg" if kinds[0].startswith(b"\xff\xd8") else "png"
    for i, data in films(kinds, first, n):
        name = f"NORMAL/IM-{i:06d}-0001" if i % 2 else f"PNEUMONIA/person{i}_{'virus' if i % 4 else 'bacteria'}_{i}"
        path = folder / f"chest_xray/{'test' if i % 10 < 2 else 'train'}/{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1e9, 1e9))
    os.sync()  # or ingest's own fsync would wait for these files


def time_bare(work: list[tuple[int, str]]) -> float:
    """Seconds of the bare loop in one process a core, each with its share, start and imports included."""
    listed = "\n".join(f"{flag} {path}" for flag, path in work)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "benchmarks.bare_loop", str(SIZE)], input=listed, text=True, check=True)
    return time.monotonic() - start


@dataclass(frozen=True)
class Run:
    """`seconds`; `peak_mb`: resident memory of the process and its workers together; `spill_mb`: most bytes beside
    what was there at the end, in the output and in the temporary folder."""

    seconds: float
    peak_mb: float
    spill_mb: float


def run_ingest(reader: str, raw: Path, out: Path) -> Run:
    """Ingest in a process of its own, start and imports included."""
    temporary = out.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-c", RUN, reader, str(raw), str(out)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    start = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    of, peak, most = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        peak = max(peak, memory_of(of))
        most = max(most, size_of(out) + size_of(temporary))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)  # looking takes time from the cores that are measured
    seconds = time.monotonic() - start
    if process.returncode:
        sys.exit(f"ingest ended with status {process.returncode}: {' '.join(command)}")
    return Run(seconds, peak / 1e6, max(0, most - size_of(out)) / 1e6)


def memory_of(process: psutil.Process) -> int:
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed while it was counted
            total += path.stat().st_size if path.is_file() else 0
    return total


def compare(kind: str, kinds: list[bytes], n: int, scratch: Path) -> None:
    """Rounds of the bare loops and of ingest on `n` files of one kind."""
    raw, out = scratch / kind, scratch / f"{kind}-images" / "kermany"
    write_folder(raw, kinds, 0, n)
    paths = sorted(str(path) for path in raw.rglob("*.*g"))
    scaled = [(scale_of(path), path) for path in paths]
    full = [(cv2.IMREAD_GRAYSCALE, path) for path in paths]
    out.parent.mkdir()
    times: dict[str, list[float]] = {"ingest": [], "bare": [], "full": []}
    peaks = []
    for _ in range(ROUNDS):
        times["bare"].append(time_bare(scaled))
        shutil.rmtree(out, ignore_errors=True)
        run = run_ingest("kermany", raw, out)
        times["ingest"].append(run.seconds)
        peaks.append(run.peak_mb)
        if kind == "jpeg":
            times["full"].append(time_bare(full))
    size = sum(os.path.getsize(path) for path in paths) / n / 1e3
    print(f"\n{n} {kind} files of {size:.0f} kB on average; rates in images/s, median of {ROUNDS} rounds (least, most)")
    for name, seconds in times.items():
        if seconds:
            rates = sorted(n / s for s in seconds)
            print(f"  {name:8} {statistics.median(rates):6.0f}  ({rates[0]:.0f}, {rates[-1]:.0f})")
    for name, limit in (("bare", 0.85), ("full", 1.8)):
        ratios = sorted(b / i for b, i in zip(times[name], times["ingest"], strict=False))
        if ratios:
            found = f"{statistics.median(ratios):.2f}  ({ratios[0]:.2f}, {ratios[-1]:.2f})"
            print(f"  ingest / {name}: {found}; asked {limit}")
    half = scratch / "half"
    write_folder(half, kinds, 0, n // 2)
    shutil.rmtree(out)
    of_half = run_ingest("kermany", half, out).peak_mb
    print(f"  peak memory: {max(peaks):.0f} MB; of half as many files {of_half:.0f} MB")
    for folder in (raw, half, out):
        shutil.rmtree(folder)


def scale_of(path: str) -> int:
    """The decoder's scale that ingest chooses for this file."""
    data = Path(path).read_bytes()
    header = read_header(data)
    return jpeg_scale(min(header.width, header.height), SIZE) if header.format == "JPEG" else cv2.IMREAD_GRAYSCALE


def simulated_nih(kinds: list[bytes], n: int, table: Path, scratch: Path) -> None:
    """Twelve tar.gz archives of 1024 x 1024 PNGs beside the table, streamed."""
    raw, out = scratch / "nih", scratch / "nih-images" / "nih"
    raw.mkdir()
    out.parent.mkdir()
    shutil.copyfile(table, raw / table.name)
    names = [row.split(",", 1)[0] for row in table.read_text().splitlines()[1:]]
    per_archive = n // NIH_ARCHIVES
    numbered = films(kinds, 0, per_archive * NIH_ARCHIVES)
    for k in range(NIH_ARCHIVES):
        with tarfile.open(raw / f"images_{k + 1:03d}.tar.gz", "w:gz", compresslevel=1) as archive:
            for i, data in itertools.islice(numbered, per_archive):
                info = tarfile.TarInfo(f"images/{names[i]}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    n = per_archive * NIH_ARCHIVES
    archives = size_of(raw) / 1e6
    run = run_ingest("nih", raw, out)
    hours = run.seconds / n * NIH_IMAGES / 3600
    print(
        f"\nsimulated NIH: {NIH_ARCHIVES} archives of {per_archive} PNGs, {archives:.0f} MB: {run.seconds:.0f} s "
        f"({n / run.seconds:.0f} images/s), peak memory {run.peak_mb:.0f} MB, beside archives and shards at most "
        f"{run.spill_mb:.1f} MB on disk (one shard under its temporary name), shards {size_of(out) / 1e6:.0f} MB\n"
        f"  all {NIH_IMAGES} images at this rate: {hours:.2f} h"
    )
    again = run_ingest("nih", raw, out)
    print(f"  again, with nothing new: {again.seconds:.1f} s")
    shutil.rmtree(raw)
    shutil.rmtree(out)


def incremental(kinds: list[bytes], n: int, scratch: Path) -> None:
    """`dvc repro assemble` in a copy of this repository whose kermany is a folder of `n` films, then of 1 % more."""
    origin, copy = scratch / "origin", scratch / "copy"
    write_folder(origin, kinds, 0, n)
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listing.stdout.split("\0")):
        if Path(name).is_file() and name != "dvc.lock":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, copy / name)
    values = yaml.safe_load((copy / "params.yaml").read_text())
    values["sources"]["kermany"]["origin"] = str(origin)
    (copy / "params.yaml").write_text(yaml.safe_dump(values))
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)

    def repro(*arguments: str) -> float:
        start = time.monotonic()
        done = subprocess.run(["dvc", "repro", *arguments], cwd=copy, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"dvc repro {' '.join(arguments)}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        return time.monotonic() - start

    repro("acquire")
    full = repro("--single-item", "ingest@kermany")
    repro("assemble")
    shards = {path: path.read_bytes() for path in (copy / "data/images/kermany").glob("shard-*.npy")}
    write_folder(origin, kinds, n, 1)
    constant = repro("assemble")
    write_folder(origin, kinds, n + 1, n // 100)
    new = repro("assemble")
    same = all(path.read_bytes() == data for path, data in shards.items())
    print(
        f"\n{n} JPEGs ingested, then 1 % more: `dvc repro --single-item ingest@kermany` {full:.1f} s; `dvc repro "
        f"assemble` with one new file {constant:.1f} s, with {n // 100} new files {new:.1f} s: "
        f"{(new - constant) / full:.1%} of the full ingest beyond the constant (asked 5 %); "
        f"old shards {'the same bytes' if same else 'CHANGED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the real sources")
    parser.add_argument("--jpegs", type=int, default=4000)
    parser.add_argument("--pngs", type=int, default=1500)
    parser.add_argument("--nih", type=int, default=3000)
    parser.add_argument("--only", choices=["jpeg", "png", "nih", "incremental"])
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, squares of {SIZE}")
    small = pictures(arguments.folder, rng)
    wanted = [arguments.only] if arguments.only else ["jpeg", "png", "nih", "incremental"]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if {"jpeg", "incremental"} & set(wanted):
            jpegs = encoded(small, "jpeg", rng)
        if {"png", "nih"} & set(wanted):
            pngs = encoded(small, "png", rng)
        if "jpeg" in wanted:
            compare("jpeg", jpegs, arguments.jpegs, scratch)
        if "png" in wanted:
            compare("png", pngs, arguments.pngs, scratch)
        if "nih" in wanted:
            simulated_nih(pngs, arguments.nih, arguments.folder / "nih/Data_Entry_2017_v2020.csv", scratch)
        if "incremental" in wanted:
            incremental(jpegs, arguments.jpegs, scratch)


if __name__ == "__main__":
    main()
