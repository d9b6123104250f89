"""The study: presets against the schema, what is run again and what is not, the report from recorded runs."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.errors import CxrError, ParamsError
from cxr.params import Params
from study.__main__ import parse, plan
from study.presets import Changes, load_preset, load_presets, merge, read_base, settings
from study.report import Row, rows_of, shown, table, warnings, write_report
from study.runs import (
    RECORDS,
    Record,
    Run,
    bring_downloads,
    finished,
    prepare,
    read_record,
    replace,
    seconds_per_epoch,
    workspace,
)

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "studies"
NAMES = sorted(path.stem for path in STUDIES.glob("*.yaml"))
OURS = {"residual", "type-residual", "covid-residual"}


@pytest.fixture(scope="module")
def base() -> dict:
    return read_base(ROOT / "params.yaml")


def values_of(name: str, base: dict, data: str | None = None, changes: Changes | None = None) -> dict:
    preset = load_preset(STUDIES / f"{name}.yaml")
    return settings(name, preset, data or preset.data[0], base, changes or Changes(), base["seed"], ROOT)


# ---- presets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_fits_in_every_group_and_names_a_slice_that_evaluate_measures(name, base):
    preset = load_preset(STUDIES / f"{name}.yaml")
    for data in ("raw", "augmented", "balanced"):
        params = Params.model_validate(values_of(name, base, data))
        assert list(params.sources) == preset.sources
        if preset.slice != "test":
            source = preset.slice.split("/")[1]
            assert preset.slice == f"test/{source}/official"
            assert source in params.assemble.official_test
    assert all(figure.data in (None, *preset.data) for figure in preset.published)


@pytest.mark.parametrize("name", sorted(set(NAMES) - OURS))
def test_the_recipe_of_a_published_system_does_not_follow_ours(name, base):
    """Whatever params.yaml says of training; `widths` is of networks that no published system has."""
    other = json.loads(json.dumps(base))
    other["train"] |= {"epochs": 3, "batch_size": 7, "learning_rate": 0.5, "focal_gamma": 2, "label_smoothing": 0.3}
    other["train"] |= {
        "ema": 0.9,
        "early_stopping_patience": 99,
        "ensemble": 4,
        "dropout": 0.77,
        "precision": "bfloat16",
    }
    other["train"] |= {"optimizer": {"name": "sgd", "momentum": 0.1, "weight_decay": 0.1}}
    other["train"] |= {"schedule": {"name": "step", "factor": 0.9, "epochs": 77, "warmup_epochs": 0}}
    other["train"]["fine_tune"] = {"epochs": 5, "learning_rate": 0.7, "freeze": 0}
    other["train"]["augment"] = {key: not value if isinstance(value, bool) else 0.3 for key, value in
                                 base["train"]["augment"].items()}  # fmt: skip
    assert set(other["train"]) == set(base["train"])
    assert values_of(name, other, "balanced")["train"] == values_of(name, base, "balanced")["train"]


def test_the_groups_take_away_what_they_say(base):
    balanced, augmented, raw = (values_of("nam2022", base, data) for data in ("balanced", "augmented", "raw"))
    assert balanced["assemble"]["balance"]["how"] == "oversample"
    assert augmented["assemble"]["balance"]["how"] == raw["assemble"]["balance"]["how"] == "none"
    assert augmented["train"] == balanced["train"]
    assert any(raw["train"]["augment"].values()) is False
    assert any(augmented["train"]["augment"].values())
    assert raw["train"] | {"augment": 0} == balanced["train"] | {"augment": 0}


def test_published_figures_stand_in_their_own_group(base):
    presets = load_presets(STUDIES, ["nam2022"])
    assert {row.data: [figure.value for figure in row.published] for row in rows_of(presets, [])} == {
        "raw": [0.7708], "augmented": [0.9102], "balanced": [0.9263],
    }  # fmt: skip


def test_the_command_line_changes_every_preset(base):
    changed = values_of("resnet50", base, changes=Changes(2, "none", ("train.epochs=1", "ingest.pixels.size=64")))
    assert (changed["train"]["weights"], changed["train"]["epochs"]) == ("none", 1)
    assert changed["ingest"]["pixels"]["size"] == 64
    assert values_of("nam2022", base, changes=Changes(None, "imagenet"))["train"]["weights"] == "none"
    assert values_of("nam2022", base, changes=Changes(500))["train"]["epochs"] == 30


def test_local_paths_hold_in_a_run_s_own_folder(base, tmp_path):
    (tmp_path / "films").mkdir()
    preset = load_preset(STUDIES / "resnet50.yaml")
    changes = Changes(None, "w.h5", ("sources.kermany.origin=films",))
    (tmp_path / "w.h5").touch()
    changed = settings("resnet50", preset, "raw", base, changes, 1, tmp_path)
    assert changed["sources"]["kermany"]["origin"] == str(tmp_path / "films")
    assert changed["train"]["weights"] == str(tmp_path / "w.h5")
    assert values_of("resnet50", base)["sources"]["kermany"]["origin"] == base["sources"]["kermany"]["origin"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"titel": "x"}, r"studies/one\.yaml: titel: unknown key \(is it misspelt\?\)"),
        ({"data": ["rax"]}, r"studies/one\.yaml: data\.0: found 'rax'"),
        ({"published": [{"metric": "accuracy", "value": 92, "data": None, "split": "s", "n": 1}]}, r"published\.0"),
        ({"params": {"train": {"epoch": 3}}}, r"studies/one\.yaml, balanced: train\.epoch: unknown key"),
        ({"params": {"train": 3}}, r"studies/one\.yaml, balanced: train: found 3"),
        ({"sources": ["rsna"]}, r"params\.yaml has no source rsna; add it there"),
    ],
)  # fmt: skip
def test_a_wrong_preset_is_named_with_its_key(tmp_path, base, change, sentence):
    values = yaml.safe_load((STUDIES / "nam2022.yaml").read_text()) | change
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/one.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=sentence):
        settings("one", load_preset(tmp_path / "studies/one.yaml"), "balanced", base, Changes(), 1, tmp_path)


def test_an_unknown_preset_and_broken_yaml_are_one_sentence(tmp_path):
    with pytest.raises(ParamsError, match=r"no preset nam2021; there are binary-resnet101, "):
        load_presets(STUDIES, ["nam2021", "small"])
    (tmp_path / "broken.yaml").write_text("title: [")
    with pytest.raises(ParamsError, match=r"broken\.yaml: not valid YAML"):
        load_presets(tmp_path)


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train.epochs=[", "train.epoch=3"])
def test_a_wrong_override_is_named(base, override):
    with pytest.raises(ParamsError, match=r"-S|train\.epoch: unknown key"):
        values_of("small", base, changes=Changes(None, None, (override,)))


def test_balanced_data_need_a_balance(base):
    with pytest.raises(ParamsError, match=r"nam2022\.yaml, balanced: assemble\.balance\.how is none"):
        values_of("nam2022", base, "balanced", Changes(None, None, ("assemble.balance.how=none",)))


def test_a_section_is_merged_and_a_value_replaced():
    values = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    merge(values, {"a": {"c": [3]}, "d": {"e": 2}})
    assert values == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}


# ---- what is run again ---------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of this repository's tracked and new files under Git, with one commit, its params small."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    root = tmp_path / "repository"
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/", "web/")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "--no-verify", "-m", "all"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    return root


def one_run(root: Path, *arguments: str) -> Run:
    """The only run that these arguments ask for."""
    asked = parse([*arguments, "--data", "raw"])
    presets = load_presets(root / "studies", asked.presets)
    changes = Changes(asked.epochs, asked.weights, tuple(asked.set))
    (run,) = plan(root, presets, asked.data, asked.seeds, changes)
    return run


def record_of(run: Run, **changes: object) -> Record:
    slices = {"n": 55, "accuracy": 0.8, "auroc_macro": 0.9}
    made = Record(
        **vars(run), name=run.name, experiment="0" * 40, measures={"test": slices, "test/kermany/official": slices},
        parameters=558_849, epochs_run=30, seconds_per_epoch=3.5, latency_ms=2.25,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def write_record(root: Path, record: Record) -> None:
    folder = root / RECORDS / record.name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(record)))
    for name in ("confusion.png", "curves.png", "learning.png", "features.png", "heatmaps.png"):
        assert cv2.imwrite(str(folder / name), np.zeros((20, 30, 3), np.uint8))


def test_a_finished_run_is_told_by_its_params_and_code(repository):
    run = one_run(repository, "nam2022")
    assert not finished(repository, run)
    write_record(repository, record_of(run))
    assert finished(repository, run)
    assert finished(repository, one_run(repository, "nam2022", "-S", "monitor.alpha=0.2"))
    assert not finished(repository, one_run(repository, "nam2022", "-S", "train.batch_size=8"))
    assert not finished(repository, one_run(repository, "nam2022", "--epochs", "1"))  # a trial is another run
    (repository / "README.md").write_text("new")
    assert finished(repository, one_run(repository, "nam2022"))
    with open(repository / "cxr/training/augment.py", "a") as code:
        code.write("# changed\n")
    assert not finished(repository, one_run(repository, "nam2022"))


def test_a_seed_is_a_run_of_its_own_with_the_digest_of_the_others(repository):
    presets = load_presets(repository / "studies", ["small"])
    runs = plan(repository, presets, ["raw"], 3, Changes())
    assert [run.name for run in runs] == [f"study-small-raw-s{2026 + i}" for i in range(3)]
    assert [run.values["seed"] for run in runs] == [2026, 2027, 2028]
    assert len({run.digest for run in runs}) == 1


def test_a_workspace_is_the_working_tree_with_the_run_s_params(repository):
    (repository / "README.md").write_text("not committed")
    (repository / "Makefile").unlink()
    run = one_run(repository, "nam2022", "-S", "train.epochs=7")
    assert prepare(repository, run) is False
    folder = workspace(repository, run)
    text = (folder / "params.yaml").read_text()
    assert read_base(folder / "params.yaml") == run.values
    assert list(run.values["sources"]) == ["kermany"]
    assert "# images drawn per source" in text  # the comments stay
    assert (folder / "README.md").read_text() == "not committed"
    assert not (folder / "Makefile").exists()
    assert not (folder / "dvc.lock").exists()
    assert str(repository / ".dvc/cache") in (folder / ".dvc/config.local").read_text()


def test_an_interrupted_workspace_is_kept_only_for_the_same_settings(repository):
    run = one_run(repository, "nam2022")
    prepare(repository, run)
    checkpoint = workspace(repository, run) / "models/checkpoint/epoch.npz"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert prepare(repository, run) is True
    assert checkpoint.exists()
    changed = dataclasses.replace(run, digest="another")
    assert prepare(repository, changed) is False
    assert not checkpoint.exists()


def test_a_process_left_in_the_workspace_is_named(repository):
    run = one_run(repository, "nam2022")
    prepare(repository, run)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=workspace(repository, run))
    try:
        with pytest.raises(CxrError, match=rf"process {left.pid} still works there"):
            prepare(repository, run)
    finally:
        left.kill()
        left.wait()


def test_downloads_are_linked_and_what_is_local_is_not(tmp_path, base):
    root, folder = tmp_path / "root", tmp_path / "folder"
    files = root / "data/raw/kermany/files"
    files.mkdir(parents=True)
    (files / "a.zip").write_text("films")
    (root / "data/checksums").mkdir()
    (root / "data/checksums/kermany.sha256").write_text("digest")
    (folder / "data/checksums").mkdir(parents=True)
    bring_downloads(root, folder, values_of("nam2022", base))
    assert not (folder / "data/raw").exists()
    remote = Changes(None, None, ("sources.kermany.origin=kaggle:a/b",))
    bring_downloads(root, folder, values_of("nam2022", base, changes=remote))
    assert (folder / "data/raw/kermany/files/a.zip").samefile(files / "a.zip")
    assert (folder / "data/checksums/kermany.sha256").read_text() == "digest"


def test_replace_makes_equal():
    written = {"a": {"b": 1, "gone": 2}, "c": 3}
    replace(written, {"a": {"b": 2}, "d": [1]})
    assert written == {"a": {"b": 2}, "d": [1]}


def test_a_record_of_another_kind_is_one_sentence(tmp_path):
    path = tmp_path / RECORDS / "study-a-raw-s1/run.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"name": 1}')
    with pytest.raises(CxrError, match=r"run\.json: not the record of a run .* delete"):
        read_record(tmp_path, "study-a-raw-s1")


LOG = """Epoch 1/3
6/6 - 9s - 1s/step - accuracy: 0.5238 - loss: 0.9047 - val_accuracy: 0.7586 - learning_rate: 0.0020
Epoch 2/3
6/6 - 3s - 512ms/step - accuracy: 0.6310 - loss: 0.9672
Epoch 3/3
6/6 - 3s - 500ms/step - accuracy: 0.6310 - loss: 0.9672
44 of 55 - 3s - 9ms/step
"""


def test_seconds_of_an_epoch_are_read_from_what_keras_prints():
    assert seconds_per_epoch(LOG) == 3.07
    assert seconds_per_epoch("Stage 'train' is cached - skipping run, checking out outputs\n") is None


# ---- the report ----------------------------------------------------------------------------------------------------


def recorded(base: dict, name: str, data: str, seed: int, accuracy: float, **changes: object) -> Record:
    values = values_of(name, base, data) | {"seed": seed}
    measures = {"test/kermany/official": {"n": 55, "accuracy": accuracy, "auroc_macro": None}}
    return record_of(Run(name, data, seed, None, values, "digest"), measures=measures, **changes)


def test_the_table_has_every_preset_and_the_mean_and_spread_of_the_seeds(base):
    presets = load_presets(STUDIES)
    records = [
        recorded(base, "nam2022", "raw", 1, 0.7), recorded(base, "nam2022", "raw", 2, 0.8, seconds_per_epoch=None),
        recorded(base, "nam2022", "balanced", 1, 0.9),
    ]  # fmt: skip
    rows = table(rows_of(presets, records)).set_index(["preset", "data"])
    assert set(rows.index) == {(name, data) for name, preset in presets.items() for data in preset.data}
    raw = rows.loc[("nam2022", "raw")]
    assert raw["accuracy"] == pytest.approx(0.75)
    assert raw["accuracy_sd"] == pytest.approx(0.0707, abs=1e-4)
    assert (raw["accuracy_published"], raw["seeds"], raw["images"]) == (0.7708, 2, 55)
    assert (raw["parameters"], raw["latency_ms"], raw["seconds_per_epoch"]) == (558_849, 2.25, 3.5)
    assert pd.isna(raw["auroc_macro"])
    balanced = rows.loc[("nam2022", "balanced")]
    assert pd.isna(balanced["accuracy_sd"])
    assert rows.loc[("xception", "balanced"), "auroc_macro_published"] == 0.947
    assert rows.loc[("resnet50", "balanced"), "seeds"] == 0


def test_runs_of_different_settings_are_never_averaged(base):
    presets = load_presets(STUDIES, ["nam2022"])
    records = [
        recorded(base, "nam2022", "raw", 1, 0.7),
        recorded(base, "nam2022", "raw", 2, 0.9, digest="other", trial_epochs=1),
    ]
    rows = [row for row in rows_of(presets, records) if row.data == "raw"]
    assert [row.ours("accuracy") for row in rows] == [[0.7], [0.9]]
    assert [shown(row)[4] for row in rows] == ["accuracy 0.7000", "accuracy 0.9000, a trial"]


def test_what_must_be_known_first_is_said(base):
    presets = load_presets(STUDIES, ["resnet50"])
    record = recorded(base, "resnet50", "balanced", 1, 0.7, trial_epochs=2)
    rows = [Row("resnet50", presets["resnet50"], "balanced", [record])]
    assert [sentence.split()[2] for sentence in warnings(rows)] == ["the", "as"]
    record.values["train"]["weights"] = "none"
    assert "ran from scratch" in warnings(rows)[2]
    record.values["sources"]["kermany"]["origin"] = "/data/kermany"
    assert len(warnings(rows)) == 2


def test_the_report_is_whole_and_loads_nothing(base, tmp_path):
    presets = load_presets(STUDIES)
    record = recorded(base, "nam2022", "raw", 1, 0.7)
    write_record(tmp_path, record)
    write_report(tmp_path, presets, [record])
    report = tmp_path / "reports/study"
    assert {path.name for path in report.iterdir()} == {
        "index.html", "published.png", "runs", "table.csv", "table.md",
    }  # fmt: skip
    page = (report / "index.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("src=") == page.count('src="data:image/webp;base64,') == 1 + 5
    assert all(name in page for name in presets)
    assert len(pd.read_csv(report / "table.csv")) == sum(len(preset.data) for preset in presets.values())
    line = next(line for line in (report / "table.md").read_text().splitlines() if "0.7708" in line)
    assert "accuracy 0.7000" in line
    assert "558,849" in line


# ---- the command ---------------------------------------------------------------------------------------------------


def command(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "study", *arguments], cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def test_list_names_every_preset():
    done = command("--list")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == NAMES


@pytest.mark.heavy
def test_wrong_arguments_are_one_sentence():
    for arguments, sentence in [
        (["nam2021"], "error: "), (["--data", "rax"], "invalid choice: 'rax'"), (["--seeds", "0"], "found 0, expected"),
        (["small", "-S", "train.epoch=1", "--list"], "studies/small.yaml, balanced: train.epoch: unknown key"),
    ]:  # fmt: skip
        done = command(*arguments)
        assert done.returncode
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_importing_it_costs_no_training_library():
    code = "import sys, study.__main__; print([m for m in ('tensorflow', 'keras', 'prefect') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.heavy
def test_a_run_that_fails_says_why_and_leaves_no_record(repository):
    done = command("small", "--data", "raw", "-S", "sources.kermany.origin=/nowhere/films", cwd=repository)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: study: 1 of 1 runs failed: study-small-raw-s2026: sources.kermany.origin: ")
    assert "/nowhere/films does not exist" in last
    assert "not run" in (repository / "reports/study/table.md").read_text()
    assert not list((repository / RECORDS).glob("*"))


@pytest.mark.slow
def test_a_preset_runs_is_killed_goes_on_and_becomes_an_experiment(repository):
    """On the demo: the first process is ended in the middle of training, the second ends what it began."""
    arguments = ["small", "--data", "raw", "--epochs", "6", "-S", "train.batch_size=8"]
    run = one_run(repository, "small", *arguments[3:])
    log = repository / f".dvc/tmp/study/{run.name}.log"
    going = subprocess.Popen([sys.executable, "-m", "study", *arguments], cwd=repository)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (log.exists() and "Epoch 3/6" in log.read_text()):
        assert going.poll() is None, log.read_text()
        time.sleep(0.2)
    going.send_signal(signal.SIGTERM)
    assert going.wait(timeout=60)

    done = command(*arguments, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert f"{run.name}: goes on" in done.stdout
    assert f"{run.name}: finished before" in command(*arguments, cwd=repository).stdout

    folder = repository / RECORDS / run.name
    trained = (folder / "log.txt").read_text()
    assert trained.count("Epoch 1/6") == 1  # the second process did not begin again
    assert trained.count("Epoch 6/6") == 1
    record = read_record(repository, run.name)
    assert record is not None
    assert record.epochs_run == 6
    assert record.parameters == 93_826
    assert record.latency_ms > 0
    assert record.seconds_per_epoch is not None
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "log.txt", "confusion.png", "curves.png", "learning.png", "features.png", "heatmaps.png",
    }  # fmt: skip
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.name in listed.stdout
    assert not workspace(repository, run).exists()
    status = subprocess.run(["git", "status", "--short"], cwd=repository, capture_output=True, text=True, check=True)
    assert not status.stdout
