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

from cxr.dataset.manifest import RECORD_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.errors import CxrError
from tests.tiny_repository import SOURCES, Repository
from tests.tiny_sources import PATIENTS, WRITERS, encode, picture

FULL_DISK = """
import sys
from pathlib import Path
from cxr.errors import plain_errors
from stages.acquire import acquire
from stages.ingest.stream import ingest
from tests.tiny_repository import tiny_params

if __name__ == "__main__":
    raw, disk, p = Path(sys.argv[1]), Path(sys.argv[2]), tiny_params()
    with plain_errors():
        {call}
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    "call",
    [
        "acquire('nih', p.sources['nih'], p.demo.model_copy(update={'nih': 24}), 0, disk / 'raw', disk / 'sums')",
        "name = 'kermany'; ingest(name, p.sources[name], p.ingest, raw, disk / 'images', disk / 'seen')",
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
    command = f"{mount} && {sys.executable} {program} {raw} {disk}; status=$?; find {disk} -type f; exit $status"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "no space is left on the disk; free some and run again" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() in ([], [f"{disk}/images/recipe.json"])  # to which the next run adds


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
    assert report["sources"]["covid"]["left_out_at_assembly"] == {"finding not stated": 1}
    assert report["sources"]["covid"]["words_left_out"] == {"todo": 1}
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


def test_a_jpeg_of_the_source_goes_the_same_way_as_in_the_service(repository, params, tiny_release):
    """Raw bytes through the service's path equal the ingested pixels."""
    from cxr.pixels.radiograph import load_radiograph

    data = encode(picture(9000, -0.8, 110, 100), ".png")
    table = read_table(repository.images / "covid/records.parquet", RECORD_COLUMNS)
    row = table[table["image_id"].str.endswith("covid-0.png")]
    image = load_radiograph(data, params.ingest.pixels).image
    assert (read_images(repository.images, row)[0] == image).all()
    assert cv2.countNonZero(image) > 0
