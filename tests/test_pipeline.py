"""The stage functions in order on three tiny sources: invariants, not scores."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.errors import CxrError, SourceError
from cxr.manifest import RECORD_COLUMNS, read_table
from cxr.store import read_images
from stages.acquire import acquire, clone
from stages.ingest import ingest
from tests.tiny_repository import SOURCES, Repository, tiny_params
from tests.tiny_sources import PATIENTS, WRITERS, encode, picture


def test_acquire_copies_the_bytes_and_leaves_the_origin_as_it_was(tmp_path):
    origin = tmp_path / "origin"
    WRITERS["covid"](origin)
    for path in origin.rglob("*.png"):
        path.chmod(0o444)
    before = {path: (path.stat().st_mode, path.stat().st_ino, path.read_bytes()) for path in origin.rglob("*.*g")}
    acquire("covid", str(origin), tiny_params().demo, 0, tmp_path / "raw")
    for path, state in before.items():
        assert (path.stat().st_mode, path.stat().st_ino, path.read_bytes()) == state
        copy = tmp_path / "raw" / path.relative_to(origin)
        assert copy.read_bytes() == state[2]
        assert copy.stat().st_ino != path.stat().st_ino  # not a hard link, through which DVC would change the origin
        assert copy.stat().st_mode & 0o200


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, r"sources\.nih\.origin: .*absent.* does not exist"),
        (lambda path: path.mkdir(), r"holds no file"),
        (lambda path: path.write_text("x"), r"is no directory and none of \.zip"),
    ],
)
def test_a_wrong_origin_is_one_sentence_and_leaves_nothing(tmp_path, make, sentence):
    make(tmp_path / "absent")
    with pytest.raises(SourceError, match=sentence):
        acquire("nih", str(tmp_path / "absent"), tiny_params().demo, 0, tmp_path / "raw/nih")
    assert not list((tmp_path / "raw").iterdir())


def test_clone_copies_where_it_cannot_share_blocks(tmp_path):
    (tmp_path / "a").write_bytes(b"radiograph" * 1000)
    clone(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"radiograph" * 1000


def test_a_failed_ingest_leaves_nothing_and_keeps_what_was_there(tmp_path, params):
    WRITERS["nih"](tmp_path / "raw")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/records.parquet").write_bytes(b"of an earlier run")
    archive = tmp_path / "raw/images_001.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(SourceError, match="not a whole archive"):
        ingest("nih", params.sources["nih"], params.ingest, tmp_path / "raw", tmp_path / "images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "raw"]
    assert (tmp_path / "images/records.parquet").read_bytes() == b"of an earlier run"


FULL_DISK = """
import sys
from pathlib import Path
from cxr.errors import plain_errors
from stages.acquire import acquire
from stages.ingest import ingest
from tests.tiny_repository import tiny_params

if __name__ == "__main__":
    raw, disk, p = Path(sys.argv[1]), Path(sys.argv[2]), tiny_params()
    with plain_errors():
        {call}
"""


@pytest.mark.parametrize(
    "call",
    [
        "acquire('kermany', str(raw), p.demo, 0, disk / 'raw')",
        "name = 'kermany'; ingest(name, p.sources[name], p.ingest, raw, disk / 'images')",
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path, call):
    raw, disk, program = tmp_path / "raw", tmp_path / "disk", tmp_path / "program.py"
    WRITERS["kermany"](raw)
    disk.mkdir()
    program.write_text(FULL_DISK.format(call=call))
    mount = f"mount -t tmpfs -o size=64k tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system lets no ordinary process mount a small disk")
    command = f"{mount} && {sys.executable} {program} {raw} {disk}; status=$?; ls {disk}; exit $status"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "no space is left on the disk; free some and run again" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_records_point_at_their_pixels(repository):
    for source in SOURCES:
        records = read_table(repository.images / source / "records.parquet", RECORD_COLUMNS)
        assert records["image_id"].is_unique
        pixels = read_images(repository.images, records)
        assert pixels.shape == (len(records), 64, 64)
        assert np.allclose(pixels.mean(axis=(1, 2)), records["mean"], atol=0.01)
    assert len(list((repository.images / "kermany").glob("shard-*.npy"))) == 3
    rejected = pd.read_csv(repository.images / "kermany/rejected.csv")
    assert "the JPEG file is truncated" in rejected.set_index("reason").loc["unreadable image", "detail"]


def test_every_file_and_row_is_accounted_for(repository):
    report = json.loads((repository.reports / "assembly.json").read_text())
    for source, part in report["sources"].items():
        used = sum(sum(classes.values()) for classes in part["used"].values())
        assert part["raw"] == used + sum(part["rejected_at_ingest"].values()) + sum(
            part["left_out_at_assembly"].values()
        )
        files = len(list(repository.root.joinpath("origin", source).rglob("*.*g")))
        assert part["raw"] >= files if source == "covid" else part["raw"] > 3 * PATIENTS
    assert report["sources"]["nih"]["rejected_at_ingest"] == {"image without a row": 1, "row without an image": 2}
    assert report["sources"]["covid"]["left_out_at_assembly"] == {"no class of the task": 1}
    assert report["sources"]["nih"]["left_out_at_assembly"] == {"duplicate": 1}
    assert report["sources"]["kermany"]["left_out_at_assembly"] == {"duplicate": 1}


def test_no_patient_and_no_duplicate_is_in_two_splits(repository):
    table = repository.table()
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    assert table.groupby("group")["split"].nunique().max() == 1
    # of an NIH image and its larger copy in covid the larger stays, of a byte-identical pair the published test image
    assert table["image_id"].str.contains("copy-of-nih-0").sum() == 1
    assert not table["image_id"].str.contains("00000000_000").any()
    twins = table[table["image_id"].str.contains("NORMAL2-IM-009")]
    assert twins["image_id"].tolist() == ["kermany/chest_xray/test/NORMAL/NORMAL2-IM-0096-0001.jpeg"]
    published = table[(table["source"] == "kermany") & (table["published_split"] == "test")]
    assert (published["split"] == "test").all()


def test_assembling_twice_gives_the_same_bytes_and_another_seed_another_split(repository, params, tmp_path):
    again = Repository(tmp_path)
    shutil.copytree(repository.images, again.images)
    again.assemble(params)
    assert again.manifest.read_bytes() == repository.manifest.read_bytes()
    again.assemble(params.model_copy(update={"seed": params.seed + 1}))
    assert not again.table()["split"].equals(repository.table()["split"])


def test_contradicting_duplicates_are_left_out_whole(tmp_path, params):
    repository = Repository(tmp_path)
    for source in SOURCES:
        WRITERS[source](tmp_path / source)
    images = tmp_path / "covid/covid-chestxray-dataset/images"
    (images / "strep-0.jpg").write_bytes((images / "covid-0.png").read_bytes())
    for source in SOURCES:
        ingest(source, params.sources[source], params.ingest, tmp_path / source, repository.images / source)
    repository.assemble(params)
    table = repository.table()
    assert not table["image_id"].str.contains("covid-0.png|strep-0.jpg").any()
    report = json.loads((repository.reports / "assembly.json").read_text())
    assert report["sources"]["covid"]["left_out_at_assembly"]["duplicates with contradicting labels"] == 2


def test_an_unknown_finding_stops_with_its_place_or_is_set_aside(tmp_path, params):
    repository = Repository(tmp_path)
    for source in SOURCES:
        WRITERS[source](tmp_path / source)
    entries = tmp_path / "nih/Data_Entry_2017_v2020.csv"
    entries.write_text(entries.read_text().replace("00000000_000.png,No Finding", "00000000_000.png,Pnuemonia"))
    for source in SOURCES:
        ingest(source, params.sources[source], params.ingest, tmp_path / source, repository.images / source)
    with pytest.raises(CxrError, match=r"nih/images/00000000_000.png: finding 'Pnuemonia' .*1 images.* is not known"):
        repository.assemble(params)
    assert not repository.manifest.exists()
    repository.assemble(params, unknown_findings="set-aside")
    report = json.loads((repository.reports / "assembly.json").read_text())
    assert report["sources"]["nih"]["left_out_at_assembly"]["unknown finding"] == 1


def test_a_class_that_cannot_be_split_is_named(repository, params, tmp_path):
    few = Repository(tmp_path)
    shutil.copytree(repository.images, few.images)
    path = few.images / "covid/records.parquet"
    records = pd.read_parquet(path)
    records[~records["findings"].str.contains("COVID-19") | records["image_id"].str.endswith("covid-1.png")].to_parquet(
        path
    )
    with pytest.raises(CxrError, match=r"class 'COVID-19' has too few patients to split .*at least 1 in each"):
        few.assemble(params)


def test_validation_passes_and_names_what_fails(repository, params):
    assert repository.validate(params) == []
    verdict = json.loads((repository.reports / "validation.json").read_text())
    assert verdict["passed"]
    warnings = [e for e in verdict["expectations"] if not e["success"]]
    assert [(e["column"], e["rows"]) for e in warnings] == [("sources", ["COVID-19"])]  # a class of one source
    failures = repository.validate(params, mean_range=(15, 90), min_test_per_class=1000)
    assert any("pixel_mean" in f and " of 129 rows: covid/" in f for f in failures)
    assert any("classes: " in f and "COVID-19" in f for f in failures)
    pages = list((repository.reports / "data-docs").rglob("*.html"))
    assert len(pages) > 3
    for page in pages:
        text = page.read_text()
        assert 'src="http' not in text
        assert "<link" not in text or 'href="http' not in text.split("<link", 1)[1].split(">", 1)[0]
    repository.validate(params)


def test_validation_finds_a_leak_and_an_empty_image(repository, params, tmp_path):
    broken = Repository(tmp_path)
    broken.reports.mkdir()
    shutil.copytree(repository.images, broken.images)
    table = repository.table()
    group = table["group"].value_counts().index[0]
    leaking = table.index[table["group"] == group][:2]
    table.loc[leaking, "split"] = ["train", "test"]
    shard = broken.images / table["source"][0] / table["shard"][0]
    pixels = np.load(shard)
    pixels[table["row"][0]] = 128
    np.save(shard, pixels)
    table.to_parquet(broken.manifest)
    failures = broken.validate(params)
    assert any("splits" in f and f"{group} (2)" in f for f in failures)
    assert any("pixel_std" in f and table["image_id"][0] in f for f in failures)


def test_a_jpeg_of_the_source_goes_the_same_way_as_in_the_service(repository, params, tiny_release):
    """Raw bytes through the service's path equal the ingested pixels."""
    from cxr.images import load_radiograph

    data = encode(picture(9000, -0.8, 110, 100), ".png")
    table = read_table(repository.images / "covid/records.parquet", RECORD_COLUMNS)
    row = table[table["image_id"].str.endswith("covid-0.png")]
    image = load_radiograph(data, params.ingest.pixels).image
    assert (read_images(repository.images, row)[0] == image).all()
    assert cv2.countNonZero(image) > 0
