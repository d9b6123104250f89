"""Training: recipes, two phases, and a run that was killed ends as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.params import AugmentParams, ScheduleParams, TrainParams, load_params
from cxr.training.augment import augment, mix
from tests.tiny_sources import picture

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHIPPED = load_params().train
TINY = {"widths": [4, 8], "epochs": 4, "batch_size": 8}
RECIPES = {
    "as shipped": {},
    "everything else": {
        "model": "residual",
        "optimizer": {"name": "adamw", "momentum": 0.9, "weight_decay": 1e-3},
        "schedule": {"name": "cosine", "factor": 0.5, "epochs": 1, "warmup_epochs": 0.5},
        "focal_gamma": 2.0,
        "ema": 0.9,
        "fine_tune": {"epochs": 3, "learning_rate": 1e-4, "freeze": 0},
        "augment": SHIPPED.augment.model_dump() | {"mixup": 0.2, "cutmix": 1.0, "erase": 0.5, "shear_degrees": 5},
    },
    "a backbone in two phases": {
        "model": "squeezenet",
        "freeze": "fire8_concat",
        "fine_tune": {"epochs": 2, "learning_rate": 1e-4, "freeze": 3},
        "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
        "schedule": {"name": "step", "factor": 0.5, "epochs": 2, "warmup_epochs": 0},
    },
}


def recipe(name: str, **others) -> TrainParams:
    return TrainParams.model_validate(SHIPPED.model_dump() | TINY | RECIPES[name] | others)


class KilledError(Exception):
    pass


def train(params: TrainParams, folder: Path, die_after: int | None = None) -> tuple[list[np.ndarray], list[dict]]:
    """Weights and logs of a run on 24 pictures, which dies behind its `die_after`th epoch."""
    from cxr.models import build_model
    from cxr.training.fit import Batches, fit, make_deterministic

    make_deterministic(7)
    images = np.stack([picture(i, 0.2 + 0.3 * (i % 3), 32, 32) for i in range(24)])
    labels = np.arange(24) % 3
    ones = np.ones(24, int)
    batches = Batches(images, labels, ones, ones.astype(float), 3, params.batch_size, params.augment, 7)
    model = build_model(params, 32, 3)
    logs = []

    def log_epoch(numbers: dict) -> None:
        logs.append(numbers)
        if len(logs) == die_after:
            raise KilledError

    fit(model, batches, images[:9], labels[:9], params, folder, log_epoch)
    return [np.asarray(weight) for weight in model.weights], logs


@pytest.mark.heavy
@pytest.mark.parametrize("name", RECIPES)
def test_an_interrupted_run_ends_as_a_whole_one(name, tmp_path):
    params = recipe(name)
    weights, logs = train(params, tmp_path / "whole")
    assert len(logs) == params.epochs + params.fine_tune.epochs
    for epoch in (2, len(logs)) if name == "as shipped" else (len(logs) - 1,):  # where it dies
        with pytest.raises(KilledError):
            train(params, tmp_path / "killed", die_after=epoch)
    again, all_logs = train(params, tmp_path / "killed")
    assert all_logs == logs
    assert all((a == b).all() for a, b in zip(weights, again, strict=True))


@pytest.mark.heavy
def test_the_weights_are_those_of_the_best_epoch(tmp_path):
    """A rate that wrecks what was learnt: the second phase, at no rate to speak of, begins from the best epoch."""
    params = recipe("as shipped", epochs=3, learning_rate=0.3)
    best, logs = train(params, tmp_path / "a")
    losses = [numbers["val_loss"] for numbers in logs]
    until = recipe("as shipped", epochs=int(np.argmin(losses)) + 1, learning_rate=0.3)
    assert all((a == b).all() for a, b in zip(best, train(until, tmp_path / "b")[0], strict=True))
    fine = params.model_copy(
        update={"fine_tune": params.fine_tune.model_copy(update={"epochs": 1, "learning_rate": 1e-12})}
    )
    _, logs = train(fine, tmp_path / "c")
    assert abs(logs[-1]["val_loss"] - min(losses)) < 0.3 * abs(max(losses) - min(losses))


@pytest.mark.heavy
def test_a_frozen_layer_stays_and_the_second_phase_lets_it_go(tmp_path):
    from cxr.models import build_model
    from cxr.training.fit import make_deterministic

    params = recipe("a backbone in two phases", epochs=1, fine_tune={"epochs": 0, "learning_rate": 1e-4, "freeze": 3})
    make_deterministic(7)
    names = [weight.path for weight in build_model(params, 32, 3).weights]
    make_deterministic(7)
    before = [np.asarray(weight) for weight in build_model(params, 32, 3).weights]
    after, _ = train(params, tmp_path / "one")
    moved = {name for name, a, b in zip(names, before, after, strict=True) if (a != b).any()}
    assert not [name for name in moved if "fire8" in name or "conv1" in name]
    assert [name for name in moved if "fire9" in name]
    both = params.model_copy(update={"fine_tune": params.fine_tune.model_copy(update={"epochs": 1})})
    after, _ = train(both, tmp_path / "two")
    moved = {name for name, a, b in zip(names, before, after, strict=True) if (a != b).any()}
    assert [name for name in moved if "fire8" in name]
    assert not [name for name in moved if "conv1" in name]


@pytest.mark.heavy
def test_a_loss_that_is_not_finite_leaves_the_epoch_before_it(tmp_path):
    params = recipe("as shipped", schedule={"name": "step", "factor": 0.5, "epochs": 1, "warmup_epochs": 0})
    with pytest.raises(KilledError):
        train(params, tmp_path, die_after=2)
    whole = (tmp_path / "epoch.npz").read_bytes()
    with pytest.raises(CxrError, match=r"train: the (val_)?loss is (nan|inf) in epoch 2; lower train.learning_rate"):
        train(params.model_copy(update={"learning_rate": 1e30}), tmp_path)
    assert (tmp_path / "epoch.npz").read_bytes() == whole
    assert (tmp_path / "best0.weights.h5").exists()


@pytest.mark.parametrize(
    ("kind", "warmup", "epochs", "expected"),
    [
        ("constant", 1, 10, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]),
        ("step", 0, 10, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]),
        ("cosine", 0, 1, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0, 0]),
        ("cosine", 1, 2, [0, 0.25, 0.5, 0.75, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0, 0]),
    ],
)
def test_schedules(kind, warmup, epochs, expected):
    from cxr.training.recipe import make_schedule

    params = ScheduleParams(name=kind, factor=0.5, epochs=1, warmup_epochs=warmup)
    schedule = make_schedule(params, 0.1, epochs, 4)
    assert not isinstance(schedule, float)
    rates = np.array([float(schedule(step)) for step in range(len(expected))]) / 0.1
    assert np.allclose(rates, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["plateau", "step"])
def test_what_takes_no_warm_up(kind):
    with pytest.raises(ValueError, match=f"warmup_epochs must be 0 with {kind}"):
        ScheduleParams(name=kind, factor=0.5, epochs=1, warmup_epochs=1)


def still(**changed) -> AugmentParams:
    none = dict.fromkeys(AugmentParams.model_fields, 0) | {"horizontal_flip": False}
    return AugmentParams.model_validate(none | changed)


def test_without_augmentation_nothing_changes():
    images = np.stack([picture(i, 0.5, 32, 32) for i in range(4)])
    rng = np.random.default_rng(0)
    assert (augment(images, still(), rng) == images).all()
    assert mix(images, np.eye(4), still(), rng)[0] is images


def test_a_shear_moves_rows_by_their_height():
    image = np.zeros((1, 33, 33), np.uint8)
    image[0, :, 16] = 255
    found = augment(image, still(shear_degrees=40), np.random.default_rng(3))[0]
    columns = found.argmax(axis=1)
    assert columns[16] == 16
    assert abs((columns[:16] - 16) + (columns[:16:-1] - 16)).max() <= 1
    assert columns[0] != columns[-1]


def test_what_is_erased_is_a_box():
    image = np.full((20, 32, 32), 128, np.uint8)
    found = augment(image, still(erase=1.0), np.random.default_rng(0)) != 128
    for changed in found:
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.mean() > 0.9  # noise may hit upon 128
        assert changed.mean() < 0.25


def test_lost_resolution_keeps_the_grey_level_and_takes_the_detail():
    images = np.random.default_rng(1).integers(60, 200, (30, 32, 32)).astype(np.uint8)
    found = augment(images, still(blur=0.8), np.random.default_rng(0))
    assert np.abs(found.mean(axis=(1, 2)) - images.mean(axis=(1, 2))).max() < 4
    detail = found.std(axis=(1, 2)) / images.std(axis=(1, 2))
    assert detail.min() < 0.25
    assert 0.45 < detail.max() <= 1  # what loses nearly nothing is the image itself


def test_noise_is_of_every_strength_up_to_the_largest():
    images = np.full((60, 32, 32), 128, np.uint8)
    strengths = augment(images, still(noise=0.1), np.random.default_rng(0)).std(axis=(1, 2)) / 255
    assert strengths.max() < 0.105
    assert np.histogram(strengths, bins=4, range=(0, 0.1))[0].min() > 5


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_are_shared_as_the_pixels_are(kind):
    images = np.zeros((8, 40, 40), np.uint8)
    images[::2] = 200
    targets = np.eye(2)[np.arange(8) % 2]  # 0 where bright
    mixed, labels = mix(images, targets, still(**{kind: 1.0}), np.random.default_rng(5))
    assert np.allclose(labels.sum(axis=1), 1)
    assert np.abs(mixed.mean(axis=(1, 2)) / 200 - labels[:, 0]).max() < 0.005
    assert ((labels > 0.01) & (labels < 0.99)).any()


@pytest.mark.heavy
def test_a_stage_killed_by_the_system_goes_on(repository, params, tmp_path):
    """SIGKILL in the middle of the real stage, then the stage again: the model is the same file."""
    from stages.train import train as stage

    params = params.model_copy(update={"train": params.train.model_copy(update={"ensemble": 2})})
    program = f"""
from pathlib import Path
from cxr.params import Params, load_params
from stages.train import train
import tests.tiny_repository as tiny
params = Params.model_validate_json({params.model_dump_json(by_alias=True)!r})
train(params.task, params.train, params.seed, Path({str(repository.manifest)!r}), Path({str(repository.images)!r}),
      Path({str(tmp_path / "killed/model.keras")!r}), Path({str(tmp_path / "killed/training")!r}))
"""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=log, stderr=log)
        while not list(tmp_path.glob("killed/checkpoint/*/1/epoch.npz")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed/model.keras").exists()
    models = []
    for name in ("killed", "whole"):
        stage(
            params.task, params.train, params.seed, repository.manifest, repository.images,
            tmp_path / name / "model.keras", tmp_path / name / "training",
        )  # fmt: skip
        models.append((tmp_path / name / "model.keras").read_bytes())
        assert not (tmp_path / name / "checkpoint").exists()
    assert models[0] == models[1]
    losses = "training/plots/metrics/member1/val_loss.tsv"
    metrics = [(tmp_path / name / losses).read_text() for name in ("killed", "whole")]
    assert [line.split("\t")[1:] for line in metrics[0].splitlines()] == [
        line.split("\t")[1:] for line in metrics[1].splitlines()
    ]
