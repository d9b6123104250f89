"""The stage functions from training to the package, on the tiny repository: what needs TensorFlow."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cxr.dataset.store import read_images
from cxr.errors import CxrError
from cxr.release.model import Release
from cxr.tasks import TASKS
from tests.tiny_repository import SOURCES, Repository
from tests.tiny_sources import picture


@pytest.fixture(scope="module")
def trained(heavy, repository, params) -> Repository:
    from stages.evaluate import evaluate
    from stages.explore import explore
    from stages.train import train

    for door in ("records", "manifest"):
        repository.validate(door, params)
    (repository.root / "models").mkdir()
    explore(params.task, params.seed, repository.manifest, repository.images, repository.reports / "explore")
    train(
        params.task, params.train, params.seed, repository.manifest, repository.images,
        repository.root / "models/model.keras", repository.reports / "training",
    )  # fmt: skip
    evaluate(
        params.task, params.evaluate, ["kermany"], params.seed, repository.manifest, repository.images,
        repository.root / "models/model.keras", repository.reports / "metrics.json",
        repository.reports / "evaluation", repository.reports / "reference.parquet",
    )  # fmt: skip
    return repository


def test_training_twice_gives_the_same_weights(trained, params, tmp_path):
    import keras

    from stages.train import train

    train(
        params.task, params.train, params.seed, trained.manifest, trained.images, tmp_path / "model.keras",
        tmp_path / "training",
    )  # fmt: skip
    assert (tmp_path / "model.keras").read_bytes() == (trained.root / "models/model.keras").read_bytes()
    first, second = (
        keras.saving.load_model(p) for p in (trained.root / "models/model.keras", tmp_path / "model.keras")
    )
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        assert (a == b).all()


def test_a_reloaded_model_gives_the_reported_scores(trained):
    import keras

    model = keras.saving.load_model(trained.root / "models/model.keras")
    table = trained.table()
    test = table[table["split"] == "test"].reset_index(drop=True)
    outputs = model.predict(read_images(trained.images, test)[..., np.newaxis], verbose=0)
    answers = pd.read_csv(trained.reports / "evaluation/predictions.csv")
    assert (answers["image_id"] == test["image_id"]).all()
    reported = answers[[f"score_{name}" for name in TASKS["covid"].classes]].to_numpy()
    assert np.abs(outputs["probabilities"] - reported).max() < 1e-5
    assert np.abs(outputs["probabilities"].sum(axis=1) - 1).max() < 1e-5
    # the heatmap is exact: its mean is the logit
    logits = outputs["heatmap"].mean(axis=(1, 2))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(softmax - outputs["probabilities"]).max() < 1e-5


def test_every_slice_and_the_official_list_are_measured(trained):
    slices = json.loads((trained.reports / "metrics.json").read_text())["slices"]
    assert list(slices) == ["test", "test/covid", "test/kermany", "test/kermany/official", "test/nih"]
    assert slices["test"]["n"] == sum(slices[f"test/{s}"]["n"] for s in SOURCES)
    assert slices["test/kermany"]["classes"]["COVID-19"]["recall"] is None  # it has none
    for name in ("confusion.png", "curves.png", "heatmaps.png", "roc/COVID-19.csv", "calibration.csv"):
        assert (trained.reports / "evaluation" / name).stat().st_size > 0
    reference = pd.read_parquet(trained.reports / "reference.parquet")
    assert len(reference) == slices["test"]["n"]


@pytest.mark.parametrize("fault", ["no epochs", "shuffled labels"])
def test_a_model_that_learnt_nothing_does_not_pass_the_shipped_gate(trained, params, tmp_path, fault):
    from stages.evaluate import evaluate
    from stages.gate import gate
    from stages.train import train

    table = trained.table()
    if fault == "shuffled labels":
        train_rows = table.index[table["split"] != "test"]
        shuffled = table.loc[train_rows, "label"].sample(frac=1, random_state=1).to_numpy()
        table.loc[train_rows, "label"] = shuffled
    table.to_parquet(tmp_path / "manifest.parquet")
    settings = params.train.model_copy(update={"epochs": 0} if fault == "no epochs" else {})
    train(
        params.task, settings, params.seed, tmp_path / "manifest.parquet", trained.images, tmp_path / "model.keras",
        tmp_path / "training",
    )  # fmt: skip
    evaluate(
        params.task, params.evaluate, ["kermany"], params.seed, trained.manifest, trained.images,
        tmp_path / "model.keras", tmp_path / "metrics.json", tmp_path / "evaluation",
        tmp_path / "reference.parquet",
    )  # fmt: skip
    assert gate(params.gate.rules, tmp_path / "metrics.json", tmp_path / "gate.json")


def test_a_loss_that_is_not_finite_is_one_sentence(trained, params, tmp_path):
    from stages.train import train

    with pytest.raises(CxrError, match=r"the loss is nan in epoch 1; lower train.learning_rate"):
        train(
            params.task, params.train.model_copy(update={"learning_rate": 1e30}), params.seed, trained.manifest,
            trained.images, tmp_path / "model.keras", tmp_path / "training",
        )  # fmt: skip
    assert not (tmp_path / "model.keras").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, r"train: no train image of class COVID-19 in .*manifest.parquet; add a source with such images"),
        ({"model": "squeezenet", "freeze": "fire99"}, r"train.freeze: the backbone has no layer 'fire99'; its"),
        ({"model": "vgg16", "weights": "absent.h5"}, r"train.weights: there is no file absent.h5; name one"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(trained, params, tmp_path, settings, sentence):
    from stages.train import train

    table = trained.table()
    if not settings:
        table = table[(table["label"] != "COVID-19") | (table["split"] != "train")]
    table.to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(CxrError, match=sentence):
        train(
            params.task, params.train.model_copy(update=settings), params.seed, tmp_path / "manifest.parquet",
            trained.images, tmp_path / "model.keras", tmp_path / "training",
        )  # fmt: skip
    assert not (tmp_path / "model.keras").exists()


def test_the_package_answers_as_keras_does(trained, params):
    import keras

    from stages.gate import gate
    from stages.package import package

    gate([], trained.reports / "metrics.json", trained.reports / "gate.json")
    models = trained.root / "models"
    package(
        params, trained.manifest, trained.images, models / "model.keras", trained.reports, models / "release",
        models / "chest-xray.bento",
    )  # fmt: skip
    assert sorted(path.name for path in models.iterdir()) == ["chest-xray.bento", "model.keras", "release"]
    release = Release.load(models / "release")
    square = picture(4, 0.5, 64, 64)[np.newaxis]
    expected = keras.saving.load_model(models / "model.keras").predict(square[..., np.newaxis], verbose=0)
    found = release.model(square)
    assert np.abs(found.probabilities - expected["probabilities"]).max() <= params.package.parity_tolerance
    card = json.loads((models / "release/model_card.json").read_text())
    assert card["version"] == release.facts.version
    assert f"{release.facts.pixels.size}, {release.facts.pixels.size}, 1" in card["input"]
    assert "Not for diagnosis" in (models / "release/model_card.md").read_text()


def test_a_changed_release_is_refused(trained, tmp_path):
    shutil.copytree(trained.root / "models/release", tmp_path / "release")
    weights = tmp_path / "release/model.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CxrError, match="are not those of version"):
        Release.load(tmp_path / "release")


def test_a_model_that_differs_from_keras_is_not_packaged(trained, params, tmp_path, monkeypatch):
    from stages import package

    class Wrong(package.OpenVinoModel):
        def __call__(self, images):
            found = super().__call__(images)
            found.probabilities[:, 0] += 0.01
            return found

    monkeypatch.setattr(package, "OpenVinoModel", Wrong)
    with pytest.raises(CxrError, match=r"probabilities of OpenVINO differs from Keras by 0.01"):
        package.package(
            params, trained.manifest, trained.images, trained.root / "models/model.keras", trained.reports,
            tmp_path / "release", tmp_path / "chest-xray.bento",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
