"""Masks from a source's files to the records."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.dataset.manifest import RECORD_COLUMNS, read_table
from cxr.dataset.store import read_images, read_masks
from cxr.params import PublishedSource, TableSource, load_params
from cxr.raw.archives import Tree
from cxr.sources import READERS, SetAside
from stages.ingest.stream import ingest
from tests.image_files import dicom, png
from tests.localise.masked_stages import COVID, INGEST, run
from tests.masked_source import PATIENTS, film, write, write_masked

REAL = Path(__file__).parents[3] / "shared/real"


def records(out: Path) -> pd.DataFrame:
    return read_table(out / "records.parquet", RECORD_COLUMNS).assign(source=out.name)


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_csv(out / "rejected.csv", keep_default_na=False)
    return dict(zip(table["path"], table["reason"], strict=True))


# -------------------------------------------------------------------------------------------------------------- ingest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_masks_lie_beside_the_pixels_they_are_of(ingested):
    table = records(ingested)
    assert len(table) == 2 * PATIENTS
    masked = table[table["mask"].notna()]
    assert set(masked["mask"]) == {"lungs"}
    assert len(masked) == PATIENTS
    assert masked["image_id"].str.contains("-0.").all()
    images, masks = read_images(ingested.parent, masked), read_masks(ingested.parent, masked)
    assert masks.shape == images.shape
    assert set(np.unique(masks)) == {0, 255}
    for image, mask in zip(images, masks, strict=True):
        assert image[mask > 0].mean() < image[mask == 0].mean() - 60  # lungs are dark
    assert np.allclose((masks > 0).mean(axis=(1, 2)), masked["mask_share"])
    without = table[table["mask"].isna()]
    assert without["mask_share"].isna().to_numpy().all()
    assert not read_masks(ingested.parent, without).any()


def test_every_mask_that_is_not_used_has_its_reason(ingested):
    assert rejected(ingested) == {
        "lung-masks/absent.png": "mask without an image",
        "lung-masks/film-0-1.png": "unusable mask",
        "lung-masks/film-1-1.jpg": "unusable mask",
    }
    details = pd.read_csv(ingested / "rejected.csv").set_index("path")["detail"]
    assert "the mask has 80x100 pixels, its image 120x100" in details["lung-masks/film-0-1.png"]
    assert "brightest grey level is 1" in details["lung-masks/film-1-1.jpg"]


def test_pixels_are_the_same_bytes_without_masks(raw, ingested, tmp_path):
    bare = tmp_path / "raw"
    shutil.copytree(raw / "dataset", bare / "dataset", copy_function=shutil.copy2)
    run(bare, tmp_path / "covid")
    found = contents(tmp_path / "covid")
    assert not [name for name in found if name.startswith("masks")]
    pixels = {name: data for name, data in contents(ingested).items() if name.startswith(("shard", "thumbs"))}
    assert len(pixels) == 6
    assert {name: found[name] for name in pixels} == pixels


def test_dask_carries_masks_too(raw, ingested, tmp_path):
    run(raw, tmp_path / "covid", INGEST.model_copy(update={"executor": "dask"}))
    assert contents(tmp_path / "covid") == contents(ingested)


def test_a_second_run_decodes_nothing(raw, ingested, tmp_path, capsys):
    out = tmp_path / "covid"
    shutil.copytree(ingested, out)
    shutil.copy(ingested.with_suffix(".seen"), out.with_suffix(".seen"))
    for seen in (True, False):  # by the table of seen files, and by the bytes
        run(raw, out)
        assert "(0 files decoded now)" in capsys.readouterr().out, seen
        assert contents(out) == contents(ingested)
        out.with_suffix(".seen").unlink()


def test_a_new_a_changed_and_a_removed_mask_cost_only_their_images(raw, ingested, tmp_path, capsys):
    here, out = tmp_path / "raw", tmp_path / "covid"
    shutil.copytree(raw, here, copy_function=shutil.copy2)
    shutil.copytree(ingested, out)
    before, first = contents(out), records(out).set_index("image_id")
    write(here / "lung-masks/film-4-1.png", png(film(401)[1]))  # new
    write(here / "lung-masks/film-6-0.png", png(film(999)[1]))  # changed
    (here / "lung-masks/film-8-0.png").unlink()  # removed
    write(here / "lung-masks/film-0-1.png", png(film(1)[1]))  # mended
    run(here, out)
    assert "(4 files decoded now)" in capsys.readouterr().out
    after, table = contents(out), records(out).set_index("image_id")
    assert {name: after[name] for name in before if name.startswith(("shard", "thumbs", "masks", "facts"))} == {
        name: data for name, data in before.items() if name.startswith(("shard", "thumbs", "masks", "facts"))
    }
    assert table.index.tolist() == first.index.tolist()
    names = [f"covid/dataset/images/film-{n}.png" for n in ("0-1", "4-1", "6-0", "8-0")]
    moved = table["shard"] != first["shard"]
    assert set(table.index[moved]) == set(names)
    assert table.loc[names, "mask"].fillna("none").tolist() == ["lungs", "lungs", "lungs", "none"]
    masks = read_masks(out.parent, table.loc[names[1:3]])
    for mask, seed in zip(masks, (401, 999), strict=True):
        expected = cv2.resize(film(seed)[1], (64, 64), interpolation=cv2.INTER_AREA) > 127
        assert ((mask > 0) ^ expected).mean() < 0.02
    assert "lung-masks/film-0-1.png" not in rejected(out)

    fresh = tmp_path / "fresh"
    run(here, fresh)
    again = records(fresh)
    assert (read_images(tmp_path, again) == read_images(tmp_path, table.reset_index())).all()
    assert again["mask_share"].equals(table["mask_share"].reset_index(drop=True))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_masks_in_archives_are_read_in_whatever_order_they_lie(raw, ingested, tmp_path, kind, capsys):
    packed = tmp_path / "raw"
    packed.mkdir()
    files = sorted(path for path in raw.rglob("*") if path.is_file())
    files.sort(key=lambda path: "lung-masks" not in path.parts)  # masks before their images
    if kind == "zip":
        with zipfile.ZipFile(packed / "all.zip", "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(raw))
    else:
        with tarfile.open(packed / "all.tar.gz", "w:gz") as archive:
            for path in files:
                info = tarfile.TarInfo(str(path.relative_to(raw)))
                info.size = path.stat().st_size
                archive.addfile(info, io.BytesIO(path.read_bytes()))
    for path in packed.iterdir():
        os.utime(path, (1e9, 1e9))
    out = tmp_path / "covid"
    run(packed, out)
    table = records(out)
    whole = records(ingested).set_index("image_id").loc[table["image_id"]].reset_index()
    assert table["mask_share"].equals(whole["mask_share"])
    assert (read_masks(tmp_path, table) == read_masks(ingested.parent, whole)).all()
    capsys.readouterr()
    run(packed, out)
    assert "(0 files decoded now)" in capsys.readouterr().out


def test_a_mask_that_cannot_be_read_leaves_its_image(raw, tmp_path):
    here, out = tmp_path / "raw", tmp_path / "covid"
    shutil.copytree(raw, here)
    (here / "lung-masks/film-2-0.png").unlink()
    (here / "lung-masks/film-2-0.png").symlink_to("nowhere")
    run(here, out)
    assert rejected(out)["lung-masks/film-2-0.png"] == "unusable mask"
    table = records(out).set_index("image_id")
    assert table.loc["covid/dataset/images/film-2-0.png", ["mask", "mask_share"]].isna().all()


# ------------------------------------------------------------------------------------------------------------- readers


# ------------------------------------------------------------------------------------------------------------- readers


def test_the_networks_masks_of_the_repository_are_used_where_there_is_no_other(tmp_path):
    raw = write_masked(tmp_path, 2)
    for name in ("film-0-0_mask.png", "film-0-1_mask.png", "gone_mask.png"):
        write(raw / "dataset/annotations/lungVAE-masks" / name, png(film(5)[1]))
    (raw / "lung-masks/film-0-1.png").unlink()
    items = list(READERS["covid"](Tree(raw), COVID))
    masks = {item.path.rpartition("/")[2]: item.mask for item in items if not isinstance(item, SetAside)}
    assert masks["film-0-0.png"].path == "lung-masks/film-0-0.png"
    assert masks["film-0-1.png"].path == "dataset/annotations/lungVAE-masks/film-0-1_mask.png"
    reasons = {item.path.rpartition("/")[2]: (item.reason, item.detail) for item in items if isinstance(item, SetAside)}
    assert reasons["film-0-0_mask.png"] == ("another mask", "lung-masks/film-0-0.png")
    assert reasons["gone_mask.png"] == ("mask without an image", "")


def test_rsna_images_have_masks_of_opacities_where_boxes_are_and_empty_ones_elsewhere(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "rsna"
    box = ["264.0", "152.0", "213.5", "379.0"]
    lines = ["patientId,x,y,width,height,Target", f"a,{','.join(box)},1", "b,,,,,0"]
    write(raw / "stage_2_train_labels.csv", "\n".join(lines).encode())
    write(raw / "stage_2_detailed_class_info.csv", b"patientId,class\na,Lung Opacity\nb,Normal\n")
    for n, name in enumerate("ab"):
        write(raw / f"stage_2_train_images/{name}.dcm", dicom(film(n, 640, 800)[0], ViewPosition="PA"))
    source = PublishedSource(reader="rsna", origin="/data")
    ingest("rsna", source, INGEST, raw, out, tmp_path / "rsna.seen")
    table = records(out)
    assert table["mask"].tolist() == ["opacities", "opacities"]
    opacity, normal = read_masks(tmp_path, table) > 0
    expected = np.zeros((64, 64), bool)
    expected[15:53, 21:38] = True  # centres at 5 and 15 of 10 rows, at 6.25 of 12.5 columns
    assert (opacity == expected).all()
    assert not normal.any()
    assert table["mask_share"].tolist() == pytest.approx([expected.mean(), 0])
    write(raw / "stage_2_train_labels.csv", "\n".join([*lines, "b,10,10,100,100,1"]).encode())
    ingest("rsna", source, INGEST, raw, out, tmp_path / "rsna.seen")
    assert (records(out)["mask_share"] > 0).all()


def test_a_table_may_name_masks(tmp_path):
    raw = tmp_path / "raw"
    lines = ["image,patient,finding,drawing"]
    for n, drawing in enumerate(["masks/0-lungs.png", "1-lungs", "", "absent.png"]):
        pixels, mask = film(n)
        write(raw / f"films/{n}.png", png(pixels))
        if "lungs" in drawing:
            write(raw / f"masks/{n}-lungs.png", png(mask))
        lines.append(f"{n}.png,p{n},clear,{drawing}")
    write(raw / "rows.csv", "\n".join(lines).encode())
    source = TableSource(
        reader="table", origin=str(raw), licence=None, words={"clear": "Normal"}, table="rows.csv",
        columns={"path": "image", "patient_id": "patient", "findings": "finding", "lungs": "drawing"},
    )  # fmt: skip
    out = tmp_path / "own"
    ingest("own", source, INGEST, raw, out, tmp_path / "own.seen")
    assert records(out)["mask"].fillna("none").tolist() == ["lungs", "lungs", "none", "none"]
    assert rejected(out) == {"absent.png": "row names no mask"}
    both = {"path": "a", "patient_id": "b", "findings": "c", "lungs": "d", "opacities": "e"}
    with pytest.raises(ValueError, match="both lungs and opacities"):
        TableSource.model_validate(source.model_dump() | {"columns": both})


@pytest.mark.skipif(not REAL.exists(), reason="needs the real sources")
def test_the_real_lung_masks_fit_their_images(tmp_path):
    out = tmp_path / "covid"
    run(REAL / "covid", out, load_params().ingest)
    table = records(out)
    masked = table[table["mask"] == "lungs"]
    reasons = pd.Series(rejected(out)).value_counts()
    assert len(masked) + reasons["unusable mask"] >= 196  # of 197; one image is refused as blank
    assert masked["mask_share"].between(0.1, 0.7).all()
    images, masks = read_images(tmp_path, masked), read_masks(tmp_path, masked) > 0
    body = images > 30  # not the air beside the patient
    lungs, rest = (np.where(chosen, images, 0).sum((1, 2)) / chosen.sum((1, 2)) for chosen in (masks, body & ~masks))
    assert np.mean(lungs < rest) > 0.9
