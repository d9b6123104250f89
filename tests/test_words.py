"""The words that people write for views, sexes and ages, and the names they write for files."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cxr.dataset.rejected import NOT_UNDERSTOOD, OF_A_CELL
from cxr.params import SexWords, ViewWords
from cxr.sources.names import Names
from cxr.sources.reading import AGE_UNREAD, NOT_FRONTAL, SEX_UNREAD, VIEW_NOT_STATED, VIEW_UNREAD
from cxr.sources.reading import OF_A_CELL as CELL_REASONS
from cxr.words import BESIDE_THE_VIEW, NEVER_FRONTAL, SEXES, UNITS, VIEWS, age_of, plain_word, sex_of, shown, view_of


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("p.a.", "PA"), ("PA erect", "PA"), ("postero-anterior", "PA"), ("Postéro-antérieur", "PA"), ("P. A.", "PA"),
        ("POSTEROANTERIOR", "PA"), ("Röntgen Thorax p.a. im Stehen", "PA"), ("pa", "PA"), ("PA debout", "PA"),
        ("AP supine", "AP"), ("a.-p.", "AP"), ("AP_horizontal", "AP"), ("AP semi erect", "AP"), ("AP: sitting", "AP"),
        ("AP portable", "AP"), ("anteroposterior en decúbito supino", "AP"), ("a.p. liegend", "AP"),
        ("Frontal", "frontal"), ("face", "frontal"), ("L", "other"), ("LL", "other"), ("LATERAL", "other"),
        ("seitlich", "other"), ("AP LLD", "other"), ("XTABLE LATERAL", "other"), ("AP AXIAL", "other"),
        ("decúbito lateral", "other"), ("", "not stated"), ("?", "not stated"), ("NaN", "not stated"),
        ("unknown", "not stated"), ("k. A.", None), ("erect", None), ("PA/AP", None), ("PA and lateral", None),
        ("L5 S1", None), ("chest", None), ("frontal lateral", None), ("Meier", None),
    ],
)  # fmt: skip
def test_views_are_understood_as_people_write_them(text, meaning):
    assert view_of(text) == meaning


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("M", "M"), ("männlich", "M"), ("Hombre", "M"), ("homme", "M"), ("F", "F"), ("weiblich", "F"), ("W", "F"),
        ("féminin", "F"), ("mujer", "F"), ("O", "O"), ("divers", "O"), ("", "not stated"), ("Unknown", "not stated"),
        ("U", "not stated"), ("?", "not stated"), ("x", None), ("v", None), ("1", None), ("Maria Lopez", None),
    ],
)  # fmt: skip
def test_sexes_are_understood_in_several_languages(text, meaning):
    assert sex_of(text) == meaning


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("57", 57), ("057Y", 57), ("57 Jahre", 57), ("57 años", 57), ("018M", 1.5), ("6 Monate", 0.5), ("4,5", 4.5),
        ("50+", 50), ("0", 0), ("", "not stated"), ("n/a", "not stated"), ("410", None), ("-3", None), ("ten", None),
        ("12 to 14", None), ("57 x", None), ("1e3", None), ("inf", None), ("20100101", None),
    ],
)  # fmt: skip
def test_ages_are_understood_with_their_units(text, years):
    assert age_of(text) == years


def test_no_word_stands_in_two_tables():
    """A word that is both of a view and of how the film was taken would be read by the order of the code."""
    for a, b in ((VIEWS, NEVER_FRONTAL), (VIEWS, BESIDE_THE_VIEW), (NEVER_FRONTAL, BESIDE_THE_VIEW)):
        assert not set(a) & set(b)
    assert all(plain_word(word) == word for table in (VIEWS, SEXES, UNITS, NEVER_FRONTAL) for word in table)


DECORATION = st.text(alphabet=" .-_/()", max_size=3)


@given(st.sampled_from(sorted(VIEWS)), st.randoms(use_true_random=False), DECORATION, DECORATION)
def test_case_and_punctuation_change_no_view(word, random, before, after):
    dressed = before + "".join(random.choice([c.upper(), c.lower(), f"{c}."]) for c in word) + after
    assert view_of(dressed) == VIEWS[word]


@given(
    st.sampled_from(["pa", "ap", "frontal", "lateral"]), st.lists(st.sampled_from(sorted(BESIDE_THE_VIEW)), max_size=3)
)
def test_how_a_film_was_taken_changes_no_view(word, beside):
    for words in ([word, *beside], [*beside, word]):
        assert view_of(" ".join(words)) == VIEWS[word]


@given(st.text(max_size=40))
def test_no_text_breaks_the_words_and_only_known_words_have_a_meaning(text):
    assert view_of(text) in {"PA", "AP", "frontal", "other", "not stated", None}
    assert sex_of(text) in {"M", "F", "O", "not stated", None}
    years = age_of(text)
    assert years in {"not stated", None} or 0 <= years <= 120
    if not plain_word(text):
        assert view_of(text) == sex_of(text) == "not stated"


@given(st.text(max_size=80))
def test_a_report_quotes_short_words_alone(text):
    told = shown(text)
    if told != f"a cell of {len(text)} characters":
        assert told == repr(text)
        assert len(text.split()) <= 3
        assert len(text) <= 62
        assert sum(c.isdigit() for c in text) <= 6


@pytest.mark.parametrize(
    "cell", ["Maria Lopez", "Meier, Hans, geb. 3.4.1950", "seen by Dr House", "19500403", "A-12345678", "x" * 21, ""]
)
def test_a_report_quotes_no_name_and_no_number_of_a_patient(cell):
    assert shown(cell) == f"a cell of {len(cell)} characters"


def test_words_of_ones_own_are_believed_first():
    assert view_of("Schr.", {"schr": "other"}) == "other"
    assert view_of("L", {"l": "PA"}) == "PA"
    assert sex_of("1", {"1": "M"}) == "M"


@pytest.mark.parametrize(
    ("schema", "words"), [(ViewWords, {"P.A.": "PA", "pa": "AP"}), (SexWords, {"Fräulein": "F", "FRAULEIN": "O"})]
)
def test_a_word_that_means_two_things_is_refused(schema, words):
    first, second = words
    with pytest.raises(ValidationError, match=f"'{re.escape(first)}' and '{second}' are one word, and mean"):
        TypeAdapter(schema).validate_python(words)
    assert TypeAdapter(schema).validate_python(dict.fromkeys(words, words[first]))


def test_the_reasons_are_read_by_what_counts_them():
    for reason in (VIEW_UNREAD, AGE_UNREAD, SEX_UNREAD):
        assert re.search(NOT_UNDERSTOOD, reason)
        assert bool(re.search(OF_A_CELL, reason)) == (reason in CELL_REASONS)
    assert not any(re.search(NOT_UNDERSTOOD, reason) for reason in (NOT_FRONTAL, VIEW_NOT_STATED))


# ---- file names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "fitting"),
    [
        ("a.png", ["x/a.png"]), ("A.PNG", ["x/a.png"]), ("a", ["x/a.png"]), ("a.jpg", ["x/a.png"]),
        ("a.dcm", ["x/a.png"]),
        ("x/a.png", ["x/a.png"]), ("X\\A.PNG", ["x/a.png"]), ("/data/set/x/a.png", ["x/a.png"]), ("y/a.png", []),
        ("b.png", ["x/b.png", "y/b.png"]), ("y/b", ["y/b.png"]), ("Case.png", ["x/Case.png"]),
        ("CASE.png", ["x/Case.png", "y/case.png"]), ("c.jpg", ["x/c.jpg"]), ("c", ["x/c.jpg", "x/c.png"]),
        ("root.png", ["root.png"]), ("else/root.png", []), ("1.2.840.113", ["x/1.2.840.113.dcm"]), ("1.2.840", []),
        ("Ko\u0308ln.png", ["x/K\u00f6ln.png"]), ("", []), ("/", []), ("absent.png", []),
    ],
)  # fmt: skip
def test_a_name_fits_by_its_letters_not_by_case_or_extension(cell, fitting):
    paths = ["x/a.png", "x/b.png", "y/b.png", "x/Case.png", "y/case.png", "x/c.jpg", "x/c.png", "root.png"]
    paths += ["y/root.png", "x/1.2.840.113.dcm", "x/K\u00f6ln.png"]
    assert sorted(Names(paths, [cell]).fitting(cell)) == sorted(fitting)


PART = st.text(alphabet=string.ascii_letters + "äß .-_0", min_size=1, max_size=6).filter(
    lambda part: part.strip(" .") == part and part not in (".", "..")
)
PATHS = st.lists(st.tuples(st.lists(PART, max_size=3), PART, st.sampled_from([".png", ".JPG", ".dcm"])), min_size=1)


@given(PATHS, st.data())
def test_every_file_is_found_by_its_path_and_nothing_else_by_it(tree, data):
    paths = sorted({"/".join([*folders, name + suffix]) for folders, name, suffix in tree})
    path = data.draw(st.sampled_from(paths))
    parts = path.split("/")
    ending = "/".join(parts[data.draw(st.integers(0, len(parts) - 1)) :])
    names = Names(paths, [path, ending, ending.swapcase()])
    assert names.fitting(path) == [path]
    assert path in names.fitting(ending) or ending in paths
    for found in names.fitting(ending.swapcase()):
        assert found.casefold().rpartition(".")[0].endswith(ending.casefold().rpartition(".")[0])
