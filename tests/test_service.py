"""The service over HTTP, as `bentoml serve` runs it, with a tiny real release."""

import base64
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr.dataset.manifest import DESCRIPTORS
from cxr.params import load_params
from cxr.pixels.examine import Film, examine
from cxr.release.model import FilmAnswer, Release
from server.answers import overlay
from server.limits import MAX_BYTES
from tests.chest_films import chest_film, not_frontal
from tests.image_files import damaged_dicom, dicom, draw, jpeg, png
from tests.live_service import BENTOML, ROOT, ConnectionCounter, LiveService, serve, service_environment
from tests.release_fixture import build_release

PIXELS = draw()
FILES = {
    "png": png(PIXELS),
    "jpeg": jpeg(PIXELS),
    "dicom": dicom(PIXELS),
    "dicom16": dicom(PIXELS.astype("uint16") * 9),
}


def predict(live: LiveService, data: bytes, **query: str) -> httpx.Response:
    return live.client.post("/v1/predict", files={"file": ("image", data)}, params=query)


def evaluate(folder: Path, data: bytes) -> tuple[FilmAnswer, Film]:
    """The evaluation path: no HTTP."""
    release = Release.load(folder)
    film = examine(data, release.facts.pixels)
    return release.answer(film), film


def value(live: LiveService, start: str) -> float:
    """The sum of the metrics whose lines begin so."""
    lines = live.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))


def logged(live: LiveService) -> dict[str, sqlite3.Row]:
    with sqlite3.connect(live.log) as connection:
        connection.row_factory = sqlite3.Row
        return {row["request_id"]: row for row in connection.execute("select * from predictions")}


def decode(data_uri: str) -> np.ndarray:
    data = base64.b64decode(data_uri.removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("name", FILES)
def test_an_answer_equals_the_evaluation_path_and_is_logged(live: LiveService, tiny_release: Path, name: str) -> None:
    response = predict(live, FILES[name])
    answer = response.json()
    expected, film = evaluate(tiny_release, FILES[name])
    facts = Release.load(tiny_release).facts

    assert response.status_code == 200
    assert list(answer["probabilities"]) == facts.classes
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert answer["predicted"] == expected.predicted
    assert answer["model_version"] == facts.version
    assert answer["operating_points"] == facts.operating_points
    assert answer["request_id"] == response.headers["x-request-id"] == str(uuid.UUID(answer["request_id"]))
    assert answer["warnings"] == []
    assert not {"heatmap", "image", "square", "age_years", "burned_in"} & set(answer)

    row = logged(live)[answer["request_id"]]
    assert yaml.safe_load(row["probabilities"]) == answer["probabilities"]
    found = yaml.safe_load(row["descriptors"])
    assert set(found) == set(DESCRIPTORS)
    assert found == pytest.approx(film.descriptors, abs=1e-6)
    np.testing.assert_allclose(np.frombuffer(row["embedding"], "<f4"), expected.embedding, atol=1e-6)


def test_the_heatmap_lies_on_the_square_that_the_model_read(live: LiveService, tiny_release: Path) -> None:
    answer = predict(live, FILES["png"], heatmap="true").json()
    expected, film = evaluate(tiny_release, FILES["png"])
    np.testing.assert_array_equal(decode(answer["image"]), film.radiograph.image)
    np.testing.assert_array_equal(decode(answer["heatmap"]), overlay(expected.evidence, len(film.radiograph.image)))
    assert answer["square"] == "letterbox"


def test_the_overlay_shows_evidence_for_a_class_alone() -> None:
    drawn = overlay(np.array([[-5, 0], [1, 2]], np.float32), 8)
    assert drawn.shape == (8, 8, 4)
    assert drawn[0, 0, 3] == drawn[0, 7, 3] == 0
    assert drawn[7, 0, 3] in (127, 128)
    assert drawn[7, 7, 3] == 255
    assert not overlay(np.full((2, 2), -1, np.float32), 8)[..., 3].any()


def _truncated(name: str) -> dict:
    return {"files": {"file": FILES[name][: len(FILES[name]) * 2 // 3]}}


BAD_REQUESTS = {
    "no body": ({}, 415, "send multipart/form-data"),
    "raw bytes": ({"content": FILES["png"], "headers": {"Content-Type": "image/png"}}, 415, "Type is image/png"),
    "urlencoded": ({"data": {"file": "x"}}, 415, "send multipart/form-data"),
    "no field file": ({"files": {"image": FILES["png"]}}, 400, "fields are: image; send exactly one"),
    "two files": ({"files": [("file", FILES["png"]), ("file", FILES["png"])]}, 400, "fields are: file, file"),
    "three files": ({"files": [("file", b"x")] * 3}, 400, "the form cannot be read: Too many files"),
    "a file and a text": ({"files": {"file": FILES["png"]}, "data": {"note": "x"}}, 400, "fields are: note, file"),
    "no boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "Missing boundary",
    ),
    "broken form": (
        {"content": b"--x\r\nno header\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        400, "the form cannot be read",
    ),
    "cut form": (
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
        400, "fields are: none",
    ),
    "empty file": ({"files": {"file": b""}}, 400, "the file is empty"),
    "unknown format": ({"files": {"file": b"GIF89a, say"}}, 422, "not a PNG, JPEG or DICOM"),
    "truncated PNG": (_truncated("png"), 422, "the PNG file is truncated"),
    "truncated JPEG": (_truncated("jpeg"), 422, "the JPEG file is truncated"),
    "truncated DICOM": (_truncated("dicom"), 422, "the file is cut off or its header is wrong"),
    "too many pixels": ({"files": {"file": png(np.zeros((2000, 2001), np.uint8))}}, 422, "more than 4 megapixels"),
    "encoded": ({"files": {"file": b"x"}, "headers": {"Content-Encoding": "gzip"}}, 415, "encoded as gzip"),
    "bad query": ({"files": {"file": FILES["png"]}, "params": {"heatmap": "maybe"}}, 422, "heatmap: found 'maybe'"),
    "too large": ({"files": {"file": bytes(MAX_BYTES + 1)}}, 413, "larger than 32 MiB"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_input_is_refused_with_a_sentence(live: LiveService, name: str) -> None:
    request, status, sentence = BAD_REQUESTS[name]
    before = len(logged(live))
    response = live.client.post("/v1/predict", **request)
    assert response.status_code == status
    assert sentence in response.json()["error"]
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert len(logged(live)) == before


def test_a_damaged_compressed_dicom_leaves_the_service_alive(live: LiveService) -> None:
    response = predict(live, damaged_dicom())
    assert response.status_code == 422
    assert "the DICOM pixel data cannot be decoded" in response.json()["error"]
    assert predict(live, FILES["png"]).status_code == 200
    assert live.output.read_text().count("initialized") == 1, "the worker was started anew"


def test_a_url_in_place_of_a_file_is_not_fetched(live: LiveService) -> None:
    target = ConnectionCounter()
    try:
        for form in ({"data": {"file": target.url}, "files": {"other": b""}}, {"files": {"file": (None, target.url)}}):
            response = live.client.post("/v1/predict", **form)
            assert response.status_code == 400
        assert "the field file holds text" in response.json()["error"]
        assert target.connections == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(target.url, trust_env=False)
        assert target.connections == 1, "the counter itself does not count"
    finally:
        target.close()


def test_a_body_without_a_length_is_counted(live: LiveService) -> None:
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(MAX_BYTES // 2**20 + 1):
            yield bytes(2**20)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = live.client.post("/v1/predict", content=chunks(), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_the_wrong_method_is_405(live: LiveService, method: str) -> None:
    response = live.client.request(method, "/v1/predict")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert "Method Not Allowed" in response.json()["error"]


@pytest.mark.parametrize(
    "path",
    ["/docs", "/redoc", "/docs.json", "/schema.json", "/healthz", "/static_content/index.css", "/assets/x", "/predict",
     "/web/", "/web/..%2fservice.py", "/web/%2e%2e/params.yaml"],
)  # fmt: skip
def test_nothing_else_is_served(live: LiveService, path: str) -> None:
    response = live.client.get(path)
    assert response.status_code == 404
    assert set(response.json()) == {"error", "request_id"}


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/style.css", "/v1/model", "/readyz", "/livez", "/nowhere"])
def test_every_answer_carries_the_security_headers(live: LiveService, path: str) -> None:
    headers = live.client.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("no-store" if path.startswith("/v1") else "no-cache")
    assert uuid.UUID(headers["x-request-id"])


def test_the_model_and_the_interface_are_described(live: LiveService, tiny_release: Path) -> None:
    facts = Release.load(tiny_release).facts
    described = live.client.get("/v1/model").json()
    assert described["version"] == facts.version
    assert described["classes"] == facts.classes
    assert described["max_bytes"] == MAX_BYTES
    assert described["min_content_score"] == facts.min_content_score
    assert described["train_ages"] == {"images": 100, "stated": 40, "youngest": 18, "oldest": 90}
    interface = live.client.get("/v1/openapi.json").json()
    assert set(interface["paths"]) == {"/v1/model", "/v1/predict"}
    body = interface["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert body["schema"]["properties"]["file"]["format"] == "binary"


def test_metrics_count_predictions_and_refusals(live: LiveService) -> None:
    names = ("chest_xray_predictions_total", "chest_xray_seconds_count", 'chest_xray_refusals_total{reason="image"}')
    before = [value(live, name) for name in names]
    answer = predict(live, FILES["png"]).json()
    predict(live, b"not an image")
    assert [value(live, name) for name in names] == [count + 1 for count in before]
    assert value(
        live, f'chest_xray_predictions_total{{predicted="{answer["predicted"]}",version="{answer["model_version"]}"}}'
    )


@pytest.fixture(scope="module")
def strict(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The service with a release that refuses what is no frontal chest film, as the shipped one does."""
    folder = tmp_path_factory.mktemp("strict")
    release = build_release(folder / "release", min_content_score=load_params().ingest.min_content_score)
    with serve(folder, CXR_RELEASE=str(release)) as service:
        yield service


def test_what_is_no_frontal_chest_film_is_refused_and_counted(strict: LiveService) -> None:
    others = not_frontal()
    label = 'chest_xray_refusals_total{reason="content"}'
    before = value(strict, label)
    for number, (reason, pixels) in enumerate(others.items(), 1):
        for data in (png(pixels), jpeg(pixels), dicom(pixels)):
            response = predict(strict, data)
            assert response.status_code == 422, reason
            told = (reason, "a CT slice") if reason == "a lateral view" else (reason,)  # drawn with hard outlines
            assert response.json()["error"] in {
                f"the image is no upright frontal chest film: it seems to be {seen}; "
                "send one PA or AP film of the whole chest, upright"
                for seen in told
            }
        assert value(strict, label) == before + 3 * number
    assert logged(strict) == {}


HEADERS = {
    "Modality": ("CT", "the header says that Modality is CT, computed tomography"),
    "ViewPosition": ("LL", "the header says that ViewPosition is LL, a left lateral view"),
    "BodyPartExamined": ("HAND", "the header says that BodyPartExamined is HAND, not the chest"),
}


@pytest.mark.parametrize("tag", HEADERS)
def test_what_the_header_calls_no_frontal_chest_film_is_refused_with_its_word(strict: LiveService, tag: str) -> None:
    word, sentence = HEADERS[tag]
    label = 'chest_xray_refusals_total{reason="header"}'
    before = value(strict, label)
    response = predict(strict, dicom(chest_film(), **{tag: word}))
    assert response.status_code == 422
    assert f"no upright frontal chest film: {sentence}; send one PA or AP film" in response.json()["error"]
    assert value(strict, label) == before + 1


def test_the_header_says_it_first_where_the_picture_shows_it_too(strict: LiveService) -> None:
    response = predict(strict, dicom(not_frontal()["a CT slice"], Modality="CT"))
    assert "the header says that Modality is CT" in response.json()["error"]


def test_what_must_be_known_beside_an_answer_is_a_warning(strict: LiveService) -> None:
    film = {"Modality": "DX", "ViewPosition": "PA", "BurnedInAnnotation": "YES", "PatientAge": "002Y"}
    answer = predict(strict, dicom(chest_film(), **film)).json()
    assert (answer["age_years"], answer["burned_in"]) == (2, True)
    warnings = {warning["code"]: warning["sentence"] for warning in answer["warnings"]}
    assert set(warnings) == {"burned_in_text", "age_outside_training"}
    assert "the header says 2 years; the training films" in warnings["age_outside_training"]
    assert "are of 18 to 90 years" in warnings["age_outside_training"]
    row = dict(logged(strict)[answer["request_id"]])
    assert set(row) == {"request_id", "at", "model_version", "predicted", "probabilities", "descriptors", "embedding"}
    usual = predict(strict, dicom(chest_film(), PatientAge="045Y", BurnedInAnnotation="NO")).json()
    assert (usual["age_years"], usual["burned_in"], usual["warnings"]) == (45, False, [])


def test_frontal_chest_films_are_answered(strict: LiveService) -> None:
    for n in range(3):
        response = predict(strict, png(chest_film(n)))
        assert response.status_code == 200, response.text
        assert response.json()["warnings"] == []


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=400),
    start=st.sampled_from([b"", png(PIXELS)[:60], jpeg(PIXELS)[:300], FILES["dicom"][:600]]),
)
def test_any_bytes_get_an_answer_or_a_sentence(strict: LiveService, start: bytes, data: bytes) -> None:
    response = predict(strict, start + data)
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code != 200:
        assert set(response.json()) == {"error", "request_id"}
        assert "Error" not in response.json()["error"]


def test_answers_at_once_equal_answers_in_turn(live: LiveService) -> None:
    files = [png(draw(seed=seed)) for seed in range(16)]
    in_turn = [predict(live, data).json()["probabilities"] for data in files]
    with ThreadPoolExecutor(8) as threads:
        answers = [response.json() for response in threads.map(lambda data: predict(live, data), files)]
    assert [answer["probabilities"] for answer in answers] == in_turn
    assert {answer["request_id"] for answer in answers} <= set(logged(live))


def test_what_a_dicom_says_of_its_patient_goes_nowhere(live: LiveService) -> None:
    whole = dicom(PIXELS, patient_name="CANARY^ONE")
    # a damaged length makes pydicom quote the bytes it reads in warnings
    damaged = whole.replace(b"UI\x14\x00" + b"1.2.840.10008.1.2.1\0", b"UI\x14\x03" + b"1.2.840.10008.1.2.1\0")
    assert damaged != whole
    response = predict(live, whole, heatmap="true")
    assert response.status_code == 200
    assert predict(live, damaged).status_code == 422
    for place in (response.content, live.output.read_bytes(), live.log.read_bytes()):
        assert b"CANARY" not in place


@pytest.mark.heavy
def test_an_answer_that_cannot_be_logged_is_withheld(tiny_release: Path, tmp_path: Path) -> None:
    with serve(tmp_path, CXR_RELEASE=str(tiny_release)) as live:
        assert live.client.get("/readyz").status_code == 200
        assert predict(live, FILES["png"]).status_code == 200
        live.log.unlink()
        live.log.mkdir()
        response = predict(live, FILES["png"])
        assert response.status_code == 503
        assert "could not be recorded" in response.json()["error"]
        assert set(response.json()) == {"error", "request_id"}
        assert live.client.get("/readyz").status_code == 503
        assert live.client.get("/livez").status_code == 200
        live.log.rmdir()
        assert live.client.get("/readyz").status_code == 200
        answer = predict(live, FILES["png"]).json()
        assert list(logged(live)) == [answer["request_id"]]


@pytest.mark.heavy
@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_without_a_sound_release_the_start_stops_with_one_sentence(
    tiny_release: Path, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "release"
    if fault == "changed":
        shutil.copytree(tiny_release, folder)
        with (folder / "model.bin").open("ab") as stream:
            stream.write(b"\0")
    outside = ConnectionCounter()
    environment = service_environment(tmp_path, outside, CXR_RELEASE=str(folder))
    done = subprocess.run(
        [BENTOML, "serve", "service:ChestXray", "--port", "1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    outside.close()
    assert done.returncode == 1
    assert f"error: {folder}: " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_usage_reports_are_off_though_bentoml_asked_before_the_import() -> None:
    code = (
        "import os; os.environ['BENTOML_DO_NOT_TRACK'] = 'False'\n"
        "from bentoml._internal.utils.analytics.usage_stats import do_not_track\n"
        "assert not do_not_track()\n"
        "import service\n"
        "assert do_not_track()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_nothing_phoned_home(live: LiveService) -> None:
    """Last in the module: every way out of the service leads to this counter, and usage reports were not off."""
    predict(live, FILES["png"])
    assert live.outside.connections == 0
