"""The service and its monitor with a release that finds a region."""

import json

import cv2
import numpy as np
import pytest

from cxr.evaluation import metrics
from cxr.tasks import TASKS
from tests.image_files import png
from tests.live_service import serve
from tests.masked_source import film
from tests.release_fixture import build_region_release


@pytest.fixture(scope="module")
def region_service(heavy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("region")
    with serve(folder, CXR_RELEASE=str(build_region_release(folder / "release"))) as service:
        yield service


def ask(service, pixels: np.ndarray, **query: str) -> dict:
    answer = service.client.post("/v1/predict", files={"file": png(pixels)}, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_service_answers_with_the_mask_and_the_share_of_the_image(region_service):
    from tests.test_service import decode, logged

    pixels, mask = film(2, 128, 128)
    answer = ask(region_service, pixels, heatmap="true")
    found, image, drawn = (decode(answer[name]) for name in ("mask", "image", "heatmap"))
    assert answer["predicted"] == "Lungs"
    assert set(np.unique(found)) == {0, 255}
    assert (found == np.uint8(255) * (image < 100)).all()
    assert (drawn[..., 3] == found).all()
    expected = cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA) > 127
    assert metrics.overlaps(expected[np.newaxis], found[np.newaxis] > 0)["dice"][0] > 0.9
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert answer["probabilities"]["Lungs"] == pytest.approx((found > 0).mean(), abs=0.05)
    row = logged(region_service)[answer["request_id"]]
    assert (row["predicted"], json.loads(row["probabilities"])) == ("Lungs", answer["probabilities"])
    assert "mask" not in ask(region_service, pixels)


def test_an_image_without_the_region_is_background(region_service):
    answer = ask(region_service, np.full((80, 80), 200, np.uint8), heatmap="true")
    assert answer["predicted"] == "Background"
    assert answer["probabilities"]["Background"] > 0.99


def test_the_contract_says_what_a_mask_is(region_service):
    answer = region_service.client.get("/v1/openapi.json").json()["components"]["schemas"]["Answer"]["properties"]
    assert "255 inside" in answer["mask"]["description"]
    assert "share of the square" in answer["probabilities"]["description"]


def test_a_classifier_says_nothing_of_masks(live):
    assert "mask" not in ask(live, film(2)[0], heatmap="true")


def test_the_monitor_reads_answers_of_a_region(region_service):
    from cxr.release.drift import log_table

    rows = [
        {"descriptors": {}, "probabilities": {"Background": 0.6, "Lungs": 0.4}, "model_version": "a", "request_id": "1"}
    ]
    table = log_table(rows, TASKS["localise-lungs"].classes, "a")
    assert table[["score_Background", "score_Lungs"]].iloc[0].tolist() == pytest.approx([0.6, 0.4])
