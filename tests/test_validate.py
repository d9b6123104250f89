"""The three doors: each lets the tiny sources pass, and names what was planted, with its rows and its images."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.incoming import hold_incoming
from checks.page import SHOWN_IMAGES, SHOWN_REFUSED, LeftOut, refused_images
from checks.suites import POSSIBLE, Result, failures
from cxr import pages
from cxr.dataset.manifest import DESCRIPTORS, RECORD_COLUMNS, read_table, write_table
from cxr.dataset.store import read_images, read_thumbs
from cxr.errors import CxrError
from cxr.evaluation.model_card import card
from cxr.params import Params
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import Radiograph
from cxr.pixels.stated import NO_FRONTAL_FILM
from cxr.release.drift import drift_table
from cxr.release.facts import ReleaseFacts, TrainAges
from cxr.release.model import Release
from stages.validate.folder import answer_folder, validate_folder
from stages.validate.records import OF_A_ROW, read_rejected, tables
from tests.chest_films import chest_film, not_frontal
from tests.image_files import dicom
from tests.release_fixture import build_release
from tests.tiny_repository import SOURCES, Repository
from tests.tiny_sources import encode, picture

ROOT = Path(__file__).parent.parent
CLASSES = ["Normal", "Pneumonia", "COVID-19"]


def unmet(results: list[Result]) -> dict[tuple[str, str | None], Result]:
    """What is not met, by table and column."""
    return {(r.table, r.column): r for r in results if not r.success}


def rows_of(result: Result) -> list[str]:
    return [name for name, _ in result.failing]


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text, the pictures with the caption that follows each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.pictures: list[tuple[str, np.ndarray]] = []
        self._waiting: np.ndarray | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            data = base64.b64decode((dict(attrs)["src"] or "").removeprefix("data:image/png;base64,"), validate=True)
            self._waiting = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._waiting is not None:
            self.pictures.append((data, self._waiting))
            self._waiting = None


@pytest.fixture
def broken(repository: Repository, tmp_path: Path) -> Repository:
    """A copy to plant faults in."""
    shutil.copytree(repository.root / "data", tmp_path / "data")
    return Repository(tmp_path)


def change_records(repository: Repository, source: str, changes: dict[str, dict[str, object]]) -> pd.DataFrame:
    """Plant `changes`, column -> end of an image_id -> value, and return the records as they are now."""
    path = repository.images / source / "records.parquet"
    records = pd.read_parquet(path)
    for column, values in changes.items():
        for name, value in values.items():
            records.loc[records["image_id"].str.endswith(name), column] = value
    records.to_parquet(path)
    return records


# ---- records -------------------------------------------------------------------------------------------------------


def test_the_records_of_the_tiny_sources_pass_and_their_twins_are_a_warning(repository, params):
    results = repository.validate("records", params)
    assert failures(results) == []
    twins = [
        f"kermany/chest_xray/{s}-0001.jpeg" for s in ("test/NORMAL/NORMAL2-IM-0096", "train/NORMAL/NORMAL2-IM-0095")
    ]
    assert {key: sorted(rows_of(result)) for key, result in unmet(results).items()} == {("images", "sha256"): twins}
    report = repository.reports / "validation/records.json"
    verdict = json.loads(report.read_text())
    assert verdict["passed"]
    assert len(verdict["expectations"]) == len(results)
    assert all(result.reason for result in results)

    page = Page((repository.reports / "data-docs/records/index.html").read_text())
    records = read_table(repository.images / "kermany/records.parquet", RECORD_COLUMNS).set_index("image_id")
    assert sorted(name for name, _ in page.pictures) == twins
    for name, pixels in page.pictures:
        assert (pixels == read_thumbs(repository.images, records.loc[[name]])[0]).all()

    before = report.read_bytes()
    repository.validate("records", params)
    assert report.read_bytes() == before  # assemble depends on it


def test_each_fault_in_the_records_is_named_with_its_row_and_its_severity(broken, params):
    planted = {
        "patient_id": {"/00000000_000.png": "nih/Unknown"},
        "age_years": {"/00000001_000.png": 411},
        "view_position": {"/00000001_001.png": "LL"},
        "findings": {"/00000002_000.png": " "},
        "licence": {"/00000003_000.png": None},
        "width": {"/00000003_001.png": 1},
        "bits": {"/00000004_000.png": 1},
        "mean": {"/00000005_000.png": 3},
        "contrast": {"/00000005_001.png": 1},
        "sharpness": {"/00000006_000.png": np.nan},
        "noise": {"/00000007_000.png": np.inf},
        "content_score": {"/00000007_001.png": 0.1},
        "published_split": {"/00000008_000.png": "exam"},
        "sex": {"/00000012_000.png": "X", "/00000011_000.png": "M", "/00000011_001.png": "F"},
        "laterality": {"/00000009_001.png": "both"},
        "shard": {"/00000010_000.png": None},
    }
    for source in SOURCES:
        change_records(broken, source, {"content_score": {"": 1.0}})
    change_records(broken, "nih", planted)
    results = broken.validate("records", params, min_content_score=0.5)
    found = unmet(results)
    for column, values in planted.items():
        assert rows_of(found["images", column]) == [f"nih/images{name}" for name in list(values)[:1]], column
    assert rows_of(found["patients", "sexes"]) == ["nih/11"]
    critical = {key[1] for key, result in found.items() if result.critical}
    assert critical == {"patient_id", "view_position", "sharpness", "noise", "published_split", "shard"}
    assert len(failures(results)) == len(critical)
    assert found["images", "age_years"].sentence == (
        "images: age_years must be between 0 and 110: found 1 of 132 rows: "
        "nih/images/00000001_000.png (411); an age that nobody has: is it months, or a date?"
    )


def test_a_bad_source_stops_before_assembly(broken, params):
    """Faults of a source as a whole: its schema, its files, its pixels, its patients."""
    records = pd.read_parquet(broken.images / "covid/records.parquet")
    records.drop(columns="laterality").assign(lateral=1).to_parquet(broken.images / "covid/records.parquet")
    records = pd.read_parquet(broken.images / "nih/records.parquet")
    records.loc[:9, ["mean", "contrast"]] = 0
    records["patient_id"] = "nih/1"
    records.to_parquet(broken.images / "nih/records.parquet")
    rejected = pd.read_csv(broken.images / "kermany/rejected.csv")
    twenty = pd.concat([rejected[rejected["reason"] == "unreadable image"]] * 20)
    twenty.to_csv(broken.images / "kermany/rejected.csv", index=False)

    results = broken.validate("records", params, max_images_per_patient=40, max_rejected_share=0.25)
    found = unmet(results)
    assert found["sources", "other_columns"].failing == (("covid", "lateral, laterality"),)
    assert found["sources", "odd_share"].failing == (("nih", f"{10 / 48:.4g}"),)
    assert found["sources", "unreadable_share"].failing == (("kermany", f"{20 / 70:.4g}"),)
    assert found["sources", "rejected_share"].failing == (("kermany", f"{20 / 70:.4g}"),)
    assert {result.column for result in results if result.critical} == {
        "other_columns", "odd_share", "unreadable_share", "rejected_share",
    }  # fmt: skip
    patient = found["patients", "images"]
    assert (patient.failing, patient.severity) == ((("nih/1", "48"),), "warning")

    page = Page((broken.reports / "data-docs/records/index.html").read_text())
    of_patient = [name for name, _ in page.pictures if name.startswith("nih/")]
    assert f"and {48 - SHOWN_IMAGES} more" in page.text
    assert len(of_patient) >= SHOWN_IMAGES  # a patient's images stand for the patient


def test_a_source_of_as_many_patients_as_images_is_a_warning_and_a_limit_on_the_card(repository, params):
    """NIH's patients have several films; in the two others every film has a patient of its own."""
    assert ("sources", "images_per_patient") not in unmet(repository.validate("records", params))
    results = repository.validate("records", params, min_images_for_patients=30)
    leak = unmet(results)["sources", "images_per_patient"]
    assert (leak.failing, leak.severity) == ((("kermany", "1"), ("covid", "1")), "warning")
    assert "two films of one patient may sit in train and test" in leak.sentence
    assert "unless the source has one film a patient" in leak.sentence

    facts = ReleaseFacts.model_construct(
        version="v", task="covid", classes=["Normal"], pixels=params.ingest.pixels, operating_points={},
        min_content_score=0.5, train_ages=TrainAges(images=0, stated=0, youngest=None, oldest=None),
    )  # fmt: skip
    validations = [{"expectations": [result.to_dict() for result in results]}]
    limits = card(facts, {}, {"sources": {}}, validations, {"slices": {}}, {"rules": []})["limits"]
    assert [limit.split(" every")[0] for limit in limits if "patient of its own" in limit] == ["In kermany", "In covid"]


def test_one_patient_of_two_films_is_no_quiet_leak(repository, params):
    records = read_table(repository.images / "covid/records.parquet", RECORD_COLUMNS)
    records.loc[0, "patient_id"] = records.loc[1, "patient_id"]
    limits = params.validate_.model_copy(update={"min_images_for_patients": len(records)})
    judged = tables({"covid": records}, read_rejected(repository.images, ["covid"]), limits)
    assert judged["sources"].rows.loc[0, "images_per_patient"] > 1


def test_a_cell_that_is_not_understood_is_no_rejected_file(repository, params):
    records = read_table(repository.images / "nih/records.parquet", RECORD_COLUMNS)
    rejected = read_rejected(repository.images, ["nih"])
    cells = rejected.head(1).assign(reason="sex not understood")
    views = rejected.head(1).assign(reason="view position not understood")
    judged = tables({"nih": records}, pd.concat([rejected, *[cells] * 500, views]), params.validate_)
    assert judged["sources"].rows.loc[0, ["files", "rejected_share"]].tolist() == [50, 1 - 48 / 50]


def test_rows_without_an_image_are_no_rejected_files(repository, params):
    """A partial download has a table of many more images."""
    records = read_table(repository.images / "nih/records.parquet", RECORD_COLUMNS)
    rejected = read_rejected(repository.images, ["nih"])
    alone = rejected[rejected["reason"] == "row without an image"]
    assert len(alone) == 2
    judged = tables({"nih": records}, pd.concat([rejected, *[alone] * 500]), params.validate_)
    assert judged["sources"].rows.loc[0, ["files", "rejected_share"]].tolist() == [49, 1 - 48 / 49]


@pytest.mark.parametrize(
    ("reason", "of_a_row"),
    [
        ("row without an image", True), ("rows contradict each other", True), ("another row fits this image", True),
        ("unreadable row", True), ("image without a row", False), ("unreadable image", False), ("no patient", False),
    ],
)  # fmt: skip
def test_a_reason_is_of_a_row_or_of_a_file(reason, of_a_row):
    assert bool(re.search(OF_A_ROW, reason)) is of_a_row


def page_of(left_out: LeftOut | None) -> str:
    """The page of a door at which every check was met."""
    verdict = {"kind": "", "text": "All checks are met.", "count": "1 of 1"}
    values = {"title": "t", "verdict": verdict, "others": [], "failures": [], "tables": [], "left_out": left_out}
    return pages.render("door.html", values)


def test_what_ingest_refused_is_shown_by_its_reason(repository):
    records = read_table(repository.images / "nih/records.parquet", RECORD_COLUMNS)
    seen = records[["image_id", "source", "shard", "row"]].head(30)
    seen = seen.assign(reason="not a frontal chest radiograph", detail="a CT slice", score="0.0312")
    seen.loc[:2, "detail"] = "a photograph"
    unseen = pd.DataFrame({"image_id": [f"covid/{i}.png" for i in range(40)], "source": "covid"})
    unseen = unseen.assign(reason="unreadable image", detail="truncated", score="", shard="", row="")
    rejected = pd.concat([seen, unseen], ignore_index=True)
    page = Page(page_of(refused_images(rejected, lambda rows: read_thumbs(repository.images, rows))))
    assert "not a frontal chest radiograph: a CT slice: 27" in page.text
    assert "not a frontal chest radiograph: a photograph: 3" in page.text
    assert "unreadable image: 40" in page.text
    assert f"and {40 - SHOWN_REFUSED} more" in page.text
    assert "score 0.0312" in page.text
    assert len(page.pictures) == SHOWN_REFUSED + 3
    for name, pixels in page.pictures:
        assert (pixels == read_thumbs(repository.images, records[records["image_id"] == name])[0]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(), st.text(min_size=1)), max_size=5))
def test_no_name_of_a_file_becomes_a_part_of_the_page(names: list[tuple[str, str, str]]):
    rejected = pd.DataFrame(names, columns=["image_id", "detail", "reason"]).astype(str)
    rejected = rejected.assign(source="nih", shard="", score="", row="")
    page = Page(page_of(refused_images(rejected, lambda rows: np.empty((0, 64, 64), np.uint8))))
    own = {tag for tag, _ in Page(page_of(None)).tags}
    assert {tag for tag, _ in page.tags} <= {*own, "h2", "h3", "div", "table", "tr", "th", "td", "ul", "li", "p"}
    told = page.text.replace("\r", "\n")
    assert all(name.replace("\r", "\n") in told for name in rejected["image_id"])


# ---- manifest ------------------------------------------------------------------------------------------------------


def test_the_manifest_of_the_tiny_sources_passes_and_limits_stop_it(repository, params):
    results = repository.validate("manifest", params)
    assert failures(results) == []
    assert {key: rows_of(r) for key, r in unmet(results).items()} == {("classes", "sources"): ["COVID-19"]}

    sentences = failures(repository.validate("manifest", params, mean_range=(15, 90), min_test_per_class=1000))
    assert any("pixel_mean" in s and " of 129 rows: covid/" in s for s in sentences)
    assert any("classes: " in s and "COVID-19 (4)" in s for s in sentences)
    assert len(sentences) == 2


def test_a_leak_an_empty_image_and_exchanged_pixels_are_found_and_shown(broken, params):
    table = broken.table()
    group = table["group"].value_counts().index[0]
    leaking = table.index[table["group"] == group]
    table.loc[leaking, "split"] = ["train", "test"]
    write_table(table, broken.manifest)
    empty, other = table.index[table["source"] == "covid"][:2]
    shard = broken.images / "covid" / table["shard"][empty]
    pixels = np.load(shard)
    pixels[table["row"][empty]] = 128
    pixels[table["row"][other]] = 255 - pixels[table["row"][other]]
    np.save(shard, pixels)

    results = broken.validate("manifest", params)
    found = unmet(results)
    assert found["groups", "splits"].failing == ((str(group), "2"),)
    assert rows_of(found["images", "pixel_std"]) == [table["image_id"][empty]]
    assert rows_of(found["images", "pixel_change"]) == list(table["image_id"][[empty, other]])
    assert len(failures(results)) == 3
    page = Page((broken.reports / "data-docs/manifest/index.html").read_text())
    shown = dict(page.pictures)
    assert set(table["image_id"][leaking]) <= set(shown)
    for name in table["image_id"][[empty, other, *leaking]]:
        assert (shown[name] == read_images(broken.images, table[table["image_id"] == name])[0]).all()


def test_the_pages_fetch_nothing_and_run_nothing(broken, params):
    """Great Expectations escapes no value; a file may be named like a script."""
    hostile = "nih/images/<script>alert(1)</script>.png"
    change_records(broken, "nih", {"sex": {"/00000000_000.png": "<img src=x onerror=alert(2)>"}})
    change_records(broken, "nih", {"image_id": {"/00000000_000.png": hostile}})
    broken.validate("records", params)
    pages = list((broken.reports / "data-docs").rglob("*.html"))
    assert len(pages) > 5
    for page in pages:
        text = page.read_text()
        policy, _, rest = text.partition("<style>")
        assert "default-src 'none'" in re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', policy)[0]
        assert "<script" not in policy
        assert not re.search(r"<(link|img|script|iframe)[^>]*(src|href)=[\"']?(https?:)?//", rest)
    index = Page((broken.reports / "data-docs/records/index.html").read_text())
    assert hostile in [name for name, _ in index.pictures]
    assert "script" not in {tag for tag, _ in index.tags}


# ---- descriptors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 128])
def test_every_image_that_there_can_be_has_possible_descriptors(size):
    y, x = np.mgrid[0:size, 0:size]
    noise = np.random.default_rng(0).integers(0, 256, (size, size))
    places = np.arange(size) + 0.5, np.arange(size) + 0.5
    for image in (
        0 * x,
        0 * x + 255,
        255 * ((x + y) % 2),
        255 * (x % 2),
        255 * (x < size / 2),
        255 * (noise > 127),
        noise,
    ):
        square = image.astype(np.uint8)
        for name, value in describe(Radiograph(square, square, 9, 2900, 8, places)).items():
            assert POSSIBLE[name][0] <= np.float32(value) <= POSSIBLE[name][1], name


# ---- incoming ------------------------------------------------------------------------------------------------------


def draw(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    middle = {name: (max(low, 0) + high) / 2 for name, (low, high) in POSSIBLE.items()}
    values = pd.DataFrame({name: m * rng.uniform(0.8, 1.2, n) for name, m in middle.items()})
    return values[list(DESCRIPTORS)], rng.dirichlet([2, 1, 1], n)


def log_rows(n: int, version: str = "v1") -> list[dict]:
    descriptors, probabilities = draw(n, seed=1)
    return [
        {
            "request_id": f"{version}-{i}",
            "model_version": version,
            "predicted": CLASSES[int(p.argmax())],
            "probabilities": dict(zip(CLASSES, p.tolist(), strict=True)),
            "descriptors": d,
        }
        for i, (d, p) in enumerate(zip(descriptors.to_dict("records"), probabilities, strict=True))
    ]


def judge_rows(rows: list[dict], params: Params) -> list[Result]:
    return hold_incoming(rows, CLASSES, "v1", drift_table(*draw(300, seed=0), CLASSES), params.validate_, 30)


def test_usual_images_pass_and_few_are_a_warning(params):
    assert unmet(judge_rows(log_rows(60), params)) == {}
    assert failures(judge_rows([], params)) == []
    assert set(unmet(judge_rows(log_rows(29), params))) == {("window", "images")}


def test_each_fault_in_what_came_in_is_named(params):
    rows = [*log_rows(60), *log_rows(3, "v0")]
    rows[0]["descriptors"]["sharpness"] = float("nan")
    del rows[1]["descriptors"]["noise"]
    rows[2]["descriptors"]["entropy"] = 9.5
    rows[3]["descriptors"]["mean"] = 4.0
    rows[4]["probabilities"] = {"Normal": 1.2, "Pneumonia": -0.2, "COVID-19": 0.0}
    rows[5]["probabilities"] = {"Normal": 0.5, "Pneumonia": 0.5, "COVID-19": 0.1}
    rows[6]["probabilities"] = {"Normal": 0.4, "Pneumonia": 0.6}
    rows[7]["predicted"] = "Tuberculosis"
    for row in rows[10:20]:
        row["descriptors"]["border"] = 250.0
    rows[-1]["probabilities"] = {"Normal": 0.5, "Viral": 0.5}  # another version may have other classes
    results = judge_rows(rows, params)
    found = {(r.table, r.column, r.critical): rows_of(r) for r in results if not r.success}
    assert found == {
        ("images", "sharpness", True): ["v1-0"],
        ("images", "noise", True): ["v1-1"],
        ("images", "entropy", True): ["v1-2"],
        ("images", "mean", False): ["v1-3"],
        ("images", "border", False): [f"v1-{i}" for i in range(10, 20)],
        ("answers", "Normal", True): ["v1-4"],
        ("answers", "Pneumonia", True): ["v1-4"],
        ("answers", "COVID-19", True): ["v1-6"],
        ("answers", "sum", True): ["v1-5"],
        ("answers", "predicted", True): ["v1-7"],
        ("window", "versions", False): ["all images"],
    }


def test_a_folder_is_judged_before_it_becomes_a_source(tiny_release, params, tmp_path):
    release = Release.load(tiny_release)
    folder = tmp_path / "new"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02d}.png").write_bytes(encode(picture(i, 0.5), ".png"))
    (folder / "black.png").write_bytes(encode(np.zeros((90, 90), np.uint8), ".png"))
    (folder / "torn.jpg").write_bytes(encode(picture(30, 0.5), ".jpg")[:-300])
    (folder / "notes.txt").write_text("not an image")
    reference = drift_table(*draw(300, seed=0), CLASSES)
    limits = params.validate_.model_copy(update={"max_unseen_share": 1})
    results = validate_folder(folder, release, reference, limits, 21, tmp_path / "docs")
    assert failures(results) == []
    assert {key: rows_of(r) for key, r in unmet(results).items()} == {
        ("images", "mean"): ["black.png"], ("images", "contrast"): ["black.png"],
    }  # fmt: skip
    page = Page((tmp_path / "docs/index.html").read_text())
    assert [name for name, _ in page.pictures] == ["black.png", "black.png"]
    assert "torn.jpg: the JPEG file is truncated" in page.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(CxrError, match=r"empty: no image in it can be answered; 0 files look like one"):
        validate_folder(tmp_path / "empty", release, reference, limits, 21, tmp_path / "docs")


def test_a_folder_lists_what_the_release_refuses(params, tmp_path):
    release = Release.load(build_release(tmp_path / "release", min_content_score=0.5))
    folder = tmp_path / "new"
    folder.mkdir()
    for name, pixels in {"film": chest_film(), **not_frontal()}.items():
        (folder / f"{name}.png").write_bytes(encode(pixels, ".png"))
    answered = answer_folder(folder, release)
    assert [row["request_id"] for row in answered.rows] == ["film.png"]
    refused = answered.refused
    assert set(refused["reason"]) == {NO_FRONTAL_FILM}
    told = dict(zip(refused["image_id"], refused["detail"], strict=True))
    assert told.pop("a lateral view.png") in ("a lateral view", "a CT slice")  # drawn laterals have hard outlines
    assert told == {f"{name}.png": name for name in not_frontal() if name != "a lateral view"}
    assert (refused["score"].astype(float) < 0.5).all()
    reference = drift_table(*draw(300, seed=0), CLASSES)
    validate_folder(folder, release, reference, params.validate_, 1, tmp_path / "docs")
    page = Page((tmp_path / "docs/index.html").read_text())
    assert {f"{name}.png" for name in not_frontal()} <= {name for name, _ in page.pictures}
    for path in folder.iterdir():
        if path.name != "film.png":
            path.unlink()
    validate_folder(folder, release, reference, params.validate_, 1, tmp_path / "docs")
    assert "film.png" not in Page((tmp_path / "docs/index.html").read_text()).text.partition("What was left out")[2]


def test_a_folder_counts_what_headers_say(params, tmp_path, capsys):
    release = Release.load(build_release(tmp_path / "release", min_content_score=0.5))
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "child.dcm").write_bytes(dicom(chest_film(), PatientAge="002Y"))
    (folder / "lateral.dcm").write_bytes(dicom(chest_film(), ViewPosition="LL"))
    reference = drift_table(*draw(300, seed=0), CLASSES)
    validate_folder(folder, release, reference, params.validate_, 1, tmp_path / "docs")
    said = capsys.readouterr().out
    assert "images answered: 1, refused: 1" in said
    assert f"{NO_FRONTAL_FILM}: ViewPosition is LL, a left lateral view: 1" in said
    assert "age_outside_training: 1 of the answered" in said


def test_a_folder_of_which_nothing_is_answered_is_one_sentence(tmp_path):
    release = Release.load(build_release(tmp_path / "release", min_content_score=0.5))
    folder = tmp_path / "new"
    folder.mkdir()
    for name, pixels in not_frontal().items():
        (folder / f"{name}.png").write_bytes(encode(pixels, ".png"))
    with pytest.raises(CxrError, match=r"6 files look like one, 6 refused \(not a frontal chest radiograph\)"):
        answer_folder(folder, release)


# ---- the stage -----------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_the_stage_ends_with_a_sentence_where_a_critical_expectation_is_not_met(broken, params):
    (broken.root / "params.yaml").write_text(yaml.safe_dump(json.loads(params.model_dump_json(by_alias=True))))
    change_records(broken, "nih", {"view_position": {"/00000001_001.png": "LL"}})
    command = [sys.executable, "-m", "stages.validate", "records"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=broken.root, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: validate: images: view_position must be one of PA, AP: ")
    assert "found 1 of 132 rows: nih/images/00000001_001.png (LL); frontal radiographs only" in done.stderr
    assert not json.loads((broken.reports / "validation/records.json").read_text())["passed"]
    assert (broken.reports / "data-docs/records/index.html").exists()
