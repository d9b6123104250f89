# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""Export the gated model to OpenVINO, prove that it answers as Keras does, and build and try the Bento that ships."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import requests
import yaml

from cxr.dataset.manifest import MANIFEST_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.errors import CxrError, plain_errors
from cxr.evaluation.model_card import card, to_markdown
from cxr.files import write_json, write_text
from cxr.params import Params, load_params
from cxr.pixels.examine import examine
from cxr.release.facts import ReleaseFacts, TrainAges, write_facts
from cxr.release.model import OUTPUTS, OpenVinoModel, Prediction, Release, self_test_image
from cxr.tasks import TASKS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"  # OpenVINO reads its graphs and not those of JAX, whatever trained

BENTOFILE = Path("bentofile.yaml")
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
        facts = write_facts(facts_of(p, table, OpenVinoModel(made / "model.xml"), reports), made)
        # the monitor compares with what was released, not with a later candidate that may fail its gate
        shutil.copyfile(reports / "reference.parquet", made / "reference.parquet")
        write_card(p, made, facts, model.count_params(), reports)
        built = build_bento(made, Path(folder), facts.version)
        try_bento(built, Path(folder), pixels, Release.load(made))
        shutil.rmtree(release, ignore_errors=True)
        made.rename(release)
        built.replace(bento)
    size = bento.stat().st_size / 1e6
    print(f"{bento}: version {facts.version}, {size:.1f} MB, answered one test film as the release does")


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


def facts_of(p: Params, manifest: pd.DataFrame, model: OpenVinoModel, reports: Path) -> ReleaseFacts:
    """Every fact of the release but its version."""
    self_test = model(self_test_image(p.ingest.pixels.size)[np.newaxis]).probabilities[0]
    return ReleaseFacts(
        version="",
        task=p.task,
        classes=list(TASKS[p.task].classes),
        pixels=p.ingest.pixels,
        min_content_score=p.ingest.min_content_score,
        train_ages=ages_of(manifest[manifest["split"] == "train"]),
        operating_points=json.loads((reports / "evaluation/operating_points.json").read_text()),
        self_test=self_test.tolist(),
        parity_tolerance=p.package.parity_tolerance,
    )


def ages_of(train: pd.DataFrame) -> TrainAges:
    """The range of `age_years`, and how many rows state one."""
    ages = train["age_years"].dropna().astype(float)
    ends = (float(ages.min()), float(ages.max())) if len(ages) else (None, None)
    return TrainAges(images=len(train), stated=len(ages), youngest=ends[0], oldest=ends[1])


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
    write_json(folder / "model_card.json", values)
    write_text(folder / "model_card.md", to_markdown(values))


def build_bento(release: Path, folder: Path, version: str) -> Path:
    """Build from a folder that holds what bentofile.yaml includes and nothing else: `bentoml build` walks all of it."""
    context = folder / "context"
    for path in shipped_files():
        target = context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copytree(release, context / "models/release")
    bento = folder / "chest-xray.bento"
    run_bentoml(folder / "build", context, "build", "--version", version)
    run_bentoml(folder / "build", context, "export", f"chest_xray:{version}", str(bento))
    return bento


def shipped_files() -> list[Path]:
    """What bentofile.yaml names, but for the release itself. Raises CxrError where a pattern finds no file."""
    settings = yaml.safe_load(BENTOFILE.read_text())
    paths = [BENTOFILE, Path(settings["python"]["requirements_txt"])]
    for pattern in settings["include"]:
        pattern = pattern.removeprefix("/")
        if pattern.startswith("models/"):
            continue
        found = [path for path in Path().glob(pattern) if path.is_file()]
        if not found:
            raise CxrError(f"{BENTOFILE}: include names {pattern}, and there is no such file; correct or delete it")
        paths += found
    return paths


def bentoml_environment(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}


def run_bentoml(home: Path, cwd: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "bentoml", *arguments]
    done = subprocess.run(command, cwd=cwd, env=bentoml_environment(home), capture_output=True, text=True)
    if done.returncode:
        tail = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise CxrError(f"package: `bentoml {' '.join(arguments)}` ended with status {done.returncode}: {tail}")


def try_bento(bento: Path, folder: Path, pixels: np.ndarray, release: Release) -> None:
    """Import the file into an empty store, serve it on loopback, and ask it about one film.

    `pixels`: squares of the test split, uint8 (n, size, size), of which the first is sent that is not refused as no
    chest film. Raises CxrError unless the Bento gets ready and answers as `release` does here.
    """
    facts = release.facts
    film = first_accepted(pixels, facts)
    expected = release.answer(examine(film, facts.pixels))
    home, log = folder / "serve", folder / "serve.log"
    run_bentoml(home, folder, "import", str(bento))
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", f"chest_xray:{facts.version}", "--host", "127.0.0.1"]
    environment = bentoml_environment(home) | {"CXR_PREDICTION_LOG": f"sqlite:///{folder}/predictions.sqlite"}
    environment.pop("CXR_RELEASE", None)  # the Bento must find the release it carries
    with open(log, "w") as output, requests.Session() as client:
        client.trust_env = False  # a proxy does not reach this machine's loopback
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=output, stderr=output
        )
        try:
            wait_until_ready(client, f"http://127.0.0.1:{port}", server, log)
            response = client.post(
                f"http://127.0.0.1:{port}/v1/predict", files={"file": ("film.png", film)}, timeout=START_SECONDS
            )
        finally:
            server.terminate()
            server.wait(timeout=30)
    answer = response.json()
    if response.status_code != 200:
        raise CxrError(f"package: the built Bento refuses a film of the test split: {answer['error']}")
    found = answer["probabilities"]
    differences = [abs(found.get(name, np.inf) - value) for name, value in expected.probabilities.items()]
    if not max(differences) <= facts.parity_tolerance:
        raise CxrError(f"package: the built Bento answers {found}, and the release here {expected.probabilities}")
    if answer["model_version"] != facts.version:
        raise CxrError(f"package: the built Bento serves version {answer['model_version']}, not {facts.version}")


def first_accepted(pixels: np.ndarray, facts: ReleaseFacts) -> bytes:
    """The first of uint8 (n, size, size) that the release does not refuse, as a PNG file."""
    for image in pixels:
        film = cv2.imencode(".png", image)[1].tobytes()
        if not examine(film, facts.pixels).refusal(facts.min_content_score):
            return film
    raise CxrError(
        f"package: all {len(pixels)} test images are refused as no frontal chest films "
        f"(ingest.min_content_score is {facts.min_content_score:g}); look at reports/explore"
    )


def wait_until_ready(client: requests.Session, url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.get(f"{url}/readyz", timeout=5).ok:
                return
        except requests.RequestException:
            pass  # it does not listen yet
        time.sleep(0.2)
    tail = " / ".join(log.read_text().strip().splitlines()[-3:])
    raise CxrError(f"package: the built Bento was not ready within {START_SECONDS} s; its log ends with: {tail}")


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
