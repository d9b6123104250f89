"""The three readers on their own layouts, faults included."""

import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from cxr.archives import Tree
from cxr.errors import SourceError
from cxr.params import load_params
from cxr.sources import READERS, Found, SetAside
from tests.tiny_sources import PATIENTS, WRITERS, write_kermany, write_nih


def read(name: str, root: Path):
    return READERS[name](Tree(root), load_params().sources[name])


@pytest.fixture
def source(tmp_path, request):
    WRITERS[request.param](tmp_path)
    items = list(read(request.param, tmp_path))
    found = {item.path: item for item in items if isinstance(item, Found)}
    reasons = Counter(item.reason for item in items if isinstance(item, SetAside))
    return found, reasons


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


def test_an_archive_member_may_not_point_outside(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("../evil.png", b"")
    with pytest.raises(SourceError, match="points outside the archive"):
        list(read("kermany", tmp_path))


def test_a_directory_and_its_archive_give_the_same_records(tmp_path):
    write_kermany(tmp_path / "zip")
    with zipfile.ZipFile(tmp_path / "zip/archive.zip") as archive:
        archive.extractall(tmp_path / "folder")
    from_zip, from_folder = (
        {item.path: item for item in read("kermany", tmp_path / name)} for name in ("zip", "folder")
    )
    assert from_zip == from_folder
