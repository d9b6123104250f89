"""Ingest in trouble: killed runs, dying workers, new and changed files, and the same bytes on every executor."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest

from cxr.dataset.manifest import RECORD_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.errors import CxrError
from cxr.executors import Processes, map_in_order, open_backend
from stages.ingest.stream import ingest
from tests.tiny_repository import tiny_params
from tests.tiny_sources import encode, picture, write_kermany, write_nih

PARAMS = tiny_params()

pytestmark = pytest.mark.heavy  # nearly every test starts a pool of processes


def write_films(folder: Path, first: int, n: int, split: str = "train") -> None:
    """`n` small films of as many patients in Kermany's layout, written long ago by their clocks."""
    place = folder / "chest_xray" / split / "NORMAL"
    place.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + n):
        path = place / f"IM-{k:04d}-0001.jpeg"
        path.write_bytes(encode(picture(k, 0.5), ".jpg"))
        os.utime(path, (1e9, 1e9))


def run(raw: Path, out: Path, **changes: object) -> None:
    params = PARAMS.ingest.model_copy(update={"workers": 2} | changes)
    ingest("kermany", PARAMS.sources["kermany"], params, raw, out, out.with_suffix(".seen"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def records(folder: Path) -> pd.DataFrame:
    return read_table(folder / "records.parquet", RECORD_COLUMNS)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """90 films, one unreadable."""
    raw = tmp_path_factory.mktemp("films")
    write_films(raw, 0, 90)
    broken = raw / "chest_xray/train/NORMAL/IM-0041-0001.jpeg"
    broken.write_bytes(broken.read_bytes()[:-300])
    os.utime(broken, (1e9, 1e9))
    return raw


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory) -> Path:
    """The films ingested without a fault."""
    out = tmp_path_factory.mktemp("whole") / "kermany"
    run(films, out)
    return out


def test_dask_and_processes_give_the_same_bytes(films, whole, tmp_path):
    run(films, tmp_path / "kermany", executor="dask")
    assert contents(tmp_path / "kermany") == contents(whole)


def test_the_number_of_workers_changes_nothing(films, whole, tmp_path):
    run(films, tmp_path / "kermany", workers=1)
    assert contents(tmp_path / "kermany") == contents(whole)


def test_an_absent_scheduler_is_one_sentence(films, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr.executors.CONNECT_SECONDS", 1)
    with pytest.raises(CxrError, match=r"ingest\.scheduler: no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run(films, tmp_path / "kermany", executor="dask", scheduler="tcp://127.0.0.1:9")


SLOW_RUN = """
import sys, time
from pathlib import Path
import stages.ingest.stream
from tests.test_ingest import run

class Slow(stages.ingest.stream.ShardStore):
    def add(self, *what):
        time.sleep(0.02)  # so that the test can strike in the middle
        return super().add(*what)

if __name__ == "__main__":
    stages.ingest.stream.ShardStore = Slow
    run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def start_slow_run(raw: Path, out: Path) -> subprocess.Popen:
    """A run in a process of its own, returned when two of its shards are whole."""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    program = out.with_suffix(".py")
    program.write_text(SLOW_RUN)
    process = subprocess.Popen([sys.executable, program, raw, out], env=environment, stderr=subprocess.PIPE)
    while len(list(out.glob("facts-*.parquet"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(films, whole, tmp_path):
    out = tmp_path / "kermany"
    process = start_slow_run(films, out)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = contents(out)
    assert not (out / "records.parquet").exists()
    assert 2 <= sum(name.startswith("facts") for name in left) < 5
    (out / "shard-00009.npy.part").write_bytes(b"half-written")
    (out / "shard-00009.npy").write_bytes(b"pixels whose facts were not written yet")
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers)
    times = {name: (out / name).stat().st_mtime_ns for name in left if name.startswith(("facts", "shard"))}
    run(films, out)
    assert contents(out) == contents(whole)
    facts = [name for name in times if name.startswith("facts")]
    assert all((out / name).stat().st_mtime_ns == times[name] for name in facts)


def test_a_killed_worker_costs_nothing_but_time(films, whole, tmp_path):
    out = tmp_path / "kermany"
    process = start_slow_run(films, out)
    workers = [w for w in psutil.Process(process.pid).children() if "spawn_main" in " ".join(w.cmdline())]
    workers[0].kill()
    assert process.wait(timeout=60) == 0
    assert contents(out) == contents(whole)


def end_at_minus_one(batch: list[int]) -> list[int]:
    if -1 in batch:
        os._exit(9)
    return [2 * item for item in batch]


def nothing() -> None:
    pass


def test_an_item_that_ends_its_worker_is_given_up_alone():
    backend = Processes(2, nothing)
    batches = [[0, 1], [2, -1, 3], [4], [5, 6], [7], [8], [9], [10], [11], [12], [13]]
    results = [found for _, found in map_in_order(backend, end_at_minus_one, batches, lambda item: -99)]
    backend.close()
    assert results == [[-99 if item == -1 else 2 * item for item in batch] for batch in batches]


def test_workers_that_keep_dying_stop_the_run(monkeypatch):
    monkeypatch.setattr("cxr.executors.DEATHS", 4)
    with open_backend(PARAMS.ingest, nothing) as backend:
        with pytest.raises(CxrError, match="worker processes were killed; is memory short"):
            list(map_in_order(backend, end_at_minus_one, [[-1] * 40], lambda item: 0))


def test_new_changed_and_removed_files_cost_only_themselves(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "kermany"
    write_films(raw, 0, 50)
    run(raw, out)
    before, first = contents(out), records(out)
    assert "50 images (50 files decoded now)" in capsys.readouterr().out

    write_films(raw, 50, 3)
    place = raw / "chest_xray/train/NORMAL"
    (place / "IM-0007-0001.jpeg").write_bytes(encode(picture(700, 0.5), ".jpg"))
    (place / "IM-0008-0001.jpeg").unlink()
    (place / "IM-0009-0001.jpeg").rename(place / "IM-0909-0001.jpeg")
    os.utime(place / "IM-0010-0001.jpeg")  # touched, not changed
    run(raw, out)
    assert "52 images (4 files decoded now)" in capsys.readouterr().out
    after = contents(out)
    old = {name: data for name, data in before.items() if name.startswith(("shard", "thumbs", "facts"))}
    assert {name: after[name] for name in old} == old
    assert sorted(set(after) - set(before)) == ["facts-00003.parquet", "shard-00003.npy", "thumbs-00003.npy"]

    table = records(out).set_index("image_id")
    root = "kermany/chest_xray/train/NORMAL"
    assert f"{root}/IM-0008-0001.jpeg" not in table.index
    assert table.loc[f"{root}/IM-0007-0001.jpeg", "shard"] == "shard-00003.npy"
    moved, was = table.loc[f"{root}/IM-0909-0001.jpeg"], first.set_index("image_id").loc[f"{root}/IM-0009-0001.jpeg"]
    assert (moved["shard"], moved["row"]) == (was["shard"], was["row"])
    fresh = tmp_path / "fresh"
    ingest("kermany", PARAMS.sources["kermany"], PARAMS.ingest, raw, fresh, tmp_path / "other.seen")
    again = read_table(fresh / "records.parquet", RECORD_COLUMNS)
    assert again["image_id"].tolist() == table.index.tolist()
    assert (read_images(tmp_path, again.assign(source="fresh")) == read_images(tmp_path, records(out))).all()


def test_without_the_table_of_seen_files_bytes_are_compared(films, whole, tmp_path, capsys):
    out = tmp_path / "kermany"
    run(films, out)
    out.with_suffix(".seen").unlink()
    run(films, out)
    assert "(0 files decoded now)" in capsys.readouterr().out
    assert contents(out) == contents(whole)


def test_a_file_changed_within_a_tick_of_the_clock_is_read_again(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "kermany"
    write_films(raw, 0, 3)
    path = raw / "chest_xray/train/NORMAL/IM-0001-0001.jpeg"
    os.utime(path)
    run(raw, out)
    stat, digest = path.stat(), records(out)["sha256"].tolist()
    data = encode(picture(99, 0.5), ".jpg")
    path.write_bytes(data + b"\0" * (stat.st_size - len(data)) if len(data) < stat.st_size else data[: stat.st_size])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run(raw, out)
    assert not (out / "records.parquet").exists() or records(out)["sha256"].tolist() != digest


def test_another_recipe_decodes_everything_again(films, tmp_path, capsys):
    out = tmp_path / "kermany"
    run(films, out)
    run(films, out, pixels=PARAMS.ingest.pixels.model_copy(update={"size": 32}))
    assert "(90 files decoded now)" in capsys.readouterr().out
    assert {np.load(path).shape[1:] for path in out.glob("shard-*.npy")} == {(32, 32)}


def test_the_refused_keep_their_pixels_for_review_and_need_no_decoding(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "kermany"
    write_kermany(raw)
    (raw / "chest_xray/train/NORMAL").mkdir(parents=True)
    white = np.full((80, 96), 255, np.uint8)
    (raw / "chest_xray/train/NORMAL/IM-0800-0001.jpeg").write_bytes(cv2.imencode(".png", white)[1].tobytes())
    run(raw, out, min_content_score=0)
    accepted = records(out)
    score = accepted.set_index("image_id").loc["kermany/chest_xray/train/NORMAL/IM-0800-0001.jpeg", "content_score"]
    run(raw, out, min_content_score=float(score) + 1e-6)
    assert "(0 files decoded now)" in capsys.readouterr().out.splitlines()[-1]
    rejected = pd.read_csv(out / "rejected.csv", keep_default_na=False).set_index("path")
    refused = rejected.loc["chest_xray/train/NORMAL/IM-0800-0001.jpeg"]
    assert refused["reason"] == "not a frontal chest radiograph"
    assert float(refused["score"]) == pytest.approx(float(score), abs=1e-4)
    row = pd.DataFrame({"source": ["kermany"], "shard": [refused["shard"]], "row": [int(refused["row"])]})
    assert (read_images(tmp_path, row) == 255).any()
    assert len(records(out)) + (rejected["reason"] == refused["reason"]).sum() == len(accepted)


def test_a_failed_run_keeps_what_was_there_and_nothing_half_written(tmp_path, films):
    raw, out = tmp_path / "raw", tmp_path / "kermany"
    write_kermany(raw)
    run(raw, out)
    before = contents(out)
    archive = raw / "archive.zip"
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(CxrError, match="not a whole archive"):
        run(raw, out)
    assert contents(out) == before


def test_a_tar_that_has_not_changed_is_not_walked_again(tmp_path, capsys, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "nih"
    write_nih(raw)
    os.utime(raw / "images_001.tar.gz", (1e9, 1e9))
    source = PARAMS.sources["nih"]
    ingest("nih", source, PARAMS.ingest, raw, out, tmp_path / "seen")
    before, lost = contents(out), raw.with_name("lost.tar.gz")

    monkeypatch.setattr("cxr.raw.archives._walk_tar", lambda file: pytest.fail(f"{file} was walked"))
    ingest("nih", source, PARAMS.ingest, raw, out, tmp_path / "seen")
    assert contents(out) == before
    monkeypatch.undo()

    shutil.copy2(raw / "images_001.tar.gz", lost)
    lost.rename(raw / "images_001.tar.gz")  # the same bytes in another file
    ingest("nih", source, PARAMS.ingest, raw, out, tmp_path / "seen")
    assert contents(out) == before
    assert capsys.readouterr().out.count("(0 files decoded now)") == 2


def test_names_of_files_are_not_remembered_where_they_may_be_those_of_patients(tmp_path):
    write_films(tmp_path / "raw", 0, 3)
    run(tmp_path / "raw", tmp_path / "kermany")
    seen = (tmp_path / "kermany.seen").read_bytes()
    assert b"IM-0001" not in seen
