"""What a release says of itself, and what it says of a film."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.errors import CxrError
from cxr.params import load_params
from cxr.pixels.examine import examine
from cxr.release.drift import SCORE_DECIMALS
from cxr.release.facts import ReleaseFacts, TrainAges, read_facts, release_version, write_facts
from cxr.release.model import Release, age_note
from stages.package import ages_of, first_accepted
from tests.chest_films import chest_film, not_frontal
from tests.image_files import png
from tests.release_fixture import ADULTS, build_region_release, build_release

NO_AGES = TrainAges(images=7, stated=0, youngest=None, oldest=None)


@pytest.fixture
def changed(tiny_release: Path, tmp_path: Path) -> Path:
    """A copy of a release, to change."""
    return Path(shutil.copytree(tiny_release, tmp_path / "release"))


def test_facts_come_back_as_they_were_written(changed: Path) -> None:
    facts = read_facts(changed)
    assert write_facts(facts, changed) == facts == read_facts(changed)
    assert facts.version == release_version(changed, facts)


@pytest.mark.parametrize(
    "update", [{"min_content_score": 0.9}, {"train_ages": NO_AGES}, {"parity_tolerance": 0.5}, {"classes": ["a", "b"]}]
)
def test_every_fact_is_in_the_version(tiny_release: Path, update: dict) -> None:
    facts = read_facts(tiny_release)
    assert release_version(tiny_release, facts.model_copy(update=update)) != facts.version


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"release: no release here; `dvc repro` builds one"),
        ("", r"release.json: not the facts of a release \(the file: .*\); run `dvc repro package`"),
        ("[]", r"not the facts of a release"),
        ("{}", r"version: missing; task: missing; .*min_content_score: missing; train_ages: missing"),
    ],
)
def test_what_is_no_release_is_one_sentence_without_a_name_of_python(
    changed: Path, text: str | None, sentence: str
) -> None:
    (changed / "release.json").unlink()
    if text is not None:
        (changed / "release.json").write_text(text)
    with pytest.raises(CxrError, match=sentence) as raised:
        Release.load(changed)
    assert not any(word in str(raised.value) for word in ("ReleaseFacts", "__init__", "Error", "pydantic"))


def test_an_unknown_fact_is_refused_by_name(changed: Path) -> None:
    values = json.loads((changed / "release.json").read_text())
    (changed / "release.json").write_text(json.dumps(values | {"min_score": 1}))
    with pytest.raises(CxrError, match="min_score: unknown key"):
        Release.load(changed)


def test_the_self_test_is_held_to_the_parity_of_the_release(changed: Path) -> None:
    facts = read_facts(changed)
    shift = 2 * load_params().package.parity_tolerance
    wrong = facts.model_copy(update={"self_test": [facts.self_test[0] + shift, *facts.self_test[1:]]})
    write_facts(wrong, changed)
    with pytest.raises(CxrError, match=r"the self-test differs by 0.002 from version .* \(limit 0.001\)"):
        Release.load(changed)
    write_facts(wrong.model_copy(update={"parity_tolerance": 1.5 * shift}), changed)
    Release.load(changed)


def test_the_answer_is_what_the_model_gives(tiny_release: Path) -> None:
    release = Release.load(tiny_release)
    film = examine(png(chest_film()), release.facts.pixels)
    answer, given = release.answer(film), release.model(film.radiograph.image[np.newaxis])
    assert list(answer.probabilities) == release.facts.classes
    np.testing.assert_array_equal(np.float32(list(answer.probabilities.values())), given.probabilities[0])
    best = int(given.probabilities[0].argmax())
    assert answer.predicted == release.facts.classes[best]
    np.testing.assert_array_equal(answer.evidence, given.heatmap[0, ..., best])
    np.testing.assert_array_equal(answer.embedding, given.embedding[0])
    assert answer.mask is None
    assert answer.notes == film.notes == ()


def test_the_answer_of_a_region_is_its_mask(tmp_path: Path) -> None:
    release = Release.load(build_region_release(tmp_path))
    film = examine(png(chest_film()), release.facts.pixels)
    answer = release.answer(film)
    assert answer.mask is not None
    np.testing.assert_array_equal(answer.mask, film.radiograph.image < 100)
    assert answer.predicted == "Lungs"
    bright = examine(png(np.full((80, 80), 200, np.uint8)), release.facts.pixels)
    assert release.answer(bright).predicted == "Background"


@pytest.mark.parametrize(("age", "inside"), [(17.9, False), (18, True), (90, True), (90.1, False), (0.1, False)])
def test_an_age_outside_those_of_training_is_said(age: float, inside: bool) -> None:
    note = age_note(age, ADULTS)
    assert (note is None) == inside
    assert note is None or note.code == "age_outside_training"


def test_the_sentence_of_an_age_has_both_numbers() -> None:
    note = age_note(2, ADULTS)
    assert note is not None
    assert note.sentence == ("the header says 2 years; the training films that state an age are of 18 to 90 years")


@pytest.mark.parametrize(
    ("age", "words"), [(10 / 12, "10 months"), (1.99, "24 months"), (2, "2 years"), (17.96, "18 years")]
)
def test_an_age_below_two_years_is_told_in_months(age: float, words: str) -> None:
    note = age_note(age, ADULTS)
    assert note is not None
    assert note.sentence.startswith(f"the header says {words};")


def test_an_age_is_unknown_where_training_stated_none() -> None:
    note = age_note(2.25, NO_AGES)
    assert note is not None
    assert note.code == "age_unknown_in_training"
    assert note.sentence.startswith("the header says 2.2 years; no training film states an age")
    assert age_note(None, NO_AGES) is None


def test_the_ages_of_training_are_counted() -> None:
    ages = pd.Series([18.5, None, 90, 40, None], dtype="Float32")
    assert ages_of(pd.DataFrame({"age_years": ages})) == TrainAges(images=5, stated=3, youngest=18.5, oldest=90)
    unstated = pd.DataFrame({"age_years": pd.Series([None, None], dtype="Float32")})
    assert ages_of(unstated) == TrainAges(images=2, stated=0, youngest=None, oldest=None)


def test_the_bento_is_tried_with_a_film_that_the_release_accepts(tmp_path: Path) -> None:
    facts = read_facts(build_release(tmp_path, min_content_score=0.5))
    others = [picture[:200, :200] for picture in (not_frontal()["blank"], np.zeros((200, 200), np.uint8))]
    film = examine(png(chest_film()), facts.pixels.model_copy(update={"size": 200, "square": "stretch"}))
    assert first_accepted(np.stack([*others, film.radiograph.image]), facts) == png(film.radiograph.image)
    with pytest.raises(CxrError, match=r"all 2 test images are refused as no frontal chest films .* is 0.5"):
        first_accepted(np.stack(others), facts)


def test_the_monitor_compares_scores_no_finer_than_engines_agree() -> None:
    assert load_params().package.parity_tolerance <= 10**-SCORE_DECIMALS


def test_the_facts_have_no_default() -> None:
    """A release that an older version of the code wrote is refused, not guessed at."""
    assert all(field.is_required() for field in ReleaseFacts.model_fields.values())
