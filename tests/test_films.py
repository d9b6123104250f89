"""A film is looked at in one way, its header's word counts, and what contradicts itself is never passed in silence."""

from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset

from cxr.dataset.manifest import DESCRIPTORS, RECORD_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.demo.cases import CASES
from cxr.demo.draw import draw_case
from cxr.errors import ImageError
from cxr.pixels.examine import Film, examine
from cxr.pixels.stated import read_stated, view_word
from stages.ingest.stream import ingest
from tests.image_files import dicom, jpeg, png
from tests.tiny_repository import tiny_params

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

PARAMS = tiny_params()
LIMIT = 0.5
CHEST = draw_case(2026, next(islice(CASES["kermany"](2026), 1)))
TWELVE = CHEST.astype(np.uint16) * 16
USUAL = {"Modality": "DX", "ViewPosition": "PA", "PatientAge": "045Y", "BitsStored": 12}


def film(pixels: np.ndarray = TWELVE, **elements: Any) -> Film:
    return examine(dicom(pixels, **{**USUAL, **elements}), PARAMS.ingest.pixels)


def codes(seen: Film) -> list[str]:
    return [note.code for note in seen.notes]


# ----------------------------------------------------------------------------------------- what a hospital's file says


def test_a_usual_film_is_answered_without_a_note() -> None:
    seen = film(BodyPartExamined="CHEST", PatientOrientation=["L", "F"], BurnedInAnnotation="NO", PatientSex="F")
    stated = seen.stated
    assert seen.refusal(LIMIT) is None
    assert not seen.notes
    assert (stated.modality, stated.body_part, stated.view_position) == ("DX", "CHEST", "PA")
    assert (stated.age_years, stated.sex, stated.burned_in) == (45, "F", False)


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"ViewPosition": "LL"}, "ViewPosition is LL, a left lateral view"),
        ({"ViewPosition": "LEFT LATERAL"}, "ViewPosition is LATERAL, a lateral view"),
        ({"ViewPosition": "AP LLD"}, "ViewPosition is LLD, a left lateral decubitus view"),
        ({"ViewPosition": "seitlich"}, "ViewPosition is a view that is not frontal"),
        ({"Modality": "CT"}, "Modality is CT, computed tomography"),
        ({"BodyPartExamined": "HAND"}, "BodyPartExamined is HAND, not the chest"),
        ({"BodyPartExamined": "T-SPINE"}, "BodyPartExamined is TSPINE, not the chest"),
        ({"PatientOrientation": ["A", "F"]}, r"PatientOrientation is A\F, not a frontal view while the view is PA"),
        ({"PatientOrientation": ["AL", "FP"], "ViewPosition": ""}, r"PatientOrientation is A\F, not a frontal view"),
        ({"PatientOrientation": ["L", "H"]}, r"PatientOrientation is L\H, a film upside down"),
        ({"PatientOrientation": ["F", "R"]}, r"PatientOrientation is F\R, a film that lies on its side"),
        (
            {"Modality": "MR", "BodyPartExamined": "KNEE"},
            "Modality is MR, magnetic resonance; BodyPartExamined is KNEE, not the chest",
        ),
    ],
)
def test_a_header_that_says_it_is_no_frontal_chest_film_is_believed(elements: dict[str, Any], sentence: str) -> None:
    seen = film(**elements)
    assert seen.content.score >= LIMIT, "the picture alone would be answered"
    assert seen.refusal(LIMIT) == seen.refusal(0) == sentence


def test_a_view_is_read_from_its_code_where_it_has_no_word() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10236", "SRT", "left lateral"
    assert film(ViewPosition="", ViewCodeSequence=[code]).refusal(LIMIT) == (
        "ViewCodeSequence is LL, a left lateral view"
    )
    code.CodeValue = "R-10206"
    assert film(ViewPosition="", ViewCodeSequence=[code]).stated.view_position == "AP"
    assert codes(film(ViewCodeSequence=[code])) == ["view_contradicts"]


@pytest.mark.parametrize(
    ("text", "view"),
    [("PA", "PA"), ("p.a.", "PA"), ("AP supine", "AP"), ("A-P", "AP"), ("lateral", "LATERAL"), ("right lat", "LAT"),
     ("postero-anterior", "PA"), ("L.L.", "OTHER"), ("frontal", None), ("", None),
     ("MEIER^ANNA", None), ("PAUL", None)],
)  # fmt: skip
def test_ways_to_write_a_view(text: str, view: str | None) -> None:
    assert view_word(text) == view


def test_what_a_header_leaves_out_refuses_nothing() -> None:
    nothing = examine(dicom(TWELVE, BitsStored=12), PARAMS.ingest.pixels)
    assert nothing.refusal(LIMIT) is None
    assert not nothing.notes
    assert nothing.stated == examine(png(CHEST), PARAMS.ingest.pixels).stated


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in_text"),
        ({"PatientOrientation": ["R", "F"]}, "mirrored"),
        ({"ViewPosition": "MEIER^ANNA"}, "view_not_understood"),
        ({"PatientAge": "155Y"}, "age_impossible"),
        ({"PatientAge": "000Y"}, "age_unclear"),
        ({"PatientBirthDate": "19500101", "StudyDate": "20200601"}, "age_contradicts_birth"),
        ({"PatientBirthDate": "20210101", "StudyDate": "20200601"}, "age_contradicts_birth"),
        ({"PresentationLUTShape": "INVERSE", "pixels": 4095 - TWELVE}, "presentation_lut_shape"),
        ({"PresentationLUTShape": "IDENTITY", "PhotometricInterpretation": "MONOCHROME1"}, "presentation_lut_shape"),
    ],
)
def test_what_must_not_go_unsaid_becomes_a_note(elements: dict[str, Any], code: str) -> None:
    seen = film(**elements)
    assert seen.refusal(LIMIT) is None
    assert codes(seen) == [code]
    assert "MEIER" not in seen.notes[0].sentence


@pytest.mark.parametrize(
    ("elements", "years"),
    [
        ({"PatientAge": "002Y"}, 2),
        ({"PatientAge": "010M"}, 10 / 12),
        ({"PatientAge": "003W"}, 3 / 52.1775),
        ({"PatientAge": "010D"}, 10 / 365.2425),
        ({"PatientAge": "51"}, 51),  # as RSNA writes it
        ({"PatientAge": "097Y"}, 90),
        ({"PatientAge": "", "PatientBirthDate": "19750601", "StudyDate": "20200601"}, 45),
        ({"PatientAge": "", "PatientBirthDate": "20191101", "AcquisitionDate": "20200601"}, 7 / 12),
        ({"PatientAge": "", "PatientBirthDate": "19000101", "StudyDate": "20230601"}, None),  # stands for none
        ({"PatientAge": "", "PatientBirthDate": "19750601"}, None),
        ({"PatientAge": "155Y"}, None),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "000D"}, 0),
    ],
)
def test_ages(elements: dict[str, Any], years: float | None) -> None:
    found = film(**elements).stated.age_years
    assert found == (None if years is None else pytest.approx(years, abs=0.01))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            tag: st.one_of(st.text("CANARY^LFPHUS .0123456789\\", max_size=16), st.sampled_from(["CT", "LL", "HAND"]))
            for tag in ("Modality", "BodyPartExamined", "ViewPosition", "PatientOrientation", "PatientAge",
                        "PatientBirthDate", "StudyDate", "PatientSex", "BurnedInAnnotation", "PresentationLUTShape")
        }
    )
)  # fmt: skip
def test_free_text_is_never_quoted(elements: dict[str, str]) -> None:
    header = Dataset()
    for tag, text in elements.items():
        header.add_new(tag, "LO", text.split("\\"))
    header.PhotometricInterpretation = "MONOCHROME2"
    stated = read_stated(header)
    said = f"{stated.not_frontal} {stated.notes} {stated.modality} {stated.body_part} {stated.view_position}"
    assert "CANARY" not in said.upper()
    assert "^" not in said
    assert stated.age_years is None or 0 <= stated.age_years <= 90


# -------------------------------------------------------------------------------- stored in many ways, shown in one


def test_the_shape_of_the_presentation_is_followed_once() -> None:
    plain = film().radiograph.image
    inverted = film(4095 - TWELVE, PresentationLUTShape="INVERSE")
    once = film(4095 - TWELVE, PresentationLUTShape="INVERSE", PhotometricInterpretation="MONOCHROME1")
    for seen in (inverted, once):
        assert np.abs(seen.radiograph.image.astype(int) - plain).max() <= 1
    assert not once.notes


def test_grey_stored_as_colour_and_a_bare_data_set_are_the_same_film() -> None:
    plain = examine(dicom(CHEST), PARAMS.ingest.pixels)
    files = dicom(np.dstack([CHEST] * 3)), dicom(CHEST, syntax=uid.ImplicitVRLittleEndian, meta=False)
    for seen in (examine(data, PARAMS.ingest.pixels) for data in files):
        np.testing.assert_array_equal(seen.radiograph.image, plain.radiograph.image)
        assert seen.refusal(LIMIT) is None


def test_a_height_that_the_pixels_do_not_have_is_told_in_numbers() -> None:
    with pytest.raises(ImageError, match=r"5000 rows of \d+ columns take \d+ bytes, the pixel data holds \d+"):
        film(Rows=5000)


# ------------------------------------------------------------------------------------------ pictures that are no films


def page() -> np.ndarray:
    white = np.full((800, 600), 255, np.uint8)
    for row in range(40, 780, 24):
        cv2.putText(white, "findings: no focal consolidation", (40, row), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 0, 1)
    return white


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.full((200, 200), 128, np.uint8), id="blank"),
        pytest.param(np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8), id="noise"),
        pytest.param(page(), id="text"),
        pytest.param(255 - CHEST, id="inverted"),
        pytest.param(np.ascontiguousarray(CHEST[::-1]), id="upside down"),
        pytest.param(np.ascontiguousarray(np.rot90(CHEST)), id="on its side"),
        pytest.param(cv2.resize(CHEST, (2000, 60), interpolation=cv2.INTER_AREA), id="very wide"),
        pytest.param(cv2.resize(CHEST, (60, 2000), interpolation=cv2.INTER_AREA), id="very high"),
    ],
)
@pytest.mark.parametrize("encode", [png, dicom])
def test_what_shows_no_upright_frontal_film_is_refused_with_the_reason(pixels: np.ndarray, encode) -> None:
    seen = examine(encode(pixels), PARAMS.ingest.pixels)
    assert seen.refusal(LIMIT) == seen.content.reason != ""


# ------------------------------------------------------------------------------------------------------------- ingest

INGESTED = {
    "IM-0001-0001": dicom(TWELVE, **USUAL, BurnedInAnnotation="YES", PatientSex="F"),
    "IM-0002-0001": dicom(TWELVE[:, :-4].copy(), **USUAL | {"ViewPosition": "LL"}),
    "IM-0003-0001": dicom(TWELVE[:-4].copy(), **USUAL | {"PatientAge": "010M"}),
    "IM-0004-0001": jpeg(CHEST[4:]),
}


def test_ingest_keeps_what_examine_sees(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "raw/chest_xray/train/NORMAL"
    folder.mkdir(parents=True)
    for name, data in INGESTED.items():
        (folder / f"{name}.jpeg").write_bytes(data)  # what a file is decides, not its name
    params = PARAMS.ingest.model_copy(update={"workers": 1, "min_content_score": LIMIT})
    ingest("k", PARAMS.sources["kermany"], params, tmp_path / "raw", tmp_path / "k", tmp_path / "seen")
    rejected = (tmp_path / "k/rejected.csv").read_text()
    assert 'not a frontal chest radiograph,"ViewPosition is LL, a left lateral view"' in rejected
    assert "1 images with the note burned_in_text" in capsys.readouterr().out

    table = read_table(tmp_path / "k/records.parquet", RECORD_COLUMNS)
    table.index = table["image_id"].str[-17:-5]
    squares = dict(zip(table.index, read_images(tmp_path, table), strict=True))
    for name, record in table.iterrows():
        seen = examine(INGESTED[str(name)], params.pixels)
        np.testing.assert_array_equal(squares[name], seen.radiograph.image)
        assert record["content_score"] == pytest.approx(seen.content.score)
        assert record[list(DESCRIPTORS)].to_dict() == pytest.approx(seen.descriptors, rel=1e-5)
    burned, young, plain = (table.loc[f"IM-000{n}-0001"] for n in (1, 3, 4))
    assert (burned["age_years"], burned["sex"]) == (45, "F")
    assert burned["view_position"] == "AP", "what the source itself says of its films stands"
    assert (burned["modality"], burned["burned_in"]) == ("DX", True)
    assert burned["notes"] == "burned_in_text|unlike_source"
    assert young["notes"] == "unlike_source"
    assert young["age_years"] == pytest.approx(10 / 12)
    assert plain[["age_years", "sex", "modality", "burned_in", "notes"]].isna().all()
