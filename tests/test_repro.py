"""`dvc repro` itself on a small demo, in a copy of this repository, with the network blocked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
NO_NETWORK = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def blocks_network() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0


def run(folder: Path, *command: str, check: bool = True) -> str:
    """Run with the environment's tools on the PATH, without a network where the system allows; returns the output."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    wrapped = [*(NO_NETWORK if blocks_network() else []), *command]
    done = subprocess.run(
        wrapped, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert not check or done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def set_params(folder: Path, **changes: object) -> None:
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = values
        for part in sections:
            section = section[part]
        section[name] = value
    path.write_text(yaml.safe_dump(values))


def changed_stages(folder: Path) -> set[str]:
    """The stages whose own params or files changed, by `dvc status`."""
    return set(json.loads(run(folder, "dvc", "status", "--json")))


@pytest.fixture(scope="module")
def copy(heavy, tmp_path_factory) -> Path:
    """A copy of the repository with a small demo, reproduced once."""
    folder = tmp_path_factory.mktemp("copy") / "repository"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        result = name == "dvc.lock" or (name.startswith("reports/") and name.endswith(".json"))
        if (ROOT / name).is_file() and not result:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    set_params(
        folder,
        demo__kermany=60, demo__nih=60, demo__covid=60, ingest__pixels__size=64, train__epochs=2, train__widths=[8, 16],
        package__parity_images=8, validate__min_train_per_class=5, validate__min_val_per_class=1,
        validate__min_test_per_class=1,
        gate__rules=[{"metric": "accuracy", "slice": "test", "comparison": ">=", "limit": 0}],
    )  # fmt: skip
    for command in (
        ("git", "init", "-q"),
        ("git", "add", "-A"),
        ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "copy"),
        ("dvc", "repro"),
    ):
        run(folder, *command)
    return folder


def test_the_whole_pipeline_runs_without_a_network(copy):
    if not blocks_network():
        pytest.skip("this system lets no ordinary process block the network")
    for path in ("models/chest-xray.bento", "models/release/model_card.md", "reports/data-docs/manifest/index.html"):
        assert (copy / path).stat().st_size > 0
    assert json.loads((copy / "reports/gate.json").read_text())["passed"]


def test_the_second_run_does_nothing_and_git_sees_only_the_results(copy):
    assert changed_stages(copy) == set()
    assert "Data and pipelines are up to date" in run(copy, "dvc", "repro")
    new = run(copy, "git", "status", "--porcelain", "--untracked-files=all").split("\n")
    assert {line[3:].split("/")[0] for line in new if line} <= {"dvc.lock", "reports"}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"assemble__balance__how": "oversample"}, {"assemble", "package"}),
        ({"gate__rules": [{"metric": "accuracy", "slice": "test", "comparison": ">=", "limit": 0.01}]}, {"gate"}),
        ({"train__epochs": 3}, {"train", "package"}),
        ({"monitor__alpha": 0.01}, set()),
    ],
)
def test_a_change_concerns_its_own_stage_and_what_follows(copy, change, stages):
    before = (copy / "params.yaml").read_text()
    set_params(copy, **change)
    try:
        assert changed_stages(copy) == stages
    finally:
        (copy / "params.yaml").write_text(before)


def test_jax_trains_what_is_packaged(copy, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles in half the time
    bento = copy / "models/chest-xray.bento"
    before = bento.read_bytes()
    run(copy, "dvc", "repro", "--force", "--single-item", "train", "evaluate", "gate", "package")
    assert bento.read_bytes() != before


def test_a_failed_gate_stops_before_the_package_with_a_sentence(copy):
    """Last: it leaves the copy with a failed gate."""
    set_params(copy, gate__rules=[{"metric": "accuracy", "slice": "test", "comparison": ">", "limit": 1}])
    (copy / "models/chest-xray.bento").unlink()
    output = run(copy, "dvc", "repro", check=False)
    assert "error: gate: accuracy 0." in output
    assert "not > 1 (test, " in output
    assert "Traceback" not in output
    assert not (copy / "models/chest-xray.bento").exists()
    assert not json.loads((copy / "reports/gate.json").read_text())["passed"]
