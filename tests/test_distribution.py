"""The same losses on TensorFlow and JAX, on one device and two, in one process and two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr.dataset.manifest import MANIFEST_COLUMNS, read_table
from cxr.errors import CxrError

PROGRAM = """
import contextlib, json, os, sys
from pathlib import Path

devices, out = int(sys.argv[1]), Path(sys.argv[2])
import keras
import numpy as np

if keras.backend.backend() == "tensorflow" and devices > 1:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    scope = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)]).scope
from cxr.training import distribution
from cxr.models import build_model
from cxr.params import TrainParams, load_params
from cxr.training.fit import Batches, fit, make_deterministic

place = distribution.connect()
if keras.backend.backend() == "jax" or devices == 1:
    scope = distribution.scope
shipped = load_params().train.model_dump()
# no batch norm, of which each device has statistics of its own, and no dropout, which each backend draws by itself
changes = {"model": "squeezenet", "epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
params = TrainParams.model_validate(shipped | changes | {"head": shipped["head"] | {"dropout": 0}})
for n in map(int, sys.argv[3:]):
    make_deterministic(7)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, 32, 32)).astype(np.uint8), np.arange(n) % 3
    batches = Batches(images, labels, np.ones(n, int), np.ones(n), 3, params.batch_size, params.augment, 7)
    logs = []
    with scope():
        model = build_model(params, 32, 3)
        rng = np.random.default_rng(1)
        model.set_weights([rng.normal(size=weight.shape).astype("f") * 0.05 for weight in model.get_weights()])
        fit(model, batches, images[:9], labels[:9], params, out / f"checkpoint{n}-{place.process}", logs.append)
    weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
    np.save(out / f"weights{n}-{place.process}.npy", weights)
    (out / f"logs{n}-{place.process}.json").write_text(json.dumps(logs))
"""
# what compiles in half the time; the losses are the same to the last digit
UNTUNED = "--xla_backend_optimization_level=0"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.getcwd(), "CUDA_VISIBLE_DEVICES": ""}


def start(out: Path, backend: str, devices: int = 1, images: tuple = (24,), **environment: str) -> subprocess.Popen:
    """Train on each number of `images` in turn."""
    out.mkdir(exist_ok=True)
    if backend == "jax":
        flags = f"{UNTUNED} --xla_force_host_platform_device_count={devices}"
        environment |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(devices), str(out), *map(str, images)],
        env=os.environ | QUIET | {"KERAS_BACKEND": backend} | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]


def losses(out: Path, process: int = 0, n: int = 24) -> np.ndarray:
    logs = json.loads((out / f"logs{n}-{process}.json").read_text())
    return np.array([[epoch["loss"], epoch["val_loss"]] for epoch in logs])


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def runs(heavy, tmp_path_factory) -> dict[tuple[str, int], Path]:
    """By backend and number of devices; started together, for most of their time is importing."""
    kinds = [(backend, devices) for backend in ("tensorflow", "jax") for devices in (1, 2)]
    folders = {kind: tmp_path_factory.mktemp("run") for kind in kinds}
    for process in [start(out, *kind, (24, 21)[: kind[1]]) for kind, out in folders.items()]:
        end(process)
    return folders


@pytest.fixture
def one_device(runs) -> Path:
    return runs["tensorflow", 1]


@pytest.mark.parametrize(("backend", "devices"), [("jax", 1), ("jax", 2), ("tensorflow", 2)])
def test_neither_backend_nor_devices_change_the_losses(runs, one_device, backend, devices):
    out = runs[backend, devices]
    assert np.abs(losses(out) - losses(one_device)).max() < 1e-5
    difference = np.load(out / "weights24-0.npy") - np.load(one_device / "weights24-0.npy")
    assert np.abs(difference).max() < 2e-3  # two epochs of Adam move a weight by up to 6e-3


def test_two_processes_train_as_one(one_device, tmp_path):
    cluster = {"CXR_PROCESSES": "2", "CXR_COORDINATOR": f"127.0.0.1:{free_port()}"}
    both = [start(tmp_path, "jax", CXR_PROCESS=str(k), **cluster) for k in range(2)]
    for process in both:
        end(process)
    for k in range(2):
        assert np.abs(losses(tmp_path, k) - losses(one_device)).max() < 1e-5
    assert (np.load(tmp_path / "weights24-0.npy") == np.load(tmp_path / "weights24-1.npy")).all()


@pytest.mark.parametrize(("backend", "devices"), [("jax", 2), ("tensorflow", 2)])
def test_a_number_of_images_that_no_device_count_divides(runs, backend, devices):
    assert np.isfinite(losses(runs[backend, devices], n=21)).all()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"CXR_PROCESSES": "2"}, r"CXR_PROCESSES='2', CXR_PROCESS='', CXR_COORDINATOR='': expected a number of proc"),
        ({"CXR_PROCESSES": "2", "CXR_PROCESS": "2", "CXR_COORDINATOR": "a:1"}, r"one below it, and host:port"),
        ({"CXR_PROCESSES": "2", "CXR_PROCESS": "0", "CXR_COORDINATOR": "a"}, r"host:port of process 0"),
        ({"CXR_PROCESSES": "2", "CXR_PROCESS": "0", "CXR_COORDINATOR": "a:1"}, r"need KERAS_BACKEND=jax"),
    ],
)
def test_half_a_cluster_is_one_sentence(monkeypatch, environment, sentence):
    from cxr.training.distribution import connect

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CxrError, match=sentence):
        connect()


@pytest.mark.heavy
def test_a_model_trained_on_jax_is_evaluated_on_tensorflow(repository, params, tmp_path):
    from cxr.dataset.store import read_images
    from cxr.models import load_model

    paths = [str(path) for path in (repository.manifest, repository.images)]
    program = f"""
from pathlib import Path
from cxr.params import Params
from stages.train import train
params = Params.model_validate_json({params.model_dump_json(by_alias=True)!r})
train(params.task, params.train, params.seed, Path({paths[0]!r}), Path({paths[1]!r}),
      Path({str(tmp_path / "model.keras")!r}), Path({str(tmp_path / "training")!r}))
"""
    environment = os.environ | QUIET | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": UNTUNED}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    test = read_table(repository.manifest, MANIFEST_COLUMNS).query("split == 'test'")
    outputs = load_model(tmp_path / "model.keras").predict(
        read_images(repository.images, test)[..., np.newaxis], verbose=0
    )
    assert np.abs(outputs["probabilities"].sum(axis=1) - 1).max() < 1e-5
