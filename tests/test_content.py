"""The content check refuses what is no upright frontal chest radiograph, and says what it is."""

import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.data import get_testdata_file
from sklearn.datasets import load_sample_images

from benchmarks.content_kinds import draw_abdomen, draw_limbs
from cxr.demo.cases import CASES
from cxr.demo.draw import draw_case
from cxr.demo.other_views import draw_ct_slice, draw_lateral
from cxr.params import load_params
from cxr.pixels.content import COEFFICIENTS, features, read_network, recognise
from cxr.pixels.radiograph import load_radiograph
from cxr.pixels.thumbs import to_thumb

REAL = Path(__file__).parents[2] / "shared/real"
PARAMS = load_params()
LIMIT = PARAMS.ingest.min_content_score


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Thumbs of the demo that the pipeline runs on; the check was fitted on other seeds."""
    cases = [case for source in ("kermany", "nih", "covid") for case in islice(CASES[source](PARAMS.seed), 8)]
    return [to_thumb(draw_case(PARAMS.seed, case)) for case in cases]


def test_the_demos_films_are_accepted(films: list[np.ndarray]) -> None:
    assert min(recognise(film).score for film in films) >= LIMIT
    assert {recognise(film).reason for film in films} == {""}


def test_a_film_mirrored_left_to_right_is_accepted(films: list[np.ndarray]) -> None:
    assert min(recognise(np.ascontiguousarray(film[:, ::-1])).score for film in films) >= LIMIT


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("inverted, bone dark", lambda film: 255 - film),
        ("upside down", lambda film: film[::-1, ::-1]),
        ("on its side", lambda film: np.rot90(film)),
        ("on its side", lambda film: np.rot90(film, 3)),
    ],
)
def test_a_turned_or_inverted_film_is_told(films: list[np.ndarray], reason: str, change) -> None:
    judged = [recognise(np.ascontiguousarray(change(film))) for film in films]
    assert max(content.score for content in judged) < LIMIT
    assert [content.reason for content in judged].count(reason) >= 0.9 * len(films)


@pytest.mark.parametrize(
    ("reasons", "draw"),
    [({"a lateral view", "a CT slice"}, draw_lateral), ({"a CT slice"}, draw_ct_slice)],  # laterals with hard outlines
)
def test_other_views_are_told(reasons: set[str], draw) -> None:
    judged = [recognise(to_thumb(draw(np.random.default_rng(n)))) for n in range(8)]
    assert max(content.score for content in judged) < LIMIT
    assert sum(content.reason in reasons for content in judged) >= 6


@given(level=st.integers(0, 255), noise=st.integers(0, 6), seed=st.integers(0, 1000))
def test_an_empty_image_is_refused(level: int, noise: int, seed: int) -> None:
    grain = np.random.default_rng(seed).integers(-noise, noise + 1, (64, 64))
    assert recognise(np.clip(level + grain, 0, 255).astype(np.uint8)).score < LIMIT


@settings(max_examples=50)
@given(arrays(np.uint8, (64, 64), elements=st.integers(0, 255)))
def test_any_pixels_get_a_probability_and_a_reason(thumb: np.ndarray) -> None:
    content = recognise(thumb)
    assert 0 <= content.score <= 1
    assert (content.reason == "") == (content.score >= 0.5)
    assert content == recognise(thumb.copy())


def test_a_page_of_text_is_refused() -> None:
    page = np.full((800, 600), 255, np.uint8)
    for row in range(40, 780, 24):
        cv2.putText(page, "findings: no focal consolidation", (40, row), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 0, 1)
    assert recognise(to_thumb(page)).score < LIMIT


def test_the_coefficients_say_what_they_were_fitted_on() -> None:
    stored = json.loads(COEFFICIENTS.read_text())
    assert set(stored["fitted_on"]) == {
        "kermany",
        "nih",
        "covid",
        "demo",
        "laterals and CT slices",
        "CT volume",
        "other kinds",
    }
    length = len(features(np.zeros((64, 64), np.uint8)))
    network = read_network()
    assert network.hidden.shape[1] == len(network.mean) == len(network.deviation) == length
    assert network.weights.shape == (len(network.kinds), len(network.hidden))
    assert COEFFICIENTS.stat().st_size < 100_000


def test_each_film_of_many_is_judged_as_it_is_alone(films: list[np.ndarray]) -> None:
    together = read_network().likelihoods(np.stack([features(film) for film in films]))
    assert together[:, 0] == pytest.approx([recognise(film).score for film in films], abs=1e-5)
    assert together.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("piece", [np.s_[:, :], np.s_[:300, :300], np.s_[100:, 200:]])
def test_photographs_are_refused(piece) -> None:
    for photograph in load_sample_images().images:
        grey = cv2.cvtColor(np.ascontiguousarray(photograph[piece]), cv2.COLOR_RGB2GRAY)
        assert recognise(to_thumb(grey)).score < LIMIT


@pytest.mark.parametrize("name", ["693_J2KI", "J2K_pixelrep_mismatch", "CT_small", "MR_small", "examples_overlay"])
def test_slices_as_dicom_are_refused(name: str) -> None:
    data = Path(get_testdata_file(f"{name}.dcm")).read_bytes()
    assert recognise(load_radiograph(data, PARAMS.ingest.pixels).thumb).score < LIMIT


def test_limbs_and_abdomens_are_refused() -> None:
    for draw in (draw_limbs, draw_abdomen):
        judged = [recognise(to_thumb(draw(np.random.default_rng(n)))) for n in range(20)]
        assert sum(content.score < LIMIT for content in judged) >= 18


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
@pytest.mark.parametrize(("folder", "reason"), [("ct", "a CT slice"), ("lateral", "a lateral view")])
def test_the_views_it_was_fitted_on_are_told(folder: str, reason: str) -> None:
    """How it does on others of their kind is measured by `benchmarks.content --held-out`."""
    for path in sorted((REAL / "not-frontal" / folder).glob("*")):
        content = recognise(load_radiograph(path.read_bytes(), PARAMS.ingest.pixels).thumb)
        assert content.score < LIMIT, path.name
        assert content.reason == reason, path.name


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
def test_a_real_dicom_film_is_accepted_and_refused_when_inverted() -> None:
    path = next((REAL / "dicom").glob("1.2*.dcm"))
    thumb = load_radiograph(path.read_bytes(), PARAMS.ingest.pixels).thumb
    assert recognise(thumb).score >= LIMIT
    assert recognise(255 - thumb).reason == "inverted, bone dark"


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
def test_films_of_a_source_it_was_not_fitted_on_are_accepted() -> None:
    paths = sorted((REAL / "covid/Figure1-COVID-chestxray-dataset/images").glob("*"))
    thumbs = [load_radiograph(path.read_bytes(), PARAMS.ingest.pixels).thumb for path in paths]
    assert sum(recognise(thumb).score < LIMIT for thumb in thumbs) <= 0.005 * len(thumbs)


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
@pytest.mark.parametrize("name", ["00000966_000.png", "00026806_000.png"])
def test_laterals_that_their_table_calls_frontal_are_refused(name: str) -> None:
    data = (REAL / "nih/images" / name).read_bytes()
    assert recognise(load_radiograph(data, PARAMS.ingest.pixels).thumb).score < LIMIT
