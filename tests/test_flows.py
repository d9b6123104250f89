"""The flows' own logic: stage order, lock, process groups, the drift page. Real servers are in test_loop."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from cxr.dataset.manifest import DESCRIPTORS
from cxr.errors import CxrError
from cxr.params import MonitorParams, load_params
from cxr.processes import run_group
from cxr.release.drift import drift_table
from cxr.release.prediction_log import PREDICTIONS, open_log
from flows import monitor, retrain
from flows.lock import exclusive

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ["Normal", "Pneumonia", "COVID-19"]
PARAMS = MonitorParams(log="sqlite:///log.sqlite", window_hours=24, min_images=30, alpha=0.05)
LIMITS = load_params(ROOT / "params.yaml").validate_
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


# ---- retrain -------------------------------------------------------------------------------------------------------


def test_stages_come_after_what_they_depend_on() -> None:
    """On the shipped dvc.yaml, dependencies and outputs read independently of DVC's graph."""
    names = retrain.stage_names(ROOT)
    assert len(names) == len(set(names))
    for earlier, later in [
        ("acquire@nih", "ingest@nih"), ("ingest@nih", "validate@records"), ("ingest@covid", "validate@records"),
        ("validate@records", "assemble"), ("assemble", "validate@manifest"), ("validate@manifest", "train"),
        ("train", "evaluate"), ("evaluate", "gate"), ("gate", "package"),
    ]:  # fmt: skip
        assert names.index(earlier) < names.index(later)


def test_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(CxrError, match="DVC cannot read the pipeline"):
        retrain.stage_names(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    with pytest.raises(CxrError, match=r"there is no stage in dvc\.yaml"):
        retrain.stage_names(tmp_path)


def test_last_error_prefers_the_stage_to_dvc() -> None:
    dvc = "ERROR: failed to reproduce 'gate': failed to run: python -m stages.gate, exited with 1"
    assert retrain.last_error(["error: first", "error: gate: accuracy 0.5", dvc]) == "gate: accuracy 0.5"
    assert retrain.last_error(["an error: in a log line", dvc]) == dvc.removeprefix("ERROR: ")
    assert retrain.last_error(["fine"]) is None


def test_gate_markdown_says_what_failed() -> None:
    rules = [{"passed": True, "sentence": "accuracy 0.9 >= 0.8"}, {"passed": False, "sentence": "ece 0.2 not <= 0.1"}]
    text = retrain.gate_markdown({"passed": False, "rules": rules})
    assert text.startswith("**The gate failed 1 of 2 rules.**")
    assert "| **failed** | ece 0.2 not <= 0.1 |" in text
    assert retrain.gate_markdown({"passed": True, "rules": rules[:1]}).startswith("**The gate passed.**")


def test_metrics_table_has_a_row_per_metric_and_a_column_per_slice() -> None:
    measures = {"n": 9, "accuracy": 0.91237, "auroc_macro": None, "classes": {"Normal": {"recall": 0.5}}}
    table = retrain.metrics_table({"test": measures | {"interval_95": {"accuracy": [0.8, 0.95]}}, "test/nih": {"n": 4}})
    assert table == [
        {"metric": "n", "test": "9", "test/nih": "4"},
        {"metric": "accuracy", "test": "0.912 (0.800 to 0.950)", "test/nih": ""},
        {"metric": "auroc_macro", "test": "undefined", "test/nih": ""},
        {"metric": "recall[Normal]", "test": "0.500", "test/nih": ""},
    ]


# ---- the lock ------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from flows.lock import exclusive
with exclusive(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "tmp" / "retrain.lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CxrError, match=rf"process {holder.pid} is still retraining after 0\.3 s"):
            with exclusive(lock, 0.3):
                pytest.fail("two processes held the lock")
        holder.kill()
    with exclusive(lock, 0):
        assert lock.read_text() == str(os.getpid())


def test_lock_waits_for_its_holder(tmp_path: Path) -> None:
    lock, released = tmp_path / "lock", []

    def hold() -> None:
        with exclusive(lock, 0):
            held.set()
            time.sleep(0.5)
            released.append(True)

    held = threading.Event()
    threading.Thread(target=hold).start()
    held.wait(5)
    with exclusive(lock, 10):
        assert released


# ---- process groups ------------------------------------------------------------------------------------------------

STUBBORN = "trap '' TERM; (trap '' TERM; sleep 60) & echo $! $$; wait; sleep 60"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_no_process_of_the_group_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interruption comes while a line is read, as a cancelled run's does; both processes ignore SIGTERM."""
    monkeypatch.setattr("cxr.processes.end_group.__defaults__", (0.3,))
    pids: list[int] = []

    def interrupted(line: str) -> None:
        pids.extend(map(int, line.split()))
        assert all(map(alive, pids))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group(["bash", "-c", STUBBORN], Path("/"), os.environ, interrupted)
    assert len(pids) == 2
    deadline = time.monotonic() + 5  # a killed process is gone when the system comes to it
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, pids))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_command_that_ends_leaves_no_child_behind() -> None:
    lines: list[str] = []
    assert (
        run_group(["bash", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; exit 3"], Path("/"), os.environ, lines.append)
        == 3
    )
    assert not alive(int(lines[0]))


def test_lines_arrive_while_the_command_runs() -> None:
    seen: list[float] = []
    start = time.monotonic()
    run_group(
        ["bash", "-c", "echo a; echo b >&2; sleep 1"], Path("/"), os.environ, lambda _: seen.append(time.monotonic())
    )
    assert len(seen) == 2
    assert time.monotonic() - seen[0] > 0.8
    assert seen[0] - start < 0.8


# ---- monitor -------------------------------------------------------------------------------------------------------


def draw(n: int, seed: int, darker: float = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Descriptors and probabilities of n images; `aspect` is constant."""
    rng = np.random.default_rng(seed)
    descriptors = pd.DataFrame(rng.normal(100, 10, (n, len(DESCRIPTORS))), columns=list(DESCRIPTORS))
    descriptors["mean"] -= darker
    descriptors[["contrast", "entropy", "sharpness"]] /= [2, 20, 50]  # of an image these are less
    return descriptors.assign(aspect=4 / 3), rng.dirichlet([2, 1, 1], n)


def write_log(n: int, seed: int, darker: float = 0, version: str = "v1", at: datetime = NOW) -> None:
    descriptors, probabilities = draw(n, seed, darker)
    rows = [
        {
            "request_id": f"{seed}-{i}",
            "at": (at - timedelta(minutes=i)).replace(tzinfo=None),
            "model_version": version,
            "predicted": CLASSES[int(p.argmax())],
            "probabilities": dict(zip(CLASSES, p.tolist(), strict=True)),
            "descriptors": d,
            "embedding": b"",
        }
        for i, (d, p) in enumerate(zip(descriptors.to_dict("records"), probabilities, strict=True))
    ]
    with open_log(PARAMS.log).begin() as connection:
        connection.execute(PREDICTIONS.insert(), rows)


@pytest.fixture
def released(heavy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a release's facts, its reference and no log yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXR_PREDICTION_LOG", raising=False)
    monkeypatch.setenv("CXR_REPOSITORY", str(tmp_path))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monitor.RELEASE.parent.mkdir(parents=True)
    monitor.RELEASE.write_text(json.dumps({"version": "v1", "classes": CLASSES}))
    monitor.REFERENCE.parent.mkdir(exist_ok=True)
    drift_table(*draw(300, seed=1), CLASSES).to_parquet(monitor.REFERENCE)
    return tmp_path


def test_few_images_give_no_verdict_and_no_page(released: Path) -> None:
    write_log(12, seed=2)
    watched = monitor.watch(PARAMS, LIMITS, NOW)
    assert (watched.state, watched.sentence()) == ("NoVerdict", "no verdict: 12 images in the last 24 h, 30 needed")
    assert [path.name for path in watched.folder.iterdir()] == ["verdict.json"]


def test_the_window_is_what_is_judged(released: Path) -> None:
    write_log(60, seed=2)
    write_log(500, seed=3, darker=50, at=NOW - timedelta(hours=25))
    verdict = monitor.watch(PARAMS, LIMITS, NOW).drift
    assert verdict.n_current == 60
    assert not verdict.drift


def test_page_and_verdict_agree(released: Path) -> None:
    write_log(60, seed=2, darker=15)
    write_log(40, seed=3, darker=15, version="v0")
    watched = monitor.watch(PARAMS, LIMITS, NOW)
    verdict, folder = watched.drift, watched.folder
    assert watched.state == "Drift"
    assert [column.column for column in verdict.columns if column.drifted] == ["mean"]
    assert {c.column: c.n_current for c in verdict.columns} == {
        **dict.fromkeys(DESCRIPTORS, 100),
        **{f"score_{name}": 60 for name in CLASSES},  # the reference's scores are the released version's
    }
    written = json.loads((folder / "verdict.json").read_text())
    assert written | json.loads(json.dumps(verdict.to_dict())) == written
    # answers of another version, and images darker than any of the reference, are told of and are no fault
    unmet = [(e["severity"], e["table"], e["column"]) for e in written["unmet_expectations"]]
    assert unmet == [("warning", "window", "versions"), ("warning", "images", "mean")]

    page = (folder / "report.html").read_text()
    assert "The images have changed: 1 of 13 measures differ." in page
    assert page.index("The images are darker: mean grey level ") < page.index("P-values")
    assert page.index("P-values") < page.index(verdict.sentence())  # the run's message is found on its page
    assert page.count(">changed<") == 1
    assert "window: versions must be at most 1: 1 of 1 row fails" in page
    evidently = (folder / monitor.EVIDENTLY).read_text()
    assert f'href="{monitor.EVIDENTLY}"' in page
    assert evidently.count("Data drift detected") == 1
    assert evidently.count("Data drift not detected") == len(verdict.columns) - 1
    for text in (page, evidently):
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?!data:)([^\"' >]+)", text)
        assert loaded == []  # nothing comes from elsewhere


def test_a_report_says_since_when(released: Path) -> None:
    write_log(60, seed=2, darker=15)
    for hours in range(3):
        watched = monitor.watch(PARAMS, LIMITS, NOW + timedelta(hours=hours))
    page = (watched.folder / "report.html").read_text()
    assert "60 images from 28 February 2026, 14:00 UTC, to 1 March 2026, 14:00 UTC (24 hours)" in page
    assert "Every report since 1 March 2026, 12:00 UTC says so." in page
    assert "Every report since 1 March 2026, 12:00 UTC says so." in monitor.markdown(watched)
    first = sorted(monitor.REPORTS.iterdir())[0]
    assert "This is new." in (first / "report.html").read_text()


def test_a_fault_in_what_came_in_is_stated_before_drift(released: Path) -> None:
    """In the state, the sentence, the page and the artifact; the run itself does not fail."""
    write_log(60, seed=2)
    with open_log(PARAMS.log).begin() as connection:
        broken = {"Normal": 0.9, "Pneumonia": 0.9, "COVID-19": 0.9}
        connection.execute(PREDICTIONS.update().where(PREDICTIONS.c.request_id == "2-7").values(probabilities=broken))
    watched = monitor.watch(PARAMS, LIMITS, NOW)
    assert watched.state == "Fault"
    assert watched.sentence().startswith("fault: answers: sum must be between 0.999 and 1.001: ")
    assert "found 1 of 60 rows: 2-7 (2.7); the classes exclude each other; no drift: 60 images" in watched.sentence()
    assert json.loads((watched.folder / "verdict.json").read_text())["sentence"] == watched.sentence()
    assert "2-7 (2.7)" in (watched.folder / "report.html").read_text()
    assert "- critical: answers: " in monitor.markdown(watched)


@pytest.mark.parametrize("n_reference", [400, 1000, 1001])
def test_the_size_of_the_reference_does_not_choose_the_test(n_reference: int) -> None:
    """Evidently's default changes from p-values to a distance above 1,000 rows."""
    reference, current = drift_table(*draw(n_reference, 4), CLASSES), drift_table(*draw(50, 5, darker=5), CLASSES)
    columns = ["aspect", "mean", "score_Normal"]
    snapshot = monitor.compare(current, reference, columns, alpha=0.05)
    expected = {column: ks_2samp(current[column], reference[column]).pvalue for column in columns}
    assert monitor.snapshot_p_values(snapshot) == pytest.approx(expected)
    failed = [test["status"].value == "FAIL" for test in snapshot.dict()["tests"]]
    assert failed == [p <= 0.05 / 3 for p in expected.values()]


def test_missing_reference_fails_with_one_sentence(released: Path) -> None:
    monitor.REFERENCE.unlink()
    state = monitor.monitor.fn()
    assert state.is_failed()
    missing = "models/release/reference.parquet: the drift reference is missing; `dvc repro package` releases it"
    assert state.message == missing


def test_monitor_by_hand_prints_one_sentence_and_no_traceback(released: Path) -> None:
    monitor.RELEASE.unlink()
    done = subprocess.run([sys.executable, "-m", "flows.monitor"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: models/release/release.json: no release to watch; `dvc repro` builds one\n"


def test_reference_of_other_classes(released: Path) -> None:
    monitor.RELEASE.write_text(json.dumps({"version": "v1", "classes": ["Normal", "Pneumonia"]}))
    with pytest.raises(CxrError, match=r"not those of the release \(they differ in score_COVID-19\); run `dvc repro`"):
        monitor.watch(PARAMS, LIMITS, NOW)


def test_short_reference(released: Path) -> None:
    drift_table(*draw(29, seed=1), CLASSES).to_parquet(monitor.REFERENCE)
    with pytest.raises(CxrError, match=r"29 images, at least 30 \(monitor\.min_images\) are needed"):
        monitor.watch(PARAMS, LIMITS, NOW)


def test_unreadable_log_does_not_show_its_password(released: Path) -> None:
    log = PARAMS.model_copy(update={"log": "sqlite://nurse:secret@host/nowhere/log.sqlite"})
    with pytest.raises(CxrError, match=r"monitor\.log: the prediction log .* cannot be read") as caught:
        monitor.watch(log, LIMITS, NOW)
    assert "secret" not in str(caught.value)


def test_old_pages_go_and_their_verdicts_stay(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "KEPT_PAGES", 2)
    for name in ("1", "2", "3"):
        folder = monitor.REPORTS / name
        folder.mkdir(parents=True)
        for file in ("report.html", "verdict.json"):
            (folder / file).touch()
    monitor.drop_old_pages(monitor.REPORTS)
    assert sorted(path.parent.name for path in monitor.REPORTS.glob("*/report.html")) == ["2", "3"]
    assert len(list(monitor.REPORTS.glob("*/verdict.json"))) == 3


# ---- serve ---------------------------------------------------------------------------------------------------------


def test_serve_refuses_a_port_in_use() -> None:
    import socket

    from flows.serve import require_free

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CxrError, match=f"port {port} on 127.0.0.1 is in use"):
            require_free(port)
    require_free(port)
