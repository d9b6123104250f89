"""Regions and their masks, from the source's files to the manifest, the measures, the service and its page."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr import metrics
from cxr.archives import Tree
from cxr.errors import CxrError, ImageError, ParamsError
from cxr.images import load_radiograph
from cxr.inference import Release
from cxr.labels import TASKS
from cxr.manifest import MANIFEST_COLUMNS, RECORD_COLUMNS, read_table
from cxr.masks import mask_from_boxes, mask_from_file
from cxr.model_card import card, to_markdown
from cxr.params import GateRule, IngestParams, Params, PublishedSource, TableSource, load_params
from cxr.sources import READERS, SetAside
from cxr.store import read_images, read_masks
from stages.assemble import assemble
from stages.gate import judge
from stages.ingest.stream import ingest
from stages.validate.manifest import validate_manifest
from stages.validate.records import validate_records
from stages.validate.suites import failures
from tests.image_files import dicom, jpeg, png
from tests.live_service import serve
from tests.masked_source import PATIENTS, film, write, write_masked
from tests.release_fixture import build_region_release
from tests.test_params import changed
from tests.tiny_repository import tiny_params

REAL = Path(__file__).parents[2] / "shared/real"
COVID = PublishedSource(reader="covid", origin="/data")
SHIPPED = load_params()


def pixel_params(**changes):
    return SHIPPED.ingest.pixels.model_copy(update={"size": 64} | changes)


# ---------------------------------------------------------------------------------------------------- one image's mask


def bright_box(height: int, width: int) -> tuple[np.ndarray, list[int]]:
    """A grey film with a frame of black around it and one white box: the image shows its own mask."""
    pixels = np.full((height, width), 90, np.uint8)
    pixels[:, ::2] += 4  # no row is of one grey but those of the frame
    frame = height // 12
    pixels[:frame], pixels[-frame:], pixels[:, :frame], pixels[:, -frame:] = 0, 0, 0, 0
    x, y, w, h = width // 4, height // 3, width // 3, height // 4
    pixels[y : y + h, x : x + w] = 255
    return pixels, [x, y, w, h]


def padded_dicom(pixels: np.ndarray) -> bytes:
    """With unequal borders of padding, which decoding cuts off."""
    whole = np.pad(pixels.astype(np.uint16) + 1, ((30, 10), (44, 0)), constant_values=0)
    return dicom(whole, PixelPaddingValue=0)


@pytest.mark.parametrize("square", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("cut", [{}, {"crop": "border"}, {"margin": 0.1}, {"crop": "border", "margin": 0.05}])
@pytest.mark.parametrize("kind", ["png", "large jpeg", "dicom"])
def test_a_mask_goes_the_way_of_its_image(square, cut, kind):
    height, width = (1250, 1600) if kind == "large jpeg" else (150, 190)  # the large one is decoded at a quarter
    pixels, (x, y, w, h) = bright_box(height, width)
    drawn = np.zeros_like(pixels)
    drawn[y : y + h, x : x + w] = 255
    data = {"png": png, "large jpeg": jpeg, "dicom": padded_dicom}[kind](pixels)
    if kind == "dicom":
        x, y, drawn = x + 44, y + 30, np.pad(drawn, ((30, 10), (44, 0)))
    params = pixel_params(square=square, **cut)
    radiograph = load_radiograph(data, params)
    shown = radiograph.image > 172  # half-way between the box and what surrounds it
    assert shown.any()
    of_file = mask_from_file(png(drawn), radiograph, 64) > 0
    of_boxes = mask_from_boxes(json.dumps([[x, y, w, h]]), radiograph) > 0
    edge = cv2.morphologyEx(shown.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    for found in (of_file, of_boxes):
        assert not (found ^ shown)[~edge].any()
        assert np.abs(np.argwhere(found).mean(axis=0) - np.argwhere(shown).mean(axis=0)).max() < 0.6  # pixels
        assert not found[np.isnan(radiograph.places[0])].any()
        assert not found[:, np.isnan(radiograph.places[1])].any()


def test_places_count_the_pixels_of_the_published_file():
    radiograph = load_radiograph(png(film(0, 64, 128)[0]), pixel_params(square="letterbox"))
    rows, columns = radiograph.places
    assert columns.tolist() == (2 * np.arange(64) + 1).tolist()
    assert np.isnan(rows[:16]).all()
    assert rows[16:48].tolist() == (2 * np.arange(32) + 1).tolist()


def test_a_mask_of_another_size_is_read_at_the_same_places():
    pixels, mask = film(3, 200, 240)
    radiograph = load_radiograph(png(pixels), pixel_params())
    whole = mask_from_file(png(mask), radiograph, 64)
    half = mask_from_file(png(cv2.resize(mask, (120, 100), interpolation=cv2.INTER_AREA)), radiograph, 64)
    assert whole.any()
    assert (whole != half).mean() < 0.01
    assert set(np.unique(whole)) == {0, 255}


def test_several_boxes_may_overlap_and_none_is_an_empty_mask():
    radiograph = load_radiograph(png(film(0, 64, 64)[0]), pixel_params())
    mask = mask_from_boxes("[[0, 0, 10, 4], [8, 2, 10, 4.0], [60, 60, 100, 100]]", radiograph)
    assert (mask > 0).sum() == 40 + 40 - 4 + 16
    assert not mask_from_boxes("[]", radiograph).any()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            png(np.full((100, 100), 255, np.uint8)),
            r"has 100x100 pixels, its image 120x100: not the same",
        ),
        (png(film(0)[1] // 255), r"brightest grey level is 1; 0 outside and 255 inside are expected"),
        (png(film(0)[1])[:300], r"."),
        (dicom(film(0)[1]), r"a DICOM file; PNG or JPEG is expected"),
    ],
)
def test_a_mask_that_cannot_be_used_is_one_sentence(data, sentence):
    radiograph = load_radiograph(png(film(0)[0]), pixel_params())
    with pytest.raises(ImageError, match=sentence):
        mask_from_file(data, radiograph, 64)


def test_what_a_mask_calls_hidden_is_outside():
    pixels, mask = film(0)
    radiograph = load_radiograph(png(pixels), pixel_params())
    marked = mask.copy()
    marked[40:60, 20:40] = 127  # an arrow lies over the lung
    clean, hidden = (mask_from_file(png(m), radiograph, 64) for m in (mask, marked))
    assert not (hidden > clean).any()
    assert (hidden < clean).sum() > 20


# -------------------------------------------------------------------------------------------------------------- ingest


INGEST = tiny_params().ingest.model_copy(update={"workers": 2})


def run(raw: Path, out: Path, params: IngestParams = INGEST) -> None:
    ingest("covid", COVID, params, raw, out, out.with_suffix(".seen"))


def records(out: Path) -> pd.DataFrame:
    return read_table(out / "records.parquet", RECORD_COLUMNS).assign(source=out.name)


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_csv(out / "rejected.csv", keep_default_na=False)
    return dict(zip(table["path"], table["reason"], strict=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return write_masked(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def ingested(raw, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("images") / "covid"
    run(raw, out)
    return out


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
    run(REAL / "covid", out, SHIPPED.ingest)
    table = records(out)
    masked = table[table["mask"] == "lungs"]
    reasons = pd.Series(rejected(out)).value_counts()
    assert len(masked) + reasons["unusable mask"] >= 196  # of 197; one image is refused as blank
    assert masked["mask_share"].between(0.1, 0.7).all()
    images, masks = read_images(tmp_path, masked), read_masks(tmp_path, masked) > 0
    body = images > 30  # not the air beside the patient
    lungs, rest = (np.where(chosen, images, 0).sum((1, 2)) / chosen.sum((1, 2)) for chosen in (masks, body & ~masks))
    assert np.mean(lungs < rest) > 0.9


# ------------------------------------------------------------------------------------------------- assembly and doors


def settings(**train: object) -> Params:
    values = tiny_params().model_dump(by_alias=True)
    values |= {"task": "localise-lungs", "sources": {"covid": COVID.model_dump()}}
    values["assemble"]["official_test"] = []
    values["train"] |= {"model": "unet"} | train
    values["gate"]["rules"] = [{"metric": "dice", "slice": "test", "comparison": ">=", "limit": 0.3}]
    return Params.model_validate(values)


def assembled(folder: Path, ingested: Path, p: Params) -> Path:
    shutil.copytree(ingested, folder / "images/covid")
    assemble(
        TASKS[p.task], p.assemble, p.sources, p.seed, folder / "images", Path("data/reviewed_pairs.csv"),
        folder / "manifest.parquet", folder / "assembly.json", folder / "duplicates",
    )  # fmt: skip
    return folder / "manifest.parquet"


def test_images_are_labelled_by_their_masks_and_none_is_lost(ingested, tmp_path):
    p = settings()
    manifest = read_table(assembled(tmp_path, ingested, p), MANIFEST_COLUMNS)
    assert set(manifest["label"]) == {"Lungs"}
    assert len(manifest) == PATIENTS
    part = json.loads((tmp_path / "assembly.json").read_text())["sources"]["covid"]
    assert part["left_out_at_assembly"] == {"no mask of lungs": PATIENTS}
    assert part["raw"] == 2 * PATIENTS + 3
    assert {split: counts["Background"] for split, counts in part["used"].items()} == {"train": 0, "val": 0, "test": 0}
    results = validate_manifest(
        p.task, p.validate_, tmp_path / "manifest.parquet", tmp_path / "images", tmp_path / "v.json", tmp_path / "docs"
    )
    assert failures(results) == []
    assert sum(result.table == "masks" for result in results) == 3


def test_background_and_region_are_told_by_the_mask_alone(ingested, tmp_path):
    shutil.copytree(ingested, tmp_path / "source")
    table = pd.read_parquet(tmp_path / "source/records.parquet")
    of_film = table["image_id"].str.extract(r"film-(\d+)-(\d)").astype(int)
    table["mask"] = "opacities"
    table["mask_share"] = np.where(of_film[0] % 2 == 0, 0.0, 0.2)
    table.to_parquet(tmp_path / "source/records.parquet")
    p = settings().model_copy(update={"task": "localise-opacities"})
    manifest = read_table(assembled(tmp_path, tmp_path / "source", p), MANIFEST_COLUMNS)
    share = manifest["mask_share"]
    assert (manifest["label"] == np.where(share > 0, "Opacity", "Background")).all()
    assert manifest["label"].nunique() == 2
    assert TASKS["localise-opacities"].needed == ("Opacity",)


def test_a_region_without_masks_is_one_sentence(ingested, tmp_path):
    with pytest.raises(CxrError, match=r"task localise-opacities: class 'Opacity' has too few patients"):
        assembled(tmp_path, ingested, settings().model_copy(update={"task": "localise-opacities"}))


def test_masks_that_were_changed_on_disk_do_not_pass_the_second_door(ingested, tmp_path):
    p = settings()
    manifest = assembled(tmp_path, ingested, p)
    path = tmp_path / "images/covid/masks-00000.npy"
    np.save(path, 255 - np.load(path))
    results = validate_manifest(
        p.task, p.validate_, manifest, tmp_path / "images", tmp_path / "v.json", tmp_path / "docs"
    )
    assert any("the masks are not those that were ingested" in sentence for sentence in failures(results))


def test_the_first_door_knows_the_regions(ingested, tmp_path):
    shutil.copytree(ingested, tmp_path / "images/covid")
    path = tmp_path / "images/covid/records.parquet"
    table = pd.read_parquet(path)
    p = settings()

    def judged() -> list[str]:
        return failures(
            validate_records({"covid"}, p.validate_, tmp_path / "images", tmp_path / "v.json", tmp_path / "d")
        )

    assert judged() == []
    table.loc[0, "mask"] = "heart"
    table.to_parquet(path)
    assert any("(mask, value_set=['lungs', 'opacities']): found 1 of" in sentence for sentence in judged())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "localise-lungs"}, r"task localise-lungs with train.model cnn: unet finds regions"),
        ({"train__model": "unet"}, r"task covid with train.model unet: unet finds regions"),
        (
            {"task": "localise-lungs", "train__model": "unet", "train__augment__mixup": 0.2},
            r"mixup and cutmix must be 0 for localise-lungs",
        ),
        (
            {"task": "localise-lungs", "train__model": "unet", "train__views__shift_fraction": 0.01},
            r"train.views: must be 0 for localise-lungs",
        ),
        ({"train__model": "unet", "train__weights": "imagenet"}, r"unet is trained from scratch"),
    ],
)
def test_a_task_and_a_network_that_do_not_fit_are_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(ParamsError, match=sentence):
        load_params(changed(tmp_path, **changes))


# ---------------------------------------------------------------------------------------------------- measures and card


def squares(*corners: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(corners), 8, 8), bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


TRUE = squares((0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 0, 0), (0, 0, 0, 0))
FOUND = squares((0, 0, 4, 4), (0, 0, 4, 2), (4, 4, 8, 8), (0, 0, 0, 0), (0, 0, 1, 1))


def test_overlaps_by_hand():
    found = metrics.overlaps(TRUE, FOUND)
    assert found["dice"].tolist() == pytest.approx([1, 16 / 24, 0, 1, 0])
    assert found["iou"].tolist() == pytest.approx([1, 8 / 16, 0, 1, 0])


def test_measures_of_regions_are_means_over_images_and_intervals_over_patients():
    measured = metrics.overlaps(TRUE, FOUND)
    y_true = np.array([1, 1, 1, 0, 0])
    found = metrics.measure_overlaps(measured, y_true, ("Background", "Opacity"))
    assert (found["n"], found["dice"], found["mean_iou"]) == (5, 0.5333, 0.5)
    assert found["classes"]["Opacity"] == {"n": 3, "dice": 0.5556, "mean_iou": 0.5}
    nobody = metrics.measure_overlaps(measured[:3], y_true[:3], ("Background", "Opacity"))
    assert nobody["classes"]["Background"] == {"n": 0, "dice": None, "mean_iou": None}
    one_patient = metrics.overlap_intervals(measured, np.zeros(5), 100, 0)
    assert one_patient == {"dice": [0.5333, 0.5333], "mean_iou": [0.5, 0.5]}
    low, high = metrics.overlap_intervals(measured, np.arange(5), 1000, 0)["dice"]
    assert low < 0.5333 < high


@pytest.mark.parametrize(
    ("metric", "limit", "passed"),
    [("dice", 0.5333, True), ("dice", 0.5334, False), ("mean_iou", 0.5, True), ("dice[Opacity]", 0.6, False)],
)
def test_the_gate_judges_overlaps(metric, limit, passed):
    y_true = np.array([1, 1, 1, 0, 0])
    slices = {"test": metrics.measure_overlaps(metrics.overlaps(TRUE, FOUND), y_true, ("Background", "Opacity"))}
    rule = GateRule(metric=metric, slice="test", comparison=">=", limit=limit)
    assert judge(rule, slices)["passed"] is passed


def test_a_rule_of_classifiers_is_one_sentence_for_a_region():
    slices = {"test": metrics.measure_overlaps(metrics.overlaps(TRUE, FOUND), np.ones(5, int), ("Background", "Lungs"))}
    rule = GateRule(metric="auroc_macro", slice="test", comparison=">=", limit=0.5)
    with pytest.raises(CxrError, match=r"gate: no metric 'auroc_macro'; there are n, dice, mean_iou"):
        judge(rule, slices)


# ----------------------------------------------------------------------------------------------- release and service


@pytest.fixture(scope="module")
def region_service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("region")
    with serve(folder, CXR_RELEASE=str(build_region_release(folder / "release"))) as service:
        yield service


def ask(service, pixels: np.ndarray, **query: str) -> dict:
    answer = service.client.post("/v1/predict", files={"file": png(pixels)}, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_service_answers_with_the_mask_and_the_share_of_the_image(region_service):
    from tests.test_service import decode, logged

    pixels, mask = film(2, 128, 128)
    answer = ask(region_service, pixels, heatmap="true")
    found, image, drawn = (decode(answer[name]) for name in ("mask", "image", "heatmap"))
    assert answer["predicted"] == "Lungs"
    assert set(np.unique(found)) == {0, 255}
    assert (found == np.uint8(255) * (image < 100)).all()
    assert (drawn[..., 3] == found).all()
    expected = cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA) > 127
    assert metrics.overlaps(expected[np.newaxis], found[np.newaxis] > 0)["dice"][0] > 0.9
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert answer["probabilities"]["Lungs"] == pytest.approx((found > 0).mean(), abs=0.05)
    row = logged(region_service)[answer["request_id"]]
    assert (row["predicted"], json.loads(row["probabilities"])) == ("Lungs", answer["probabilities"])
    assert "mask" not in ask(region_service, pixels)


def test_an_image_without_the_region_is_background(region_service):
    answer = ask(region_service, np.full((80, 80), 200, np.uint8), heatmap="true")
    assert answer["predicted"] == "Background"
    assert answer["probabilities"]["Background"] > 0.99


def test_the_contract_says_what_a_mask_is(region_service):
    answer = region_service.client.get("/v1/openapi.json").json()["components"]["schemas"]["Answer"]["properties"]
    assert "255 inside" in answer["mask"]["description"]
    assert "share of the square" in answer["probabilities"]["description"]


def test_a_classifier_says_nothing_of_masks(live):
    assert "mask" not in ask(live, film(2)[0], heatmap="true")


def test_the_card_tells_overlaps(tmp_path):
    facts = Release.load(build_region_release(tmp_path)).facts
    measured = metrics.measure_overlaps(metrics.overlaps(TRUE, FOUND), np.ones(5, int), facts.classes)
    measured["interval_95"] = {"dice": [0.4, 0.6], "mean_iou": [0.3, 0.7]}
    training = {"model": "unet", "parameters": 1, "epochs_run": 1, "seed": 0, "balance": "none"}
    used = {split: {"Background": 0, "Lungs": 5} for split in ("train", "val", "test")}
    assembly = {"sources": {"covid": {"used": used}}}
    text = to_markdown(card(facts, training, assembly, [], {"slices": {"test": measured}}, {"rules": []}))
    assert "| test | 5 | 0.533 (0.400 to 0.600) | 0.500 (0.300 to 0.700) |" in text
    assert "Operating points (of a pixel): Background ≥ 0.500, Lungs ≥ 0.500" in text
    assert "AUROC" not in text
    assert "no measure of volume" in text


def test_the_monitor_reads_answers_of_a_region(region_service):
    from cxr.drift import log_table

    rows = [
        {"descriptors": {}, "probabilities": {"Background": 0.6, "Lungs": 0.4}, "model_version": "a", "request_id": "1"}
    ]
    table = log_table(rows, TASKS["localise-lungs"].classes, "a")
    assert table[["score_Background", "score_Lungs"]].iloc[0].tolist() == pytest.approx([0.6, 0.4])
