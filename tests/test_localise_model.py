"""The U-Net, its loss, its batches, and the stages from training to the package on a tiny source with masks."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.dataset.store import Pixels, read_images, read_masks
from cxr.errors import CxrError
from cxr.evaluation import metrics
from cxr.params import Params
from cxr.pixels.examine import examine
from cxr.release.model import OUTPUTS, OpenVinoModel, Release
from cxr.training.augment import augment, move
from tests.image_files import png
from tests.localise.masked_stages import assembled, run, settings
from tests.masked_source import film, write_masked

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from cxr.models import build_model
from cxr.training.batches import Batches
from cxr.training.overlap import SoftDice, dice, iou

P = settings(epochs=0)


def films(n: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    pairs = [film(i, size, size) for i in range(n)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def logits_of(masks: np.ndarray, certainty: float = 40.0) -> np.ndarray:
    """Logits, (n, h, w, 2), whose softmax is the masks."""
    z = certainty * (np.float32(masks > 0) - 0.5)
    return np.stack([-z, z], axis=-1)


# ------------------------------------------------------------------------------------------------------------- network


@pytest.mark.heavy
def test_the_unet_learns_a_step_is_exported_and_answers_alike(tmp_path):
    keras.utils.clear_session()
    images, masks = films(4)
    model = build_model(P.train, 32, 2)
    trained = keras.Model(model.input, model.output["heatmap"])
    trained.compile(keras.optimizers.SGD(1e-2), SoftDice(), run_eagerly=True)
    before = [np.asarray(weight) for weight in model.trainable_weights]
    assert np.isfinite(trained.train_on_batch(images[..., np.newaxis], np.uint8(masks > 0)[..., np.newaxis]))
    changed = [(np.asarray(w) != b).any() for w, b in zip(model.trainable_weights, before, strict=True)]
    assert np.mean(changed) > 0.9  # some biases stand before a norm that takes them out
    answer = {name: np.asarray(value) for name, value in model(images[..., np.newaxis], training=False).items()}
    assert sorted(answer) == sorted(OUTPUTS)
    assert answer["heatmap"].shape == (4, 32, 32, 2)
    assert answer["embedding"].shape == (4, 256)
    assert (answer["heatmap"][..., 0] == -answer["heatmap"][..., 1]).all()
    shares = 1 / (1 + np.exp(-2 * answer["heatmap"][..., 1]))
    assert np.abs(answer["probabilities"][:, 1] - shares.mean(axis=(1, 2))).max() < 1e-5
    assert np.abs(answer["probabilities"].sum(axis=1) - 1).max() < 1e-6
    model.export(str(tmp_path / "model.xml"), format="openvino", verbose=False)
    found = OpenVinoModel(tmp_path / "model.xml")(images)
    for name in OUTPUTS:
        assert np.abs(getattr(found, name) - answer[name]).max() <= 1e-3 * max(1, np.abs(answer[name]).max()), name


def test_the_unet_has_the_published_widths():
    model = build_model(P.train, 64, 2)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.SeparableConv2D)]
    assert [layer.filters for layer in convolutions[::2]] == [64, 128, 256, 256, 128, 64, 32]
    assert model.get_layer("stem").filters == 32
    assert model.get_layer("bottom").output.shape == (None, 4, 4, 256)


@pytest.mark.parametrize(("size", "sentence"), [(40, "multiple of 16 pixels a side, found 40"), (16, "32 pixels and")])
def test_a_square_that_does_not_fit_is_one_sentence(size, sentence):
    with pytest.raises(CxrError, match=sentence):
        build_model(P.train, size, 2)


# ----------------------------------------------------------------------------------------------------- loss and batches


def test_the_loss_by_hand():
    truth = np.zeros((4, 4, 4, 1), np.float32)
    truth[0, :2] = truth[1, :2] = 1
    found = truth.copy()
    found[1, :, 2:] = 0  # half of it
    found[3, 0, 0] = 1  # where nothing is
    losses = [float(SoftDice()(truth[i : i + 1], logits_of(found[i : i + 1, ..., 0]))) for i in range(4)]
    assert losses == pytest.approx([0, 1 - 9 / 13, 0, 1 - 1 / 2], abs=1e-5)
    even = float(SoftDice()(truth[:1], np.zeros((1, 4, 4, 2))))  # every pixel has probability 0.5
    assert even == pytest.approx(1 - (2 * 4 + 1) / (8 + 16 / 4 + 1), abs=1e-5)


def test_the_loss_is_the_mean_over_images_not_over_pixels():
    _, masks = films(6)
    truth = np.float32(masks > 0)[..., np.newaxis]
    found = logits_of(np.roll(masks, 3, axis=2), 4.0)
    alone = [float(SoftDice()(truth[i : i + 1], found[i : i + 1])) for i in range(6)]
    assert float(SoftDice()(truth, found)) == pytest.approx(np.mean(alone), abs=1e-5)
    weights = np.array([0, 0, 3, 0, 0, 3], np.float32)
    assert float(SoftDice()(truth, found, weights)) == pytest.approx((alone[2] + alone[5]) / 2, abs=1e-5)


def test_an_empty_mask_teaches_that_nothing_is_there():
    import tensorflow as tf

    truth, z = np.zeros((1, 8, 8, 1), np.float32), tf.Variable(np.full((1, 8, 8, 2), 0.0, np.float32))
    with tf.GradientTape() as tape:
        loss = SoftDice()(truth, z)
    gradient = np.asarray(tape.gradient(loss, z))
    assert (gradient[..., 1] > 0).all()  # the region's logit falls
    assert (gradient[..., 0] < 0).all()


def test_what_training_watches_is_what_evaluation_measures():
    _, masks = films(5)
    true, found = masks > 0, np.roll(masks, (2, 3), axis=(1, 2)) > 0
    true[3] = found[3] = False
    true[4] = False
    expected = metrics.overlaps(true, found)
    answers = np.uint8(true)[..., np.newaxis], logits_of(found)
    assert np.asarray(dice(*answers)) == pytest.approx(expected["dice"].to_numpy(), abs=1e-6)
    assert np.asarray(iou(*answers)) == pytest.approx(expected["iou"].to_numpy(), abs=1e-6)


def test_masks_move_with_their_images():
    _, masks = films(12, 96)
    strong = {"rotation_degrees": 25, "shift_fraction": 0.15, "zoom_fraction": 0.3, "shear_degrees": 10}
    params = P.train.augment.model_copy(
        update=strong | {"horizontal_flip": True, "brightness": 0, "contrast": 0, "erase": 0}
    )
    images = augment(masks, params, np.random.default_rng(3))  # an image that is its own mask
    moved = move(masks, params, np.random.default_rng(3))
    assert set(np.unique(moved)) <= {0, 255}
    assert metrics.overlaps(images > 127, moved > 0)["dice"].min() > 0.98
    assert metrics.overlaps(masks > 0, moved > 0)["dice"].max() < 0.95


def test_batches_of_masks_leave_those_of_images_as_they_are():
    images, masks = films(10)
    augmentation = P.train.augment.model_copy(update={"erase": 0.5})
    arguments = (images, np.ones(10, int), np.ones(10, int), np.ones(10), 2, 4, augmentation, 7)
    plain, masked = Batches(*arguments), Batches(*arguments, masks)
    for index in range(len(masked)):
        (pixels, _, weights), (same, targets, again) = plain[index], masked[index]
        assert (pixels == same).all()
        assert (weights == again).all()
        assert targets.shape == same.shape
        assert targets.dtype == np.uint8
        assert set(np.unique(targets)) == {0, 1}
        dark = [
            image[mask > 0].mean() < image[mask == 0].mean() - 30 for image, mask in zip(same, targets, strict=True)
        ]
        assert np.mean(dark) > 0.7  # erased boxes may lie over a lung


# -------------------------------------------------------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def p() -> Params:
    values = settings(epochs=6, batch_size=8, learning_rate=5e-3, ensemble=2).model_dump(by_alias=True)
    values["train"]["augment"] |= {"shift_fraction": 0.02, "zoom_fraction": 0.02, "rotation_degrees": 2}
    return Params.model_validate(values)


@pytest.fixture(scope="module")
def folder(heavy, tmp_path_factory, p) -> Path:
    """Everything up to evaluate, below one folder."""
    from stages.evaluate import evaluate
    from stages.explore import explore
    from stages.train import train
    from stages.validate.manifest import validate_manifest
    from stages.validate.records import validate_records

    root = tmp_path_factory.mktemp("localise")
    run(write_masked(root / "raw"), root / "covid")
    manifest, images, reports = assembled(root, root / "covid", p), root / "images", root / "reports"
    reports.mkdir()
    shutil.move(root / "assembly.json", reports / "assembly.json")
    docs = root / "docs"
    validate_records(p.sources, p.validate_, images, reports / "validation/records.json", docs / "records")
    validate_manifest(p.task, p.validate_, manifest, images, reports / "validation/manifest.json", docs / "manifest")
    explore(p.task, p.seed, manifest, images, reports / "explore")
    (root / "models").mkdir()
    train(p.task, p.train, p.seed, manifest, images, root / "models/model.keras", reports / "training")
    evaluate(
        p.task, p.evaluate, [], p.seed, manifest, images, root / "models/model.keras", reports / "metrics.json",
        reports / "evaluation", reports / "reference.parquet",
    )  # fmt: skip
    return root


def test_every_image_of_test_is_measured_as_its_masks_overlap(folder):
    manifest = pd.read_parquet(folder / "manifest.parquet")
    rows = manifest[manifest["split"] == "test"].reset_index(drop=True)
    model = keras.saving.load_model(folder / "models/model.keras", compile=False)
    answer = model.predict(read_images(folder / "images", rows)[..., np.newaxis], verbose=0)
    found = answer["heatmap"][..., 1] > 0
    expected = metrics.overlaps(read_masks(folder / "images", rows) > 0, found)
    answers = pd.read_csv(folder / "reports/evaluation/predictions.csv")
    assert (answers["image_id"] == rows["image_id"]).all()
    assert np.abs(answers[["dice", "iou"]].to_numpy() - expected.to_numpy()).max() < 1e-3
    slices = json.loads((folder / "reports/metrics.json").read_text())["slices"]
    assert list(slices) == ["test", "test/covid"]
    assert slices["test"]["dice"] == pytest.approx(expected["dice"].mean(), abs=1e-3)
    low, high = slices["test"]["interval_95"]["dice"]
    assert low <= slices["test"]["dice"] <= high
    assert np.abs(answer["probabilities"][:, 1] - answers["score_Lungs"]).max() < 1e-5


def test_it_learns_where_the_lungs_are(folder):
    """Drawn lungs of one brightness: whatever learns at all finds most of them."""
    slices = json.loads((folder / "reports/metrics.json").read_text())["slices"]
    assert slices["test"]["dice"] > 0.5
    logs = json.loads((folder / "reports/training/metrics.json").read_text())["member0"]
    assert {"dice", "iou", "loss", "val_dice", "val_iou", "val_loss"} <= set(logs)


def test_the_pictures_and_points_are_there(folder):
    reports = folder / "reports"
    for name in ("evaluation/overlays.png", "evaluation/dice.png", "explore/samples.png", "explore/masks.png"):
        assert (reports / name).stat().st_size > 1000
    points = json.loads((reports / "evaluation/operating_points.json").read_text())
    assert points == {"Background": 0.5, "Lungs": 0.5}
    reference = pd.read_parquet(reports / "reference.parquet")
    assert {"score_Background", "score_Lungs"} <= set(reference)


def test_the_gate_the_package_and_its_bento_serve_a_region(folder, p):
    from stages.gate import gate
    from stages.package import package

    reports, models = folder / "reports", folder / "models"
    assert gate(p.gate.rules, reports / "metrics.json", reports / "gate.json") == []
    package(
        p, folder / "manifest.parquet", folder / "images", models / "model.keras", reports, models / "release",
        models / "chest-xray.bento",
    )  # fmt: skip
    release = Release.load(models / "release")
    assert release.localises
    assert release.facts.classes == ["Background", "Lungs"]
    square = film(2, 64, 64)[0]
    expected = keras.saving.load_model(models / "model.keras").predict(square[np.newaxis, ..., np.newaxis], verbose=0)
    answer = release.answer(examine(png(square), release.facts.pixels))
    assert (answer.mask == (expected["heatmap"][0, ..., 1] > 0)).mean() > 0.999
    assert answer.predicted == "Lungs"
    card = (models / "release/model_card.md").read_text()
    assert "Dice" in card
    assert "AUROC" not in card


def test_a_folder_is_judged_by_a_release_of_a_region(folder, p, tmp_path):
    from stages.validate.folder import answer_folder

    release = Release.load(folder / "models/release")
    answered = answer_folder(folder / "raw/dataset/images", release)
    rows = answered.rows
    assert len(rows) == len(answered.squares) == 48
    assert answered.refused.empty
    assert {row["predicted"] for row in rows} <= {"Background", "Lungs"}
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3) for row in rows)


def test_an_interrupted_training_of_masks_ends_as_a_whole_one(folder, tmp_path):
    from cxr.training.fit import fit, make_deterministic

    class KilledError(Exception):
        pass

    params = settings(epochs=3, batch_size=8).train
    rows = pd.read_parquet(folder / "manifest.parquet").iloc[:16]
    images, masks = (Pixels(folder / "images", rows, kind) for kind in ("shard", "masks"))
    everything = np.arange(16)

    def train(place: Path, die_after: int = 0) -> list[np.ndarray]:
        make_deterministic(7)
        batches = Batches(
            images, np.ones(16, int), np.ones(16, int), np.ones(16), 2, 8, params.augment, 7, masks
        )  # fmt: skip
        model = build_model(params, 64, 2)
        logs = []

        def log_epoch(numbers: dict) -> None:
            logs.append(numbers)
            if len(logs) == die_after:
                raise KilledError

        fit(model, batches, images[everything], masks[everything], params, place, log_epoch)
        return [np.asarray(weight) for weight in model.weights]

    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", die_after=2)
    assert all((a == b).all() for a, b in zip(whole, train(tmp_path / "killed"), strict=True))
