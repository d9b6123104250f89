"""Export the gated model to OpenVINO, prove that it answers as Keras does, and build and try the Bento that ships."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import cv2
import numpy as np

from cxr.dataset.manifest import MANIFEST_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.errors import CxrError, plain_errors
from cxr.evaluation.model_card import card, to_markdown
from cxr.params import Params, load_params
from cxr.release.model import (
    OUTPUTS,
    OpenVinoModel,
    Prediction,
    Release,
    ReleaseFacts,
    facts_as_json,
    release_version,
    self_test_image,
)
from cxr.tasks import TASKS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"  # OpenVINO reads its graphs and not those of JAX, whatever trained

SHIPPED = ("service.py", "bentofile.yaml", "requirements/serve.txt", "cxr", "web")
START_SECONDS = 60


def package(
    p: Params, manifest: Path, images: Path, model_path: Path, reports: Path, release: Path, bento: Path
) -> None:
    """Write `release` and `bento`, both whole or neither."""
    from cxr.models import load_model

    model = load_model(model_path)
    table = read_table(manifest, MANIFEST_COLUMNS)
    test = table[table["split"] == "test"]
    pixels = read_images(images, test.sample(min(p.package.parity_images, len(test)), random_state=p.seed))
    with tempfile.TemporaryDirectory(dir=release.parent.absolute()) as folder:
        made = Path(folder) / "release"
        made.mkdir()
        model.export(str(made / "model.xml"), format="openvino", verbose=False)
        expected = Prediction(**model.predict(pixels[..., np.newaxis], verbose=0))
        check_parity(expected, OpenVinoModel(made / "model.xml")(pixels), p.package.parity_tolerance)
        facts = write_facts(p, made, reports)
        # the monitor compares with what was released, not with a later candidate that may fail its gate
        shutil.copyfile(reports / "reference.parquet", made / "reference.parquet")
        write_card(p, made, facts, model.count_params(), reports)
        Release.load(made)
        built = build_bento(made, Path(folder), facts.version)
        try_bento(
            built, Path(folder), pixels[0], dict(zip(facts.classes, expected.probabilities[0], strict=True)), facts
        )
        shutil.rmtree(release, ignore_errors=True)
        made.rename(release)
        built.replace(bento)
    print(
        f"{bento}: version {facts.version}, {bento.stat().st_size / 1e6:.1f} MB, answered one test image as Keras does"
    )


def check_parity(expected: Prediction, found: Prediction, tolerance: float) -> None:
    """Raises CxrError where any output differs by more than `tolerance`."""
    for name in OUTPUTS:
        difference = np.abs(getattr(expected, name) - getattr(found, name)).reshape(len(expected.probabilities), -1)
        print(f"parity: {name} differs by at most {difference.max():.2g} over {len(difference)} test images")
        if not difference.max() <= tolerance:  # a NaN is no parity either
            raise CxrError(
                f"package: {name} of OpenVINO differs from Keras by {difference.max():.3g} (image "
                f"{difference.max(axis=1).argmax()} of {len(difference)}; package.parity_tolerance is {tolerance:g})"
            )


def write_facts(p: Params, folder: Path, reports: Path) -> ReleaseFacts:
    facts = ReleaseFacts(
        version="",
        task=p.task,
        classes=list(TASKS[p.task].classes),
        pixels=p.ingest.pixels,
        operating_points=json.loads((reports / "evaluation/operating_points.json").read_text()),
        self_test=OpenVinoModel(folder / "model.xml")(self_test_image(p.ingest.pixels.size)[np.newaxis])
        .probabilities[0]
        .tolist(),
    )
    facts = ReleaseFacts(**(vars(facts) | {"version": release_version(folder, facts)}))
    (folder / "release.json").write_text(json.dumps(facts_as_json(facts), indent=2) + "\n")
    return facts


def write_card(p: Params, folder: Path, facts: ReleaseFacts, parameters: int, reports: Path) -> None:
    def report(name: str) -> dict:
        return json.loads((reports / name).read_text())

    training = {
        "model": p.train.model,
        "parameters": parameters,
        "epochs_run": report("training/metrics.json")["epochs_run"],
        "seed": p.seed,
        "balance": p.assemble.balance.how,
    }
    validations = [report(f"validation/{door}.json") for door in ("records", "manifest")]
    values = card(facts, training, report("assembly.json"), validations, report("metrics.json"), report("gate.json"))
    (folder / "model_card.json").write_text(json.dumps(values, indent=2) + "\n")
    (folder / "model_card.md").write_text(to_markdown(values))


def build_bento(release: Path, folder: Path, version: str) -> Path:
    """Build from a folder that holds what ships and nothing else: `bentoml build` walks all it is given."""
    context = folder / "context"
    for name in SHIPPED:
        target = context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(name).is_dir():
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(name, target)
    shutil.copytree(release, context / "models/release")
    bento = folder / "chest-xray.bento"
    run_bentoml(folder / "build", context, "build", "--version", version)
    run_bentoml(folder / "build", context, "export", f"chest_xray:{version}", str(bento))
    return bento


def bentoml_environment(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}


def run_bentoml(home: Path, cwd: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "bentoml", *arguments]
    done = subprocess.run(command, cwd=cwd, env=bentoml_environment(home), capture_output=True, text=True)
    if done.returncode:
        tail = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise CxrError(f"package: `bentoml {' '.join(arguments)}` ended with status {done.returncode}: {tail}")


def try_bento(bento: Path, folder: Path, image: np.ndarray, expected: dict[str, float], facts: ReleaseFacts) -> None:
    """Import the file into an empty store, serve it on loopback, and ask it about one test image.

    Raises CxrError unless it gets ready and answers with `expected` to 1e-3.
    """
    home, log = folder / "serve", folder / "serve.log"
    run_bentoml(home, folder, "import", str(bento))
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", f"chest_xray:{facts.version}", "--host", "127.0.0.1"]
    environment = bentoml_environment(home) | {"CXR_PREDICTION_LOG": f"sqlite:///{folder}/predictions.sqlite"}
    environment.pop("CXR_RELEASE", None)  # the Bento must find the release it carries
    with open(log, "w") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=output, stderr=output
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server, log)
            answer = ask(f"http://127.0.0.1:{port}/v1/predict", image)
        finally:
            server.terminate()
            server.wait(timeout=30)
    found = answer["probabilities"]
    if set(found) != set(expected) or max(abs(found[k] - expected[k]) for k in expected) > 1e-3:
        raise CxrError(f"package: the built Bento answers {found} where Keras says {expected}")
    if answer["model_version"] != facts.version:
        raise CxrError(f"package: the built Bento serves version {answer['model_version']}, not {facts.version}")


def wait_until_ready(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    tail = " / ".join(log.read_text().strip().splitlines()[-3:])
    raise CxrError(f"package: the built Bento was not ready within {START_SECONDS} s; its last words: {tail}")


def ask(url: str, image: np.ndarray) -> dict:
    """Post a uint8 (size, size) image as PNG, as a client would."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="image.png"\r\n\r\n'
    body = head.encode() + cv2.imencode(".png", image)[1].tobytes() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(url, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        package(
            p, Path("data/manifest.parquet"), Path("data/images"), Path("models/model.keras"), Path("reports"),
            Path("models/release"), Path("models/chest-xray.bento"),
        )  # fmt: skip
