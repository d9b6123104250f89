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

from cxr.demo.cases import CASES
from cxr.demo.draw import draw_case
from cxr.demo.other_views import draw_ct_slice, draw_lateral
from cxr.params import load_params
from cxr.pixels.content import COEFFICIENTS, features, recognise
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


@pytest.mark.parametrize(("reason", "draw"), [("a lateral view", draw_lateral), ("a CT slice", draw_ct_slice)])
def test_other_views_are_told(reason: str, draw) -> None:
    judged = [recognise(to_thumb(draw(np.random.default_rng(n)))) for n in range(8)]
    assert max(content.score for content in judged) < LIMIT
    assert [content.reason for content in judged].count(reason) >= 6


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
    assert set(stored["fitted_on"]) == {"kermany", "nih", "demo", "other kinds"}
    length = len(features(np.zeros((64, 64), np.uint8)))
    assert {len(kind["weights"]) for kind in stored["kinds"]} == {length}
    assert COEFFICIENTS.stat().st_size < 100_000


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
@pytest.mark.parametrize("source", ["covid-chestxray-dataset", "Figure1-COVID-chestxray-dataset"])
def test_films_of_sources_it_was_not_fitted_on_are_accepted(source: str) -> None:
    paths = sorted((REAL / "covid" / source / "images").glob("*"))[:80]
    thumbs = [load_radiograph(path.read_bytes(), PARAMS.ingest.pixels).thumb for path in paths]
    assert sum(recognise(thumb).score < LIMIT for thumb in thumbs) <= 0.02 * len(thumbs)


@pytest.mark.skipif(not REAL.exists(), reason="needs the real radiographs")
@pytest.mark.parametrize("name", ["00000966_000.png", "00026806_000.png"])
def test_laterals_that_their_table_calls_frontal_are_refused(name: str) -> None:
    data = (REAL / "nih/images" / name).read_bytes()
    assert recognise(load_radiograph(data, PARAMS.ingest.pixels).thumb).score < LIMIT
