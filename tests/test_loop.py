"""The loop with real servers on loopback: Bento, prediction log, Prefect server, worker, both deployments.

The flows work on a repository made here (CXR_REPOSITORY): a real Git and DVC repository whose few stages write in a
second what the real ones write in minutes. `test_the_real_pipeline`, marked slow, retrains a clone of this one.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pandas as pd
import psutil
import pytest

from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import load_radiograph
from cxr.processes import end_group, start_group
from cxr.release.drift import drift_table
from cxr.release.model import Release
from tests.live_service import serve as serve_bento

ROOT = Path(__file__).resolve().parent.parent

PIPELINE = """
stages:
  acquire:
    foreach: [kermany, nih]
    do:
      cmd: mkdir -p raw && echo ${item} > raw/${item}
      outs: ["raw/${item}"]
  train:
    cmd: python train.py
    deps: [raw/kermany, raw/nih, train.py]
    outs: [model]
  evaluate:
    cmd: python evaluate.py
    deps: [model, evaluate.py]
    outs:
      - reports/metrics.json: {cache: false}
  gate:
    cmd: python gate.py
    deps: [reports/metrics.json, gate.py, limit]
    outs:
      - reports/gate.json: {cache: false}
  package:
    cmd: cat model reports/gate.json > bento
    deps: [model, reports/gate.json]
    outs: [bento]
"""
TRAIN = "print('epoch 1/1: loss 0.5')\nopen('model', 'w').write('weights')\n"
EVALUATE = """
import json
measures = {"n": 9, "accuracy": 0.9, "classes": {"Normal": {"recall": 0.8}}, "interval_95": {"accuracy": [0.8, 1.0]}}
open("reports/metrics.json", "w").write(json.dumps({"slices": {"test": measures}}))
"""
GATE = """
import json, sys
limit = float(open("limit").read())
passed = limit <= 0.9
sentence = f"accuracy 0.9000 {'>=' if passed else 'not >='} {limit} (test, 9 images)"
verdict = {"passed": passed, "rules": [{"passed": passed, "sentence": sentence}]}
open("reports/gate.json", "w").write(json.dumps(verdict))
if not passed:
    sys.exit(f"error: gate: {sentence}")
"""
# a trainer with a worker of its own; both ignore SIGTERM
STUBBORN_TRAIN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    open("pids", "w").write(f"{os.getpid()} {child}")
time.sleep(120)
"""


def draw_radiograph(rng: np.random.Generator) -> np.ndarray:
    """uint8 (96, 80): two dark lungs of varying size and place on bright tissue, with grain."""
    y, x = np.mgrid[0:96, 0:80].astype(np.float32)
    image = np.full((96, 80), rng.normal(170, 8), np.float32)
    for side in (-1, 1):
        centre_x, centre_y = 40 + side * rng.normal(18, 1.5), rng.normal(48, 3)
        lung = ((x - centre_x) / rng.normal(12, 1)) ** 2 + ((y - centre_y) / rng.normal(30, 2)) ** 2
        image -= rng.normal(100, 8) / (1 + np.exp(np.minimum(8 * (lung - 1), 50)))
    return np.uint8(np.clip(image + rng.normal(0, 5, image.shape), 0, 255))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def run(command: list[str], cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_release: Path) -> Path:
    """A Git and DVC repository with a pipeline, a release and the drift reference of 300 drawn images."""
    root = tmp_path_factory.mktemp("repository")
    run(["git", "init", "-q"], root)
    run([sys.executable, "-m", "dvc", "init", "-q"], root)
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copytree(tiny_release, root / "models" / "release")
    for name, text in {"dvc.yaml": PIPELINE, "evaluate.py": EVALUATE, "gate.py": GATE}.items():
        (root / name).write_text(text)
    for folder in ("reports", "data"):
        (root / folder).mkdir()

    release, rng = Release.load(tiny_release), np.random.default_rng(1)
    facts = release.facts
    radiographs = [load_radiograph(png(draw_radiograph(rng)), facts.pixels) for _ in range(300)]
    probabilities = release.model(np.stack([radiograph.image for radiograph in radiographs])).probabilities
    descriptors = pd.DataFrame([describe(radiograph) for radiograph in radiographs])
    drift_table(descriptors, probabilities, facts.classes).to_parquet(root / "models/release/reference.parquet")
    return root


@pytest.fixture(autouse=True)
def ordinary_pipeline(request: pytest.FixtureRequest) -> None:
    """Whatever the test before changed in the tiny pipeline is put back."""
    if "prefect" in request.fixturenames:
        root = request.getfixturevalue("repository")
        (root / "train.py").write_text(TRAIN)
        (root / "limit").write_text("0.8")


@dataclass(frozen=True)
class Prefect:
    """A running `python -m flows.serve`. `api` speaks to its server."""

    api: httpx.Client
    process: subprocess.Popen
    output: Path

    def call(self, method: str, path: str, body: dict | None = None) -> Any:
        """The answer's JSON. A busy server says 503 and is asked again, as Prefect's own client does."""
        for _ in range(20):
            answer = self.api.request(method, path, json=body)
            if answer.status_code != 503:
                break
            time.sleep(1)
        return answer.raise_for_status().json()

    def start(self, name: str) -> str:
        """Ask for one run of a deployment, as the UI's button does, and return the run's id."""
        deployment = self.call("GET", f"/deployments/name/{name}/{name}")["id"]
        return self.call("POST", f"/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]

    def state(self, run_id: str) -> dict:
        return self.call("GET", f"/flow_runs/{run_id}")["state"]

    def finish(self, run_id: str, seconds: float = 90) -> dict:
        """The run's last state."""
        ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_for(
            lambda: self.state(run_id)["type"] in ends, seconds, f"run {run_id}: {self.output.read_text()[-3000:]}"
        )
        return self.state(run_id)

    def artifacts(self, run_id: str) -> dict[str, dict]:
        body = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
        return {artifact["key"]: artifact for artifact in self.call("POST", "/artifacts/filter", body)}

    def logs(self, run_id: str) -> str:
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(line["message"] for line in self.call("POST", "/logs/filter", body))


def family_of(ancestor: int) -> list[int]:
    """`ancestor` and its descendants, those that live."""
    try:
        process = psutil.Process(ancestor)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    living = []
    for member in family:
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            if member.status() != psutil.STATUS_ZOMBIE:
                living.append(member.pid)
    return living


def serve_flows(root: Path, folder: Path) -> Iterator[Prefect]:
    """Server, registration and worker by the one command that a person uses; its end must leave nothing behind."""
    port, output = free_port(), folder / "serve.txt"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    environment |= {"CXR_REPOSITORY": str(root)}
    with output.open("w") as stream:
        command = [sys.executable, "-m", "flows.serve", "--port", str(port)]
        process = start_group(command, ROOT, environment, stdout=stream, stderr=stream)
    try:
        wait_for(
            lambda: f"flows: http://127.0.0.1:{port}" in output.read_text() or process.poll() is not None, 120, "serve"
        )
        assert process.poll() is None, output.read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False, timeout=30) as api:
            yield Prefect(api, process, output)
        family = family_of(process.pid)
        assert len(family) >= 3  # itself, server, worker
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert [pid for pid in family if pid in family_of(pid)] == []
    finally:
        for pid in family_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        end_group(process)


@pytest.fixture(scope="module")
def prefect(heavy: None, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    yield from serve_flows(repository, tmp_path_factory.mktemp("prefect"))


def test_deployments_have_their_schedules_and_never_overlap(prefect: Prefect) -> None:
    for name, cron, collision in (("retrain", "0 3 * * 1", "ENQUEUE"), ("monitor", "0 * * * *", "CANCEL_NEW")):
        deployment = prefect.call("GET", f"/deployments/name/{name}/{name}")
        assert [s["schedule"] for s in deployment["schedules"]] == [{"cron": cron, "timezone": "UTC", "day_or": True}]
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == collision
        assert deployment["work_pool_name"] == "chest-xray"


def test_a_hundred_usual_images_are_no_drift_and_a_hundred_inverted_ones_are(
    prefect: Prefect, repository: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    log = f"sqlite:///{repository}/predictions.sqlite"
    with serve_bento(tmp_path, CXR_RELEASE=str(repository / "models/release"), CXR_PREDICTION_LOG=log) as bento:

        def post(images: list[np.ndarray]) -> None:
            for image in images:
                answer = bento.client.post("/v1/predict", files={"file": ("x.png", png(image), "image/png")})
                assert answer.status_code == 200, answer.text

        post([draw_radiograph(rng) for _ in range(100)])
        calm = prefect.start("monitor")
        assert prefect.finish(calm)["name"] == "NoDrift"
        assert prefect.state(calm)["message"].startswith("no drift: 100 images in the last 24 h against 300")

        post([255 - draw_radiograph(rng) for _ in range(100)])
        alarmed = prefect.start("monitor")
        state = prefect.finish(alarmed)
    assert (state["type"], state["name"]) == ("COMPLETED", "Drift")
    assert state["message"].startswith("drift: ")
    assert "200 images in the last 24 h" in state["message"]
    assert prefect.artifacts(alarmed)["drift"]["data"].startswith(f"**{state['message']}**")

    folders = sorted((repository / "reports" / "drift").iterdir())
    verdicts = [json.loads((folder / "verdict.json").read_text()) for folder in folders]
    assert [verdict["drift"] for verdict in verdicts] == [False, True]
    drifted = {column["column"] for column in verdicts[1]["columns"] if column["drifted"]}
    assert {"mean", "border"} <= drifted
    assert state["message"] in (folders[1] / "report.html").read_text()


def test_retrain_runs_every_stage_and_publishes_what_it_found(prefect: Prefect, repository: Path) -> None:
    run_id = prefect.start("retrain")
    assert prefect.finish(run_id)["message"] == "all 6 stages are up to date"
    assert (repository / "bento").read_text().startswith("weights")
    wait_for(lambda: "epoch 1/1: loss 0.5" in prefect.logs(run_id), 60, "the trainer's words in the run's log")
    tasks = prefect.call("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    expected = {"acquire@kermany", "acquire@nih", "train", "evaluate", "gate", "package"}
    assert {task["name"]: task["state"]["type"] for task in tasks} == dict.fromkeys(expected, "COMPLETED")

    artifacts = prefect.artifacts(run_id)
    assert "The gate passed." in artifacts["gate"]["data"]
    assert json.loads(artifacts["metrics"]["data"])[1] == {"metric": "accuracy", "test": "0.900 (0.800 to 1.000)"}

    again = prefect.start("retrain")
    assert prefect.finish(again)["type"] == "COMPLETED"
    wait_for(lambda: "Finished in state" in prefect.logs(again), 60, "the end of the run's log")
    assert "Running stage" not in prefect.logs(again)  # nothing has changed


def test_a_failed_gate_fails_the_run_with_its_sentence_and_packages_nothing(prefect: Prefect, repository: Path) -> None:
    (repository / "bento").unlink(missing_ok=True)
    (repository / "limit").write_text("0.95")
    run_id = prefect.start("retrain")
    state = prefect.finish(run_id)
    assert (state["type"], state["message"]) == ("FAILED", "gate: accuracy 0.9000 not >= 0.95 (test, 9 images)")
    assert "**failed** | accuracy 0.9000 not >= 0.95" in prefect.artifacts(run_id)["gate"]["data"]
    assert "metrics" in prefect.artifacts(run_id)
    assert not (repository / "bento").exists()


def start_stubborn_training(prefect: Prefect, repository: Path) -> tuple[str, list[int]]:
    """Returns the flow run's id and the trainer's two process ids, both alive."""
    pids = repository / "pids"
    pids.unlink(missing_ok=True)
    (repository / "train.py").write_text(STUBBORN_TRAIN)
    run_id = prefect.start("retrain")
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60, "the trainer's start")
    trainers = [int(pid) for pid in pids.read_text().split()]
    assert all(pid in family_of(pid) for pid in trainers)
    return run_id, trainers


def test_cancelling_leaves_no_trainer_alive_and_the_next_run_works(prefect: Prefect, repository: Path) -> None:
    run_id, trainers = start_stubborn_training(prefect, repository)
    prefect.call("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    assert prefect.finish(run_id)["type"] == "CANCELLED"
    wait_for(lambda: not any(family_of(pid) for pid in trainers), 15, "the end of the trainers")

    (repository / "train.py").write_text(TRAIN)
    assert prefect.finish(prefect.start("retrain"))["type"] == "COMPLETED"


def test_ctrl_c_ends_a_running_retraining_too(prefect: Prefect, repository: Path) -> None:
    """The last test before the servers end: `serve_flows` then asserts that the trainers have ended with them."""
    _, trainers = start_stubborn_training(prefect, repository)
    assert set(trainers) <= set(family_of(prefect.process.pid))


@pytest.mark.slow
def test_the_real_pipeline(tmp_path: Path) -> None:
    """Retrains a clone of this repository's last commit, by its deployment, to a packaged Bento."""
    clone = tmp_path / "clone"
    run(["git", "clone", "-q", str(ROOT), str(clone)], tmp_path)
    for prefect in serve_flows(clone, tmp_path):
        run_id = prefect.start("retrain")
        state = prefect.finish(run_id, 1500)
        assert state["type"] == "COMPLETED", state["message"]
        assert "The gate passed." in prefect.artifacts(run_id)["gate"]["data"]
        assert (clone / "models" / "chest-xray.bento").is_file()
