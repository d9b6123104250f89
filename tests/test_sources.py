"""Every reader on its own layout, faults included; what a source holds is used or set aside, and nothing is lost."""

import csv
import io
import json
import logging
import re
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cxr.errors import ImageError, SourceError
from cxr.params import SourceParams
from cxr.raw.archives import Member, Tree
from cxr.sources import READERS, Found, SetAside
from cxr.sources.reading import OF_A_CELL, age, sex
from tests.image_files import dicom
from tests.tiny_sources import PATIENTS, WRITERS, write_kermany, write_nih

REAL = Path(__file__).parents[2] / "shared/real"
SALT = "0123456789abcdef" * 2
OWN = {"origin": "/data/own", "words": {"Normal": "Normal", "Pneumonia": "Pneumonia"}, "licence": "own"}
PARAMS: dict[str, dict[str, Any]] = {
    "folders": OWN | {"patient": r"/(?P<patient>p\d+)_", "view_position": "PA"},
    "table": OWN
    | {
        "table": "labels.csv",
        "columns": {"path": "file", "patient_id": "patient", "findings": "finding", "view_position": "view"},
    },
    "dicom": OWN | {"table": "labels.csv", "key": "SOPInstanceUID", "key_column": "uid", "findings_column": "finding"},
}
PIXELS = np.zeros((4, 4), np.uint8)


def params(name: str, **changes: Any) -> SourceParams:
    return TypeAdapter(SourceParams).validate_python(
        PARAMS.get(name, {"origin": "/data/published"}) | {"reader": name} | changes
    )


def read(name: str, root: Path, **changes: Any) -> Iterator[Found | SetAside]:
    return READERS[name](Tree(root), params(name, **changes))


def read_sorted(name: str, root: Path, **changes: Any) -> tuple[dict[str, Found], Counter[str]]:
    """What was found by its path, and the reasons of what was set aside with their counts."""
    items = list(read(name, root, **changes))
    found = {item.path: item for item in items if isinstance(item, Found)}
    return found, Counter(item.reason for item in items if isinstance(item, SetAside))


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def table(*rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@pytest.fixture
def source(tmp_path, request):
    WRITERS[request.param](tmp_path)
    return read_sorted(request.param, tmp_path)


@pytest.mark.parametrize("source", ["kermany"], indirect=True)
def test_kermany_patients_are_number_and_type(source):
    found, reasons = source
    assert reasons == {"not an image file": 1}
    bacteria = found["chest_xray/train/PNEUMONIA/person1_bacteria_1.jpeg"]
    virus = found["chest_xray/train/PNEUMONIA/person1_virus_1.jpeg"]
    assert (bacteria.patient_id, virus.patient_id) == ("person1-bacteria", "person1-virus")
    assert (bacteria.findings, virus.findings) == ("PNEUMONIA|bacteria", "PNEUMONIA|virus")
    assert found["chest_xray/test/NORMAL/NORMAL2-IM-0096-0001.jpeg"].patient_id == "NORMAL2-IM-0096"
    assert found["chest_xray/test/NORMAL/IM-0000-0001.jpeg"].published_split == "test"


@pytest.mark.parametrize("source", ["nih"], indirect=True)
def test_nih_rows_and_images_are_matched_both_ways(source):
    found, reasons = source
    assert reasons == {"row without an image": 2, "image without a row": 1}
    first = found["images/00000000_000.png"]
    assert (first.patient_id, first.age_years, first.sex, first.view_position) == ("0", 30, "M", "PA")
    assert first.published_split == "test"
    assert found["images/00000001_000.png"].published_split == "train"


@pytest.mark.parametrize("source", ["covid"], indirect=True)
def test_covid_keeps_frontal_x_rays_only(source):
    found, reasons = source
    assert len(found) == 2 * PATIENTS + 2
    assert reasons == {
        "not a frontal view": 1,
        "not an X-ray": 1,
        "view position not stated": 1,
        "row without an image": 1,
    }
    assert {item.view_position for item in found.values()} == {"AP", "PA"}


def test_figure1_table_is_not_utf8_and_names_no_extension(tmp_path):
    folder = tmp_path / "Figure1-COVID-chestxray-dataset"
    (folder / "images").mkdir(parents=True)
    for name in ("COVID-00003a.jpg", "COVID-00003b.png"):
        (folder / "images" / name).write_bytes(b"image")
    (folder / "metadata.csv").write_bytes(
        "patientid,finding,view,modality,notes\n"
        "COVID-00003a,COVID-19,AP erect,X-ray,37.5°\nCOVID-00003b,COVID-19,PA,X-ray,\n".encode("cp1252")
    )
    found = [item for item in read("covid", tmp_path) if isinstance(item, Found)]
    assert {item.patient_id for item in found} == {"Figure1-COVID-chestxray-dataset/COVID-00003"}


def test_actualmed_names_the_image_and_states_neither_age_nor_sex(tmp_path):
    folder = tmp_path / "Actualmed-COVID-chestxray-dataset"
    (folder / "images").mkdir(parents=True)
    (folder / "images/CR.1.2.840.png").write_bytes(b"image")
    (folder / "metadata.csv").write_text(
        "patientid,imagename,finding,view,modality\nP-1,CR.1.2.840.png,No finding,AP,X-ray\n"
    )
    (found,) = read("covid", tmp_path)
    assert isinstance(found, Found)
    assert (found.patient_id, found.findings) == ("Actualmed-COVID-chestxray-dataset/P-1", "No finding")
    assert (found.view_position, found.age_years, found.sex, found.licence) == ("AP", None, None, None)


def test_a_missing_column_is_named(tmp_path):
    write_nih(tmp_path)
    table = tmp_path / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace("Patient ID", "Patient"))
    with pytest.raises(SourceError, match=r"Data_Entry_2017_v2020.csv: no column Patient ID; found Image Index"):
        list(read("nih", tmp_path))


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_cut_archive_is_named(tmp_path, keep):
    write_nih(tmp_path)
    archive = tmp_path / "images_001.tar.gz"
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    with pytest.raises(SourceError, match=r"images_001.tar.gz: not a whole archive .*fetch it again"):
        list(read("nih", tmp_path))


@pytest.mark.parametrize("name", ["kermany", "nih", "covid"])
def test_a_whole_source_in_one_tar_reads_as_its_folder(tmp_path, name):
    WRITERS[name](tmp_path / "folder")
    if name == "kermany":
        with zipfile.ZipFile(tmp_path / "folder/archive.zip") as archive:
            archive.extractall(tmp_path / "folder")
        (tmp_path / "folder/archive.zip").unlink()
    if name == "nih":
        with tarfile.open(tmp_path / "folder/images_001.tar.gz") as archive:
            archive.extractall(tmp_path / "folder", filter="data")
        (tmp_path / "folder/images_001.tar.gz").unlink()
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar/whole.tar.gz", "w:gz") as archive:
        for path in sorted((tmp_path / "folder").iterdir()):
            archive.add(path, path.name)
    from_tar, from_folder = ({item.path: item for item in read(name, tmp_path / kind)} for kind in ("tar", "folder"))
    assert len(from_folder) > 30
    assert from_tar == from_folder


def test_an_archive_member_that_points_outside_is_never_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("../train/NORMAL/IM-0001-0001.png", b"evil")
    for name in ("kermany", "folders"):
        for item in read(name, tmp_path):
            if isinstance(item, Found):
                with pytest.raises(ImageError, match="points outside the archive"):
                    item.member.read()


def test_a_directory_and_its_archive_give_the_same_records(tmp_path):
    write_kermany(tmp_path / "zip")
    with zipfile.ZipFile(tmp_path / "zip/archive.zip") as archive:
        archive.extractall(tmp_path / "folder")
    from_zip, from_folder = (
        {item.path: item for item in read("kermany", tmp_path / name)} for name in ("zip", "folder")
    )
    assert from_zip == from_folder


# -------------------------------------------------------------------------------------------------------------- tables


def test_repeated_rows_are_counted_and_contradicting_ones_not_used(tmp_path):
    header = ["patientid", "finding", "view", "modality", "filename", "notes"]
    rows = [
        ["1", "COVID-19", "PA", "X-ray", "a.png", "first"],
        ["1", "COVID-19", "PA", "X-ray", "a.png", "told twice"],
        ["2", "COVID-19", "PA", "X-ray", "b.png", ""],
        ["2", "No Finding", "PA", "X-ray", "b.png", ""],
        ["3", "COVID-19", "PA", "X-ray"],
    ]
    write(tmp_path, {"c/metadata.csv": table(header, *rows), "c/images/a.png": b"", "c/images/b.png": b""})
    found, reasons = read_sorted("covid", tmp_path)
    assert list(found) == ["c/images/a.png"]
    assert reasons == {
        "row repeated": 1,
        "rows contradict each other": 2,
        "image without a row": 1,
        "unreadable row": 1,
    }


@pytest.mark.parametrize("fetched", ["clone", "archives", "one collection linked"])
def test_covid_patients_do_not_depend_on_how_a_collection_was_fetched(tmp_path, fetched):
    files = {
        "covid-chestxray-dataset": {
            "metadata.csv": "patientid,finding,view,modality,filename\n7,COVID-19,PA,X-ray,a.png\n",
            "images/a.png": b"",
        },
        "Figure1-COVID-chestxray-dataset": {
            "metadata.csv": "patientid,finding,view,modality\nCOVID-00007,COVID-19,PA,X-ray\n",
            "images/COVID-00007.png": b"",
        },
    }
    for name, content in files.items():
        if fetched == "clone":
            write(tmp_path / name, content)
        elif fetched == "archives":
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                for path, data in content.items():
                    archive.writestr(f"{name}-master/{path}", data)
        elif name == "covid-chestxray-dataset":
            write(tmp_path, content)
    patients = {item.patient_id for item in read("covid", tmp_path) if isinstance(item, Found)}
    expected = {"covid-chestxray-dataset/7", "Figure1-COVID-chestxray-dataset/COVID-00007"}
    assert patients == ({"covid-chestxray-dataset/7"} if fetched == "one collection linked" else expected)


@pytest.mark.parametrize(
    ("text", "years"),
    [("57", 57), ("057Y", 57), ("018M", 1.5), ("052W", 0.9966), ("010D", 0.0274), ("50+", 50), ("4.5", 4.5),
     ("411", None), ("Y", None), ("", None), ("-3", None), ("nan", None), ("12 to 14", None)],
)  # fmt: skip
def test_ages_are_years(text, years):
    assert age(text) == (years if years is None else pytest.approx(years, abs=1e-3))


def test_sexes_are_dicom_letters():
    assert [sex(text) for text in ("M", "f", "Female", "male", "O", "", "unknown")] == [
        "M",
        "F",
        "F",
        "M",
        "O",
        None,
        None,
    ]


# ---------------------------------------------------------------------------------------------------------------- RSNA


def write_rsna(folder: Path) -> Path:
    """Six labelled images, and one fault of each kind."""
    views = {"a": "PA", "b": "AP", "c": "LL", "d": "PA", "g": "PA", "x": "PA", "test": "PA"}
    images = {
        name: dicom(PIXELS, ViewPosition=view, PatientAge="062Y", PatientSex="F", PatientID=name)
        for name, view in views.items()
    }
    train = {f"stage_2_train_images/{name}.dcm": data for name, data in images.items() if name != "test"}
    boxes = [
        ["patientId", "x", "y", "width", "height", "Target"],
        ["a", "264.0", "152.0", "213.5", "379.0", "1"],
        ["a", "562.0", "152.0", "256.0", "453.0", "1"],
        ["b", "", "", "", "", "0"],
        ["c", "", "", "", "", "0"],
        ["d", "12", "ten", "3", "4", "1"],
        ["e", "", "", "", "", "0"],
        ["g", "", "", "", "", "0"],
        ["h", "", "", "", "", "0"],
    ]
    classes = [["patientId", "class"], ["a", "Lung Opacity"], ["a", "Lung Opacity"], ["d", "Lung Opacity"]]
    classes += [[name, "No Lung Opacity / Not Normal"] for name in "bceh"]
    return write(
        folder,
        train
        | {
            "stage_2_test_images/test.dcm": images["test"],
            "stage_2_train_images/h.dcm": b"not DICOM",
            "stage_2_train_labels.csv": table(*boxes),
            "stage_2_detailed_class_info.csv": table(*classes),
            "stage_2_sample_submission.csv": "patientId,PredictionString\n",
        },
    )


def test_rsna_joins_classes_boxes_and_headers(tmp_path):
    found, reasons = read_sorted("rsna", write_rsna(tmp_path))
    a, b = (found[f"stage_2_train_images/{name}.dcm"] for name in "ab")
    assert (a.findings, b.findings) == ("Lung Opacity", "No Lung Opacity / Not Normal")
    assert (a.patient_id, a.view_position, a.age_years, a.sex) == ("a", "PA", 62, "F")
    assert json.loads(a.boxes or "") == [[264, 152, 213.5, 379], [562, 152, 256, 453]]
    assert b.boxes is None
    assert len(found) == 2
    assert reasons == {
        "not a frontal view": 1,
        "boxes that cannot be read": 1,
        "row without an image": 1,
        "no class stated": 1,
        "image without a row": 1,
        "no published label": 1,
        "not an image file": 1,
        "unreadable image": 1,
    }


def test_rsna_patients_are_those_of_its_mapping_to_nih(tmp_path):
    mapping = [
        {"img_id": f"00012345_00{n}.png", "subset_img_id": name, "orig_labels": []} for n, name in enumerate("ab")
    ]
    write(write_rsna(tmp_path), {"pneumonia-challenge-dataset-mappings_2018.json": json.dumps(mapping)})
    found, _ = read_sorted("rsna", tmp_path)
    assert {item.patient_id for item in found.values()} == {"nih-12345"}


def test_rsna_reads_the_same_from_one_archive(tmp_path):
    write_rsna(tmp_path / "folder")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip/rsna.zip", "w") as archive:
        for path in sorted((tmp_path / "folder").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "folder"))
    of_zip, of_folder = ({item.path: item for item in read("rsna", tmp_path / kind)} for kind in ("zip", "folder"))
    assert of_zip == of_folder
    assert all(item.member.read()[128:132] == b"DICM" for item in of_zip.values() if isinstance(item, Found))


@pytest.mark.skipif(not REAL.exists(), reason="needs the real tables")
def test_rsnas_real_tables_are_accounted_for(tmp_path):
    """26,684 images, of which the class table at hand leaves one out."""
    for name in ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"):
        (tmp_path / name).symlink_to(REAL / "rsna" / name)
    two = ("0004cfab-14fd-4e49-80ba-63a80b6bddd6", "00436515-870c-4b36-a041-de91049b9ab4")
    write(tmp_path, {f"stage_2_train_images/{name}.dcm": dicom(PIXELS, ViewPosition="PA") for name in two})
    found, reasons = read_sorted("rsna", tmp_path)
    normal, opaque = (found[f"stage_2_train_images/{name}.dcm"] for name in two)
    assert (normal.findings, normal.boxes) == ("No Lung Opacity / Not Normal", None)
    assert opaque.findings == "Lung Opacity"
    assert json.loads(opaque.boxes or "") == [[264, 152, 213, 379], [562, 152, 256, 453]]
    assert reasons == {"row without an image": 26_682}


# -------------------------------------------------------------------------------------------------------- own folders


def test_covid19_pneumonia_normal_takes_each_file_for_a_patient(tmp_path):
    names = ("COVID/COVID_1.png", "NORMAL/NORMAL_1.png", "PNEUMONIA/PNEUMONIA_1.png", "covid/1.png", "readme.txt")
    found, reasons = read_sorted("covid19-pneumonia-normal", write(tmp_path, dict.fromkeys(names, b"")))
    assert [item.findings for item in found.values()] == ["COVID", "NORMAL", "PNEUMONIA"]
    assert len({item.patient_id for item in found.values()}) == 3
    assert reasons == {"outside the published folders": 1, "not an image file": 1}


def test_a_folder_is_a_class_and_the_path_names_the_patient(tmp_path):
    names = ("Normal/p1_a.png", "x/Pneumonia/p1_b.jpg", "Normal/unnamed.png", "p2_.png", "Normal/Thumbs.db")
    found, reasons = read_sorted("folders", write(tmp_path, dict.fromkeys(names, b"")))
    assert {(item.patient_id, item.findings) for item in found.values()} == {("p1", "Normal"), ("p1", "Pneumonia")}
    assert {(item.view_position, item.licence) for item in found.values()} == {("PA", "own")}
    assert reasons == {"no patient in the path": 1, "outside a folder of a class": 1, "not an image file": 1}


@pytest.mark.parametrize("pattern", ["(p[0-9]+)", "(?P<patient>", "(?P<who>.)"])
def test_a_pattern_without_a_patient_is_refused(pattern):
    with pytest.raises(ValidationError, match=r"patient|not a regular expression"):
        params("folders", patient=pattern)


@pytest.mark.parametrize("cell", ["in/deep/a.png", "deep/a.png", "a.png", "a", "/in/deep/a.png"])
def test_a_table_may_name_an_image_in_every_usual_way(tmp_path, cell):
    rows = [["file", "patient", "finding", "view"], [cell, "7", "Normal", "pa"]]
    found, reasons = read_sorted("table", write(tmp_path, {"in/deep/a.png": b"", "labels.csv": table(*rows)}))
    assert found["in/deep/a.png"].patient_id == "7"
    assert found["in/deep/a.png"].view_position == "PA"
    assert not reasons


def test_a_table_sets_aside_what_it_cannot_tell(tmp_path):
    rows = [
        ["file", "patient", "finding", "view", "split", "years", "sex"],
        ["good.png", "1", "Normal", "AP", "valid", "057Y", "female"],
        ["good.png", "1", "Normal", "AP", "valid", "057Y", "female"],
        ["x/good.png", "1", "Normal", "AP", "", "", ""],
        ["same.png", "2", "Normal", "PA", "", "", ""],
        ["absent.png", "3", "Normal", "PA", "", "", ""],
        ["side.png", "4", "Normal", "Lateral", "", "", ""],
        ["noview.png", "4", "Normal", "", "", "", ""],
        ["nobody.png", "", "Normal", "PA", "", "", ""],
        ["nothing.png", "5", "", "PA", "", "", ""],
        ["split.png", "5", "Normal", "PA", "holdout", "", ""],
        ["", "6", "Normal", "PA", "", "", ""],
    ]
    names = ["x/good.png", "a/same.png", "b/same.png", "side.png", "noview.png", "nobody.png", "nothing.png"]
    files = dict.fromkeys([*names, "split.png", "alone.png", "notes.txt"], b"") | {"labels.csv": table(*rows)}
    columns = PARAMS["table"]["columns"] | {"published_split": "split", "age_years": "years", "sex": "sex"}
    found, reasons = read_sorted("table", write(tmp_path, files), columns=columns)
    (good,) = found.values()
    assert (good.published_split, good.age_years, good.sex) == ("val", 57, "F")
    assert reasons == {
        "row repeated": 1,
        "another row fits this image": 1,
        "row fits several images": 1,
        "row without an image": 1,
        "not a frontal view": 1,
        "view position not stated": 1,
        "no patient stated": 1,
        "no finding stated": 1,
        "unknown published split": 1,
        "row without a name": 1,
        "image without a row": 3,
        "not an image file": 1,
    }


# --------------------------------------------------------------------------------------------------------- own DICOM


def hospital_file(number: int, **elements: Any) -> bytes:
    stated = {
        "SOPInstanceUID": f"1.2.3.{number}", "PatientID": f"CANARY-{number // 2}", "AccessionNumber": f"A{number}",
        "ViewPosition": "PA", "PatientAge": "057Y", "PatientSex": "M", "Modality": "DX", "ImageLaterality": "U",
    }  # fmt: skip
    return dicom(PIXELS, patient_name="CANARY^ONE", **stated | elements)


@pytest.fixture
def salted(monkeypatch):
    monkeypatch.setenv("CXR_PATIENT_SALT", SALT)


def write_hospital(folder: Path) -> Path:
    """Files named after a patient, without suffix, and a fault of each kind."""
    files: dict[str, bytes | str] = {
        "CANARY^ONE/1": hospital_file(1),
        "CANARY^ONE/2": hospital_file(2),
        "CANARY^ONE/3": hospital_file(3, PatientAge="104Y", ImageLaterality="", Laterality="L"),
        "CANARY^ONE/lateral": hospital_file(4, ViewPosition="LL"),
        "CANARY^ONE/named": hospital_file(5, ViewPosition="CANARY"),
        "CANARY^ONE/ct": hospital_file(6, Modality="CT"),
        "CANARY^ONE/nobody": hospital_file(7, PatientID=""),
        "CANARY^ONE/report": hospital_file(8),
        "CANARY^ONE/unlabelled": hospital_file(99),
        "CANARY^ONE/age": hospital_file(10).replace(b"057Y", b"CANA"),
        "CANARY^ONE/notes.txt": "CANARY^ONE was here",
        "CANARY^ONE/deflated": hospital_file(11).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"),
        "CANARY^ONE/DICOMDIR": (Path(pydicom.__file__).parent / "data/test_files/dicomdirtests/DICOMDIR").read_bytes(),
    }
    labels = [[f"1.2.3.{n}", "Normal"] for n in (1, 1, 2, 3, 4, 5, 6, 7, 10, 55)]
    labels += [["1.2.3.8", "Normal, seen by Dr CANARY"]]
    return write(folder, files | {"labels.csv": table(["uid", "finding"], *labels)})


def test_a_hospitals_headers_are_read_and_its_patients_hashed(tmp_path, salted):
    found, reasons = read_sorted("dicom", write_hospital(tmp_path))
    assert len(found) == 4
    assert sorted(item.age_years or 0 for item in found.values()) == [0, 57, 57, 90]
    assert sorted(item.laterality or "" for item in found.values()) == ["L", "U", "U", "U"]
    assert {(item.view_position, item.sex, item.findings) for item in found.values()} == {("PA", "M", "Normal")}
    assert len({item.patient_id for item in found.values()}) == 3, "2 and 3 are of one patient"
    assert all(re.fullmatch("[0-9a-f]{32}", text) for item in found.values() for text in (item.path, item.patient_id))
    assert all(item.member.read()[128:132] == b"DICM" for item in found.values())
    assert reasons == {
        "not a frontal view": 2,
        "not an X-ray": 1,
        "no patient stated": 1,
        "finding not in words": 1,
        "image without a row": 1,
        "not an image file": 2,
        "unreadable image": 1,
        "row without an image": 1,
        "row repeated": 1,
    }


def test_nothing_that_a_dicom_reader_gives_names_a_patient(tmp_path, salted, capfd):
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        items = list(read("dicom", write_hospital(tmp_path)))
    logging.getLogger().removeHandler(handler)
    said = [f"{item} {item.member.path if isinstance(item, Found) else ''}" for item in items]
    said += logged + [str(warning.message) for warning in warned] + list(capfd.readouterr())
    assert len(said) > 10
    assert not [text for text in said if "CANARY" in text or "1.2.3." in text]


def test_names_hide_in_no_error_of_a_dicom_source(tmp_path, salted):
    write(tmp_path / "table", {"labels.csv": "CANARY^ONE,Normal\nCANARY^TWO,Normal\n"})
    write(tmp_path / "archive", {"CANARY^ONE.zip": b"PK\3\4 no archive", "labels.csv": "uid,finding\n"})
    for kind in ("table", "archive"):
        with pytest.raises(SourceError, match=r"cell is shown") as caught:
            list(read("dicom", tmp_path / kind))
        assert "CANARY" not in str(caught.value)
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("key", ["path", "SOPInstanceUID", "AccessionNumber", "PatientID"])
@pytest.mark.parametrize("archived", [False, True])
def test_labels_are_keyed_by_any_of_four(tmp_path, salted, key, archived):
    keys = {"path": ["scans/1", "scans/2"], "SOPInstanceUID": ["1.2.3.2", "1.2.3.3"], "AccessionNumber": ["A2", "A3"]}
    rows = [[name, "Normal"] for name in keys.get(key, ["CANARY-1"])]
    files = {"scans/1": hospital_file(2), "scans/2": hospital_file(3), "labels.csv": table(["uid", "finding"], *rows)}
    if archived:
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        write(tmp_path / "files", files)
    found, reasons = read_sorted("dicom", tmp_path, key=key)
    assert len(found) == 2
    assert not reasons


def test_another_salt_gives_other_patients(tmp_path, monkeypatch):
    write(tmp_path, {"a": hospital_file(1), "labels.csv": "uid,finding\n1.2.3.1,Normal\n"})
    patients = []
    for salt in (SALT, SALT, SALT[::-1]):
        monkeypatch.setenv("CXR_PATIENT_SALT", salt)
        (item,) = read("dicom", tmp_path)
        assert isinstance(item, Found)
        patients.append(item.patient_id)
    assert patients[0] == patients[1] != patients[2]


@pytest.mark.parametrize(("salt", "sentence"), [(None, "not set"), ("", "not set"), ("hospital", "8 characters")])
def test_without_a_secret_salt_nothing_is_read(tmp_path, monkeypatch, salt, sentence):
    monkeypatch.delenv("CXR_PATIENT_SALT", raising=False)
    if salt is not None:
        monkeypatch.setenv("CXR_PATIENT_SALT", salt)
    with pytest.raises(SourceError, match=f"CXR_PATIENT_SALT: {sentence}.* at least 32") as caught:
        list(read("dicom", tmp_path))
    assert "hospital" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- the guide

GUIDE = (Path(__file__).parents[1] / "docs/adding-a-source.md").read_text()
PASTED = {
    name: source
    for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    for name, source in yaml.safe_load(block)["sources"].items()
}


def read_pasted(name: str, root: Path) -> list[Found | SetAside]:
    """Read `root` by an entry of the guide, as it stands there."""
    source = TypeAdapter(SourceParams).validate_python(PASTED[name])
    return list(READERS[source.reader](Tree(root), source))


def test_the_guides_own_sources_read_the_layouts_it_draws(tmp_path, salted):
    clinic = ("normal/P0012_1.png", "pneumonia/P0045_1.png", "pneumonia/P0045_2.png")
    write(tmp_path / "clinic", dict.fromkeys(clinic, b""))
    rows = "file;patient;diagnosis;view;age;sex\n0001;7;viral pneumonia;PA;61;f\n"
    write(tmp_path / "registry", {"images/0001.png": b"", "labels.csv": rows})
    labels = "accession,finding\nA1,pneumonia\n"
    write(tmp_path / "hospital", {"export/DOE_JOHN/IM0001": hospital_file(1), "labels.csv": labels})
    found = {name: read_pasted(name, tmp_path / name) for name in ("clinic", "registry", "hospital")}
    assert all(isinstance(item, Found) for items in found.values() for item in items)
    assert [(item.patient_id, item.findings) for item in found["clinic"] if isinstance(item, Found)] == [
        ("P0012", "normal"), ("P0045", "pneumonia"), ("P0045", "pneumonia"),
    ]  # fmt: skip
    (seven,), (john,) = found["registry"], found["hospital"]
    assert isinstance(seven, Found)
    assert isinstance(john, Found)
    assert (seven.patient_id, seven.findings, seven.age_years, seven.sex) == ("7", "viral pneumonia", 61, "F")
    assert (john.findings, john.view_position) == ("pneumonia", "PA")
    for name, items in found.items():
        words = PASTED[name]["words"]
        assert all(item.findings in words for item in items if isinstance(item, Found))


def test_the_guides_reader_works_as_it_stands_there(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)  # noqa: S102
    root = write(
        tmp_path / "MontgomerySet",
        {
            "CXR_png/MCUCXR_0001_0.png": b"",
            "ClinicalReadings/MCUCXR_0001_0.txt": "Patient's Sex: F\nPatient's Age: 027Y\nnormal",
            "CXR_png/MCUCXR_0102_1.png": b"",
            "ClinicalReadings/MCUCXR_0102_1.txt": "Patient's Sex: M\nPatient's Age: 040Y\nright upper infiltrate",
            "CXR_png/MCUCXR_0103_1.png": b"",
            "ClinicalReadings/MCUCXR_0104_1.txt": "normal",
            "CXR_png/Thumbs.db": b"",
            "CXR_png/other.png": b"",
        },
    )
    items = list(module["read"](Tree(root.parent), params("kermany")))
    said = [(i.patient_id, i.findings, i.age_years, i.sex) for i in items if isinstance(i, Found)]
    assert said == [("0001", "Normal", 27, "F"), ("0102", "Tuberculosis", 40, "M")]
    assert Counter(item.reason for item in items if isinstance(item, SetAside)) == {
        "image without a reading": 1, "reading without an image": 1, "not an image file": 1,
        "no patient in the file name": 1,
    }  # fmt: skip


# --------------------------------------------------------------------------------------- raw = used + set aside, always


class FakeTree(Tree):
    """Files in memory; readers take them for members of an archive, which are read once."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(Path("fake"))
        self.content = content

    def walk(self) -> Iterator[Member]:
        for path, data in self.content.items():
            yield Member(path, Path("fake.zip"), lambda data=data: data)

    def files(self) -> list[Path]:
        return [Path("fake.zip")]

    def loose(self) -> Iterator[Member]:
        return iter(())


NAMES = st.sampled_from(["a", "b", "c", "d"])
CELLS = st.sampled_from(["", "PA", "AP", "L", "X-ray", "CT", "1", "0", "ten", "Normal", "Pneumonia", "\u00e9"])
KEY_OF = {hospital_file(1): "1.2.3.1", hospital_file(3): "1.2.3.3"}
BYTES = st.sampled_from([b"", b"image", b"\xff\xd8\xff", hospital_file(2)[:140], *KEY_OF])
FOLDERS = {
    "kermany": ["train/NORMAL/IM-0001-", "test/PNEUMONIA/person1_virus_", "junk/", ""],
    "nih": ["images/", ""],
    "covid": ["one/images/", "two/images/", ""],
    "rsna": ["stage_2_train_images/", "stage_2_test_images/", ""],
    "covid19-pneumonia-normal": ["COVID/", "normal/", ""],
    "folders": ["Normal/p1_", "Pneumonia/", ""],
    "table": ["x/", "y/", ""],
    "dicom": ["x/", ""],
}
TABLES = {
    "nih": {"Data_Entry_2017.csv": ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender",
                                    "View Position"]},
    "covid": {f"{place}/metadata.csv": ["filename", "patientid", "finding", "view", "modality"]
              for place in ("one", "two")},
    "rsna": {"stage_2_detailed_class_info.csv": ["patientId", "class"],
             "stage_2_train_labels.csv": ["patientId", "x", "y", "width", "height", "Target"]},
    "table": {"labels.csv": ["file", "patient", "finding", "view"]},
    "dicom": {"labels.csv": ["uid", "finding"]},
}  # fmt: skip
KEYS = {"nih": "{}.png", "covid": "{}.png", "rsna": "{}", "table": "{}.png", "dicom": "1.2.3.{}"}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, deadline=timedelta(seconds=5), derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(data=st.data())
def test_every_file_and_row_is_used_or_set_aside(salted, name: str, data: st.DataObject) -> None:
    """No reader fails on what a row or a file holds. An image with its row is one item, everything else is its own."""
    suffix = {"rsna": ".dcm", "dicom": ""}.get(name, ".png")
    places = st.tuples(st.sampled_from(FOLDERS[name]), NAMES, st.sampled_from([suffix, ".txt"]))
    content = data.draw(st.dictionaries(places.map("".join), BYTES, max_size=8))
    tables = {}
    for path, columns in TABLES.get(name, {}).items():
        key = NAMES.map("abcd".index).map(KEYS[name].format) if name == "dicom" else NAMES.map(KEYS[name].format)
        row = st.tuples(st.one_of(key, st.just("")), *[CELLS] * (len(columns) - 1))
        tables[path] = data.draw(st.lists(row, max_size=8))
        content[path] = table(columns, *tables[path]).encode()
    every = list(READERS[name](FakeTree(content), params(name)))
    items = [item for item in every if not (isinstance(item, SetAside) and item.reason in OF_A_CELL)]
    files = set(content) - set(tables)

    of_rows = [item for item in items if isinstance(item, SetAside) and item.reason in ROW_REASONS]
    of_files = [item for item in items if item not in of_rows]
    if name == "dicom":
        assert len({item.path for item in of_files}) == len(of_files) == len(files)
    else:
        assert sorted(item.path for item in of_files) == sorted(files)

    without = ("image without a row", "no published label", "not an image file")
    with_row = [item.path for item in of_files if isinstance(item, Found) or item.reason not in without]
    if name in ("nih", "rsna"):  # rows name files, wherever these lie
        with_row = [PurePosixPath(path).name for path in with_row]
    rows = [row for rows in tables.values() for row in rows if any(row)]
    if name == "rsna":  # several rows of one image are its boxes
        rows = {row[0] for row in rows if row[0]} | {(n, row) for n, row in enumerate(rows) if not row[0]}
    if name == "dicom":
        told = Counter(row[0] for row in set(rows))
        with_row = [KEY_OF[file] for file in content.values() if told.get(KEY_OF.get(file)) == 1]
    if tables:
        assert len(rows) == len(of_rows) + len(set(with_row))


ROW_REASONS = (
    "row without an image", "row repeated", "rows contradict each other", "row without a name", "unreadable row",
    "row fits several images", "another row fits this image",
)  # fmt: skip
