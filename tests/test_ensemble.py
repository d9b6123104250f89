"""Several networks and several views of an image as one model."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cxr.params import ViewParams, load_params

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from cxr.models import build_model, load_model, save_model
from cxr.models.ensemble import Views, combine, views
from cxr.release.model import OUTPUTS, OpenVinoModel
from tests.tiny_sources import picture

SIZE = 32
NO_VIEWS = ViewParams(shift_fraction=0, zoom_fraction=0)
MOVED = ViewParams(shift_fraction=2 / SIZE, zoom_fraction=0.05)
IMAGES = np.stack([picture(i, 0.3 * i, SIZE, SIZE) for i in range(4)])


@pytest.fixture(scope="module")
def members() -> list[keras.Model]:
    params = load_params().train.model_copy(update={"widths": [4, 8, 8]})
    models = [build_model(params, SIZE, 3) for _ in range(2)]
    rng = np.random.default_rng(0)
    for weight in (weight for model in models for weight in model.trainable_weights):
        weight.assign(rng.normal(0, 0.4, weight.shape))  # so that answers differ by more than rounding
    return models


def answers(model: keras.Model, images: np.ndarray = IMAGES) -> dict[str, np.ndarray]:
    return model.predict(images[..., np.newaxis], verbose=0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_one_member_seen_once_is_left_as_it_is(members):
    assert combine(members[:1], NO_VIEWS, False) is members[0]


@pytest.mark.parametrize("params", [NO_VIEWS, MOVED])
def test_logits_are_averaged_and_the_heatmap_stays_exact(members, params):
    found = answers(combine(members, params, False))
    seen = IMAGES if params is NO_VIEWS else np.asarray(Views(views(params))(IMAGES[..., np.newaxis]))[..., 0]
    each = [answers(member, seen) for member in members]
    heatmap = np.mean([answer["heatmap"] for answer in each], axis=0)
    heatmap = heatmap.reshape(len(IMAGES), -1, *heatmap.shape[1:]).mean(axis=1)
    assert np.abs(found["heatmap"] - heatmap).max() < 1e-4
    assert np.abs(found["probabilities"] - softmax(heatmap.mean(axis=(1, 2)))).max() < 1e-5
    embeddings = [answer["embedding"].reshape(len(IMAGES), -1, 8).mean(axis=1) for answer in each]
    assert np.abs(found["embedding"] - np.concatenate(embeddings, axis=1)).max() < 1e-4


def test_a_view_is_the_image_moved_with_its_edge_repeated():
    seen = np.asarray(Views(views(MOVED))(IMAGES[..., np.newaxis])).reshape(len(IMAGES), -1, SIZE, SIZE)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2)), mode="edge")
    down, up, right, left = (padded[:, y : y + SIZE, x : x + SIZE] for y, x in ((0, 2), (4, 2), (2, 0), (2, 4)))
    for view, expected in enumerate((IMAGES, down, up, right, left)):
        assert (seen[:, view] == expected).all()
    larger, smaller = seen[:, 5].astype(int), seen[:, 6].astype(int)
    centre = slice(SIZE // 2 - 1, SIZE // 2 + 1)
    for zoomed in (larger, smaller):  # about the centre: hardly anything moves there
        assert np.abs(zoomed[:, centre, centre] - IMAGES[:, centre, centre]).max() <= 3
    assert np.abs(larger[:, 0, 0] - IMAGES[:, 0, 0]).max() > 0
    turned = np.asarray(Views(views(MOVED))(IMAGES[:, ::-1, ::-1, np.newaxis])).reshape(seen.shape)[:, :, ::-1, ::-1]
    assert np.abs(turned[:, 5:].astype(int) - seen[:, 5:]).max() <= 1


@pytest.mark.heavy
def test_it_is_saved_and_exported_whole(members, tmp_path):
    model = combine(members, MOVED, False)
    expected = answers(model)
    save_model(model, tmp_path / "model.keras")
    model.export(str(tmp_path / "model.xml"), format="openvino", verbose=False)
    loaded, exported = answers(load_model(tmp_path / "model.keras")), OpenVinoModel(tmp_path / "model.xml")(IMAGES)
    for name in OUTPUTS:
        assert (loaded[name] == expected[name]).all()
        assert np.abs(getattr(exported, name) - expected[name]).max() < 1e-3


@pytest.mark.heavy
def test_another_process_loads_it(members, tmp_path):
    """One that knows of no ensemble, as `evaluate` and `package` do not."""
    save_model(combine(members, MOVED, False), tmp_path / "model.keras")
    path = str(tmp_path / "model.keras")
    program = f"from pathlib import Path; from cxr.models import load_model; load_model(Path({path!r}))"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})


@pytest.mark.heavy
def test_masks_are_averaged_pixel_by_pixel():
    params = load_params().train.model_copy(update={"model": "unet"})
    pair = [build_model(params, SIZE, 2) for _ in range(2)]
    found = answers(combine(pair, NO_VIEWS, True))
    heatmap = np.mean([answers(member)["heatmap"] for member in pair], axis=0)
    assert np.abs(found["heatmap"] - heatmap).max() < 1e-5
    shares = softmax(heatmap.reshape(-1, 2)).reshape(heatmap.shape).mean(axis=(1, 2))
    assert np.abs(found["probabilities"] - shares).max() < 1e-5
