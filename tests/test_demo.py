"""The synthetic sources: laid out as published, faults in place, the same bytes for the same seed."""

import csv
import hashlib
import io
import re
import tarfile
import zipfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxr.dataset.labels import read_label, vocabulary_of
from cxr.demo import draw_source, faults, layouts
from cxr.demo.anatomy import draw_adult
from cxr.demo.cases import CASES, covid_cases, find_case, kermany_cases, nih_cases
from cxr.demo.disease import draw_opacity
from cxr.demo.draw import draw_case
from cxr.demo.phantom import SHAPE, X, build_chest
from cxr.params import load_params
from cxr.raw.archives import Tree
from cxr.sources import READERS, Found
from cxr.tasks import TASKS

SEED = 5
IMAGES = {"kermany": 32, "nih": 30, "covid": 24}
COVID = "covid-chestxray-dataset"
SECTIONS = load_params().sources
WORDS = {name: vocabulary_of(section, ["Pneumonia"]) for name, section in SECTIONS.items()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    for source, images in IMAGES.items():
        (root / source).mkdir()
        draw_source(source, root / source, images, SEED)
    return root


@pytest.fixture(scope="module")
def kermany_files(drawn) -> dict[str, bytes]:
    with zipfile.ZipFile(drawn / "kermany" / "chest-xray-pneumonia.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def nih_files(drawn) -> dict[str, bytes]:
    files = {}
    for path in sorted((drawn / "nih").glob("images_*.tar.gz")):
        with tarfile.open(path) as archive:
            files |= {member.name: archive.extractfile(member).read() for member in archive}
    return files


@pytest.fixture(scope="module")
def covid_rows(drawn) -> dict[str, dict[str, str]]:
    with open(drawn / "covid" / COVID / "metadata.csv", newline="") as file:
        return {row["filename"]: row for row in csv.DictReader(file)}


def covid_file(drawn: Path, name: str) -> bytes:
    return (drawn / "covid" / COVID / "images" / name).read_bytes()


def grey(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# what every source must keep


@pytest.mark.heavy
@pytest.mark.parametrize("source", IMAGES)
def test_same_seed_gives_same_bytes_whatever_the_number_of_cores(source, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(layouts.os, "cpu_count", lambda: 1)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        draw_source(source, tmp_path, IMAGES[source], SEED)
    finally:
        cv2.setNumThreads(threads)
    assert digests(tmp_path) == digests(drawn / source)


def test_another_seed_gives_other_pictures():
    pictures = [draw_case(seed, next(nih_cases(seed))) for seed in (1, 2)]
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize("source", IMAGES)
def test_readers_read_what_is_drawn_and_account_for_each_fault(source, drawn):
    items = list(READERS[source](Tree(drawn / source), SECTIONS[source]))
    found = [item for item in items if isinstance(item, Found)]
    reasons = [item.reason for item in items if not isinstance(item, Found)]
    planted = {
        "kermany": 2 * len(faults.KERMANY_TWICE) + 1,
        "nih": 2,
        "covid": len(faults.COVID_COPIES) + len(faults.COVID_ENCODINGS) + len(faults.COVID_TODO),
    }
    expected = {
        "kermany": {"not an image file": len(faults.KERMANY_JUNK)},
        "nih": {"row without an image": faults.NIH_ROWS_WITHOUT_IMAGE},
        "covid": {
            "not a frontal view": len(faults.COVID_LATERALS),
            "not an X-ray": len(faults.COVID_CT),
            "view position not stated": 1,
            "image without a row": 1,
            "not an image file": 1,
            "row without an image": len(faults.COVID_ROWS_WITHOUT_IMAGE) + len(faults.COVID_VOLUMES),
        },
    }
    assert len(found) == IMAGES[source] + planted[source]
    assert {reason: reasons.count(reason) for reason in set(reasons)} == expected[source]


@pytest.mark.parametrize("source", IMAGES)
def test_every_finding_is_a_known_word_of_every_task(source):
    findings = {case.finding for case in islice(CASES[source](SEED), 300)}
    for task in TASKS.values():
        assert [read_label(task, WORDS[source], finding).unknown for finding in findings] == [()] * len(findings)


@pytest.mark.parametrize("source", IMAGES)
def test_cases_are_unique_and_some_patients_have_several(source):
    cases = list(islice(CASES[source](SEED), 250))
    assert len({case.name for case in cases}) == len(cases)
    assert 0.5 < len({case.patient_id for case in cases}) / len(cases) < 0.85


# Kermany


def test_kermany_names_and_folders_are_the_published_ones(kermany_files):
    pattern = re.compile(
        r"chest_xray/(train|val|test)/"
        r"(NORMAL/(NORMAL2-)?IM-\d{4}-\d{4}(-\d{4})?|PNEUMONIA/person\d+_(bacteria|virus)_\d+)\.jpeg"
    )
    names = set(kermany_files) - set(faults.KERMANY_JUNK)
    assert [name for name in names if not pattern.fullmatch(name)] == []
    assert set(faults.KERMANY_JUNK) < set(kermany_files)


def test_kermany_proportions():
    cases = list(islice(kermany_cases(SEED), 250))
    counts = {
        (split, normal): sum(case.split == split and (case.finding == "NORMAL") == normal for case in cases)
        for split in ("train", "val", "test")
        for normal in (True, False)
    }
    assert counts["val", True] == counts["val", False] == 4
    assert 0.2 < counts["train", True] / (counts["train", True] + counts["train", False]) < 0.33
    assert min(counts["test", True], counts["test", False]) >= 10


def test_kermany_numbers_restart_for_each_type_and_no_patient_crosses_the_published_splits():
    cases = list(islice(kermany_cases(SEED), 250))
    splits = {}
    for case in cases:
        splits.setdefault(case.patient_id, set()).add(case.split)
    assert all(len(s) == 1 for s in splits.values())
    numbers = {type_: {p.partition("_")[0] for p in splits if p.endswith(type_)} for type_ in ("bacteria", "virus")}
    shared = numbers["bacteria"] & numbers["virus"]
    assert len(shared) > 10
    assert any(splits[f"{n}_bacteria"] != splits[f"{n}_virus"] for n in shared)


def test_kermany_pictures_are_landscape_jpegs_a_few_of_them_rgb(kermany_files):
    pictures = [Image.open(io.BytesIO(data)) for name, data in kermany_files.items() if data[:2] == b"\xff\xd8"]
    assert all(picture.format == "JPEG" and 600 <= picture.width <= 1100 for picture in pictures)
    assert all(picture.width > picture.height for picture in pictures)
    encodings = {case.encoding for case in islice(kermany_cases(SEED), 250)}
    assert encodings == {"grey", "rgb"}


def test_kermany_holds_a_truncated_jpeg(kermany_files):
    data = kermany_files[faults.KERMANY_TRUNCATED]
    assert data[:2] == b"\xff\xd8"
    assert b"\xff\xd9" not in data[-2:]
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize(("original", "copy"), faults.KERMANY_TWICE)
def test_kermany_holds_identical_files_across_the_published_splits(original, copy, kermany_files):
    assert kermany_files[original] == kermany_files[copy]
    assert "/train/" in original
    assert "/test/" in copy
    assert original.split("/")[2] == copy.split("/")[2]


# NIH


def test_nih_tables_are_the_published_ones(drawn, nih_files):
    text = (drawn / "nih" / "Data_Entry_2017_v2020.csv").read_text()
    header, *rows = text.splitlines()
    assert header.endswith("View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")
    assert {len(row.split(",")) for row in rows} == {len(header.split(","))} == {11}
    indices = {row.split(",")[0] for row in rows}
    assert {name.removeprefix("images/") for name in nih_files} < indices
    lists = [set((drawn / "nih" / name).read_text().split()) for name in ("train_val_list.txt", "test_list.txt")]
    assert lists[0] | lists[1] == indices
    patients = [{name.partition("_")[0] for name in part} for part in lists]
    assert patients[0] & patients[1] == set()
    assert patients[1]


def test_nih_pictures_are_square_greys_but_for_one_rgba(nih_files):
    pictures = {name: Image.open(io.BytesIO(data)) for name, data in nih_files.items()}
    assert {picture.size for picture in pictures.values()} == {(512, 512)}
    assert [name for name, picture in pictures.items() if picture.mode != "L"] == [f"images/{faults.NIH_RGBA}"]
    assert pictures[f"images/{faults.NIH_RGBA}"].mode == "RGBA"


def test_nih_holds_a_truncated_png(nih_files):
    data = nih_files[f"images/{faults.NIH_TRUNCATED}"]
    assert data[:4] == b"\x89PNG"
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(data)).load()


def test_nih_proportions():
    findings = [case.finding for case in islice(nih_cases(SEED), 190)]
    assert 0.6 < findings.count("No Finding") / 190 < 0.7
    assert 0.15 < sum("Pneumonia" in finding for finding in findings) / 190 < 0.25


# COVID


def test_covid_header_is_the_published_one(drawn):
    header = (drawn / "covid" / COVID / "metadata.csv").read_text().splitlines()[0]
    assert header.split(",")[:5] == ["patientid", "offset", "sex", "age", "finding"]
    assert len(header.split(",")) == 29
    assert header.endswith("license,clinical_notes,other_notes,")


def test_covid_proportions():
    findings = [case.finding for case in islice(covid_cases(SEED), 150)]
    assert 0.5 < sum("COVID-19" in finding for finding in findings) / 150 < 0.65
    assert findings.count("No Finding") >= 20


@pytest.mark.parametrize(("encoding", "mode"), [("16-bit", "I;16"), ("rgba", "RGBA"), ("palette", "P")])
def test_covid_holds_unusual_pngs(encoding, mode, drawn):
    data = covid_file(drawn, faults.COVID_ENCODINGS[encoding])
    assert Image.open(io.BytesIO(data)).mode == mode


@pytest.mark.parametrize(("name", "original"), faults.COVID_COPIES.items())
def test_covid_holds_shrunken_copies_of_the_same_class(name, original, drawn, covid_rows, kermany_files, nih_files):
    source, path = original
    data = kermany_files[path] if source == "kermany" else nih_files[f"images/{path}"]
    first, second = grey(data), grey(covid_file(drawn, name))
    assert second.shape[1] < 0.85 * first.shape[1]
    small = [
        cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).ravel().astype(float) for image in (first, second)
    ]
    assert np.corrcoef(small)[0, 1] > 0.995
    finding = find_case(SEED, source, path).finding
    for task in ("covid", "pneumonia"):
        label = read_label(TASKS[task], WORDS[source], finding).label
        assert label == read_label(TASKS[task], WORDS["covid"], covid_rows[name]["finding"]).label
        assert label is not None


def test_covid_rows_and_files_that_miss_their_other_half(drawn, covid_rows):
    on_disk = {path.name for path in (drawn / "covid" / COVID / "images").iterdir()}
    assert on_disk - set(covid_rows) == {faults.COVID_IMAGE_WITHOUT_ROW, faults.COVID_NOT_AN_IMAGE}
    assert set(covid_rows) - on_disk == {*faults.COVID_ROWS_WITHOUT_IMAGE, *faults.COVID_VOLUMES}
    assert {row["folder"] for row in covid_rows.values()} == {"images", "volumes"}


def test_covid_marks_what_is_no_frontal_radiograph(covid_rows):
    assert {covid_rows[name]["view"] for name in faults.COVID_LATERALS} == {"L"}
    assert {covid_rows[name]["modality"] for name in faults.COVID_CT} == {"CT"}
    assert {covid_rows[name]["finding"] for name in faults.COVID_TODO} == {"todo"}
    assert covid_rows[faults.COVID_VIEW_UNKNOWN]["view"] == "?"


def test_covid_sizes_and_types_vary(drawn):
    names = [case.name for case in islice(covid_cases(SEED), IMAGES["covid"])]
    sizes = {Image.open(io.BytesIO(covid_file(drawn, name))).size for name in names}
    assert len(sizes) > 0.8 * len(names)
    assert {name.rpartition(".")[2] for name in names} == {"jpg", "jpeg", "png"}


# the phantom


def test_the_heart_lies_on_the_images_right_and_the_right_dome_stands_higher():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        chest = build_chest(draw_adult(rng, "MF"[seed % 2]))
        inside = chest.mask > 0.5
        assert inside[:, X[0] < 0].sum() > 1.05 * inside[:, X[0] > 0].sum()
        lowest = [np.flatnonzero(inside[:, X[0].searchsorted(x)]).max() for x in (-11, 11)]  # beside the heart
        assert lowest[0] < lowest[1]


def test_opacities_lie_where_the_disease_does():
    rng = np.random.default_rng(0)
    anatomy = draw_adult(rng, "F")
    chest = build_chest(anatomy)

    def centre(pattern) -> float:
        opacity = sum(draw_opacity(pattern, chest, anatomy, rng) for _ in range(6))
        return float((opacity * chest.depth_in_lung).sum() / opacity.sum())

    assert centre("peripheral") > centre("clear") + 0.1
    assert centre("interstitial") < centre("clear") - 0.1
    covid = sum(draw_opacity("peripheral", chest, anatomy, rng) for _ in range(6))
    halves = [covid[:, X[0] * side > 0].sum() for side in (-1, 1)]
    assert min(halves) > 0.4 * max(halves)


def test_opacity_is_a_share_and_stays_inside_the_lungs():
    rng = np.random.default_rng(0)
    anatomy = draw_adult(rng, "M")
    chest = build_chest(anatomy)
    for pattern in ("clear", "lobar", "interstitial", "peripheral", "nodules", "effusion", "bands", "nodule"):
        opacity = draw_opacity(pattern, chest, anatomy, rng)
        assert opacity.shape == SHAPE
        assert opacity.min() >= 0
        assert opacity.max() < 1
        assert opacity[chest.mask == 0].max() == 0


@pytest.mark.heavy
def test_brightness_does_not_tell_the_class():
    cases = list(islice(kermany_cases(SEED), 100))
    means = [draw_case(SEED, case).mean() for case in cases]
    assert 0.35 < roc_auc_score([case.finding != "NORMAL" for case in cases], means) < 0.65
