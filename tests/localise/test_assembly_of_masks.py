"""Images are labelled by their masks, and the doors know them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from checks.suites import failures
from cxr.dataset.manifest import MANIFEST_COLUMNS, read_table
from cxr.errors import CxrError, ParamsError
from cxr.params import load_params
from cxr.tasks import TASKS
from stages.validate.manifest import validate_manifest
from stages.validate.records import validate_records
from tests.localise.masked_stages import assembled, settings
from tests.masked_source import PATIENTS
from tests.test_params import changed


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
    assert any("mask must be one of lungs, opacities: found 1 of" in sentence for sentence in judged())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "localise-lungs"}, r"task localise-lungs with train.model cnn: the tasks .* need unet"),
        ({"train__model": "unet"}, r"task covid with train.model unet: the tasks .* need unet"),
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
