"""`python -m benchmarks.gpu`: on a machine with Keras and JAX alone, stopped and gone on with, and its readings."""

import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.__main__ import NETWORKS
from benchmarks.gpu.clock import Clock, OutOfTime
from benchmarks.gpu.kermany import BACTERIAL, NORMAL, TASKS, VIRAL, Films, find_root, load, read_film, val_rows
from benchmarks.gpu.metrics import auroc, measure
from benchmarks.gpu.presets import PRESETS, RECIPE, read_presets
from cxr.errors import CxrError
from cxr.params import TrainParams, load_params
from cxr.pixels.radiograph import load_radiograph
from cxr.tasks import TASKS as LABEL_TASKS
from tests.tiny_sources import encode, picture

REAL = Path(__file__).parents[2] / "shared/real/kermany"
TINY = {"name": "tiny", "task": "pneumonia", "size": 16, "published": {"accuracy": 0.9}} | {
    "train": RECIPE | {"model": "cnn", "widths": [4, 8], "epochs": 3, "batch_size": 8}
}
# TensorFlow and what else a machine with Keras and JAX need not have
WITHOUT = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "pandas", "yaml", "sklearn", "tensorflow", "tqdm", "pydicom"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
INTERRUPTED = """
import json, sys
from pathlib import Path
from benchmarks.gpu.clock import Clock, OutOfTime
from benchmarks.gpu.speed import keep_compiled
from benchmarks.gpu.study import Job, train_and_test

class Stopping(Clock):
    def next_piece(self, expected):
        assert expected > 0
        raise OutOfTime

preset, data, out = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
keep_compiled(out / "compiled")
job = Job(preset, 3, data, None, None, out / "interrupted")
told = []
for epoch in range(preset["train"]["epochs"] - 1):
    try:
        train_and_test(job, Stopping(0, 0))
    except OutOfTime:
        told.append(len(json.loads((job.folder / "seconds.json").read_text())))
whole = Job(preset, 3, data, None, None, out / "whole")
print(json.dumps([told, *(train_and_test(each, Clock(1e9, 0)) for each in (job, whole))]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A handful of films as Kermany publishes them, brighter where ill; in train one file twice."""
    root = tmp_path_factory.mktemp("kermany") / "chest_xray"
    for split, patients in (("train", 8), ("test", 3)):
        for n in range(patients):
            for name, bright in (
                (f"NORMAL/IM-{n:04d}-0001.jpeg", 0.0),
                (f"NORMAL/NORMAL2-IM-{n:04d}-0001.jpeg", 0.1),
                (f"PNEUMONIA/person{n}_bacteria_{n}.jpeg", 1.0),
                (f"PNEUMONIA/person{n}_bacteria_{n + 100}.jpeg", 0.9),
                (f"PNEUMONIA/person{n}_virus_{n}.jpeg", 0.8),
            ):
                path = root / split / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(picture(zlib.crc32(str(path.relative_to(root)).encode()), bright), ".jpg"))
        copied = root / split / "NORMAL/IM-0000-0001.jpeg"
        copied.with_name("IM-0900-0001.jpeg").write_bytes(copied.read_bytes())
    return root.parent


def start(program: list[str], **environment: str) -> subprocess.Popen:
    quiet = {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "PYTHONPATH": os.getcwd()}
    quiet["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles in half the time
    return subprocess.Popen(
        [sys.executable, *program],
        env=os.environ | quiet | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen, status: int = 0) -> str:
    told, errors = process.communicate(timeout=240)
    assert process.returncode == status, told[-3000:] + errors[-3000:]
    return told


@pytest.mark.slow
def test_all_steps_end_without_what_a_gpu_machine_may_lack(folder, tmp_path):
    presets, out = tmp_path / "presets.json", tmp_path / "out"
    presets.write_text(json.dumps([TINY, TINY | {"name": "too-small", "size": 2}]))
    words = ["--data", folder, "--out", out, "--small", "--networks", "squeezenet", "--presets", presets]
    command = ["-c", WITHOUT, *map(str, words)]
    told = end(start([*command, "--minutes", "0"]))
    assert "1 of 8 steps are done; left: matrix, speed-squeezenet-bfloat16-4, " in told
    assert {path.name for path in out.glob("*.json")} == {"settings.json", "facts.json"}
    facts = out.joinpath("facts.json").stat().st_mtime_ns
    process = start(command)
    while not (out / "speed-squeezenet-float32-4.json").exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()  # about where the first training begins
    process.communicate()
    told = end(start(command), status=1)
    assert "6 of 8 steps are done; left: none" in told
    assert f"failed: {out}/study-too-small-s0.failed.txt: cxr.errors.CxrError: ingest.pixels.size: cnn takes" in told
    assert out.joinpath("facts.json").stat().st_mtime_ns == facts  # what is done is not done again
    assert [path.name for path in (out / "work").iterdir()] == ["compiled"]
    before = sorted(out.iterdir())
    assert "6 of 8 steps are done; left: none" in end(start(command), status=1)  # nor tried again what failed
    assert sorted(out.iterdir()) == before

    results = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json") if path.stem != "settings"}
    assert results["matrix"]["best"].keys() == {"bfloat16", "float32"}
    half, whole = (results[f"speed-squeezenet-{precision}-4"] for precision in ("bfloat16", "float32"))
    assert half["gflop_per_image"] > whole["gflop_per_image"] > 0  # by the casts: each ran in its own precision
    for found in (half, whole):
        assert found["share_of_constant"] == found["real_images_per_s"] / found["constant_images_per_s"]
    study = results["study-tiny-s0"]
    assert (study["epochs"], study["test_images"], study["train_images"] + study["val_images"]) == (2, 16, 24)
    scores = np.array(study["probabilities"])
    assert measure(np.array(study["y_true"]), scores).items() <= study.items()
    table = end(start(["-m", "benchmarks.gpu", "--table", str(out)]))
    assert table.count("\n| squeezenet (") == 2
    assert "| tiny | pneumonia, bfloat16 |" in table
    assert "| 0, 1 | 2, 2 |" in table
    assert "\nfailed: study-too-small-s1: cxr.errors.CxrError: ingest.pixels.size" in table


def test_other_settings_do_not_go_on_with_the_same_folder(folder, tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    process = start(["-m", "benchmarks.gpu", "--data", str(folder), "--out", str(tmp_path), "--small"])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(f"error: {tmp_path}/settings.json: the results there are of other networks, presets")


@pytest.mark.heavy
def test_a_training_stopped_after_every_epoch_ends_as_a_whole_one(folder, tmp_path):
    preset = TINY | {"task": "pneumonia-type"}
    told = end(start(["-c", INTERRUPTED, json.dumps(preset), str(find_root(folder)), str(tmp_path)]))
    epochs, stopped, whole = json.loads(told.splitlines()[-1])
    assert epochs == [1, 2]
    assert stopped["epochs"] == whole["epochs"] == 3
    assert stopped["probabilities"] == whole["probabilities"]
    assert stopped["best_epoch"] == whole["best_epoch"]


def test_a_clock_begins_nothing_that_may_not_end_in_time():
    clock = Clock(100, longest=1000)
    clock.next_piece()  # the first
    clock.next_piece()  # more than half is left
    with pytest.raises(OutOfTime):
        clock.next_piece(expected=101)
    clock = Clock(0, longest=1)
    clock.next_piece()
    with pytest.raises(OutOfTime):
        clock.next_piece()
    clock = Clock(1000, longest=0)
    clock.next_piece()
    time.sleep(0.01)
    clock.next_piece()
    assert 0.01 <= clock.longest < 1


def test_recipes_are_those_of_params_yaml():
    for preset in PRESETS:
        params = TrainParams.model_validate(preset["train"])
        assert params.model_dump() == preset["train"]
    assert {preset["train"]["model"] for preset in PRESETS} == set(NETWORKS)


def test_labels_are_those_of_the_pipeline():
    words = {NORMAL: "Normal", BACTERIAL: "Bacterial pneumonia", VIRAL: "Viral pneumonia"}
    for name, codes in TASKS.items():
        task = LABEL_TASKS[name]
        assert {finding: task.classes[code] for finding, code in codes.items()} == {
            finding: task.reads[word] for finding, word in words.items()
        }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "covid"}, "preset 1: task: found 'covid'; expected pneumonia or pneumonia-type"),
        ({"name": "a/b"}, "preset 1: name: found 'a/b'"),
        ({"size": "224"}, "preset 1: size: found '224'; expected pixels a side"),
        ({"sise": 3}, "preset 1: sise: unknown key"),
        ({"train": RECIPE | {"head": {"pool": "gap"}}}, "preset 1: train.head.dense: missing"),
        ({"train": RECIPE | {"ensemble": 3}}, "preset 1: train.ensemble: expected 1"),
        ({"train": 3}, "preset 1: train: found 3; expected keys model"),
    ],
)
def test_a_preset_with_a_fault_is_named(changes, message, tmp_path):
    path = tmp_path / "presets.json"
    path.write_text(json.dumps([TINY | changes]))
    with pytest.raises(CxrError) as error:
        read_presets(path)
    assert message in str(error.value)


def test_films_are_read_as_ingest_reads_them(folder):
    path = folder / "chest_xray/train/PNEUMONIA/person1_virus_1.jpeg"
    pixels = load_params().ingest.pixels.model_copy(update={"size": 32, "square": "stretch"})
    np.testing.assert_array_equal(read_film(path, 32)[0], load_radiograph(path.read_bytes(), pixels).image)


def test_copies_are_left_out_of_train_and_stay_in_test(folder):
    root = find_root(folder)
    train, test = (load(root, split, 16, None) for split in ("train", "test"))
    assert (len(train), len(test)) == (40, 16)
    assert np.unique(train.findings, return_counts=True)[1].tolist() == [16, 16, 8]
    assert len(np.unique(train.patients)) == 32
    assert len(load(root, "test", 16, 2)) == 6


def test_a_file_without_a_patient_is_named(folder, tmp_path):
    for each in ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"):
        (tmp_path / each).mkdir(parents=True)
    odd = tmp_path / "train/PNEUMONIA/IM-0001-0001.jpeg"
    odd.write_bytes(b"")
    with pytest.raises(CxrError, match=r"train/PNEUMONIA/IM-0001-0001\.jpeg: no patient in the file name"):
        load(find_root(tmp_path), "train", 16, None)
    odd.rename(odd.with_name("person1_virus_2.jpeg"))
    with pytest.raises(CxrError, match=r"person1_virus_2\.jpeg: OpenCV cannot decode it"):
        load(find_root(tmp_path), "train", 16, None)
    with pytest.raises(CxrError, match="test: no JPEG in NORMAL/ or PNEUMONIA/"):
        load(find_root(tmp_path), "test", 16, None)
    with pytest.raises(CxrError, match="expected Kermany's folders train/NORMAL"):
        find_root(tmp_path / "train")


def test_val_holds_whole_patients_of_each_finding():
    rng = np.random.default_rng(0)
    findings = np.repeat([NORMAL, BACTERIAL, VIRAL], [300, 600, 200])
    patients = np.array([f"{finding}{rng.integers(60)}" for finding in findings])
    films = Films(np.zeros((1100, 2, 2), np.uint8), findings, patients)
    held = val_rows(films, 0.15, 1)
    assert not set(patients[held]) & set(patients[~held])
    for finding in np.unique(findings):
        assert 0.15 <= held[findings == finding].mean() < 0.2
    assert (held == val_rows(films, 0.15, 1)).all()


def test_auroc_by_hand():
    y_true = np.array([False, True, False, True])
    assert auroc(y_true, np.array([0.1, 0.4, 0.35, 0.8])) == 1
    assert auroc(y_true, np.array([0.1, 0.3, 0.35, 0.8])) == 0.75
    assert auroc(y_true, np.array([0.5, 0.5, 0.5, 0.8])) == 0.75  # two ties count half
    scores = np.array([[0.8, 0.2], [0.5, 0.5], [0.4, 0.6], [0.1, 0.9]])
    assert measure(np.array([0, 1, 0, 1]), scores) == {"accuracy": 0.5, "auroc": 0.75}


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
def test_the_published_files_are_all_read():
    root = find_root(REAL)
    train, test = load(root, "train", 32, None), load(root, "test", 32, None)
    assert np.unique(test.findings, return_counts=True)[1].tolist() == [242, 234, 148]
    assert len(test) == 624
    assert 5216 - 40 < len(train) < 5216
    assert not val_rows(train, 0.15, 1).all()
