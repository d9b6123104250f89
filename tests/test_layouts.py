"""The layouts of published sets as docs/data.md has them, on tiny copies, and what is wrong with such tables."""

import csv
import gzip
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cxr.dataset.labels import read_label, vocabulary_of
from cxr.dataset.manifest import RECORD_COLUMNS, read_table
from cxr.errors import ParamsError, SourceError
from cxr.params import SourceParams, load_params
from cxr.raw.archives import Tree
from cxr.sources import READERS, Found, SetAside
from cxr.sources.reading import OF_A_CELL
from cxr.tasks import TASKS
from stages.ingest.stream import ingest
from stages.validate.records import OF_A_ROW
from tests.image_files import dicom, jpeg, png
from tests.masked_source import film
from tests.tiny_repository import tiny_params

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text()
ENTRIES = {
    name: entry
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for name, entry in yaml.safe_load(block)["sources"].items()
}


def entry(name: str, **changes: Any) -> SourceParams:
    return TypeAdapter(SourceParams).validate_python(ENTRIES[name] | changes)


def read(source: SourceParams, root: Path) -> tuple[dict[str, Found], list[SetAside]]:
    items = list(READERS[source.reader](Tree(root), source))
    left_out = [item for item in items if isinstance(item, SetAside)]
    return {item.path: item for item in items if isinstance(item, Found)}, left_out


def reasons(left_out: list[SetAside]) -> Counter[str]:
    return Counter(item.reason for item in left_out)


def labels(source: SourceParams, found: dict[str, Found]) -> dict[str, str | None]:
    vocabulary = vocabulary_of(source, ["Pneumonia"])
    return {path: read_label(TASKS["covid"], vocabulary, item.findings).label for path, item in found.items()}


def columns_of(header: str) -> list[str]:
    return header.split(",")


def table(*rows: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path.parent


# ---- the COVID-19 Radiography Database -----------------------------------------------------------------------------


def radiography_database() -> dict[str, bytes]:
    """Three films a class, each with its mask under the same name; a film without one, a mask without a film."""
    files = {"README.md.txt": b"read me"}
    root = "COVID-19_Radiography_Dataset"
    for c, name in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        files[f"{root}/{name}.metadata.xlsx"] = b"PK"
        for n in range(3):
            pixels, mask = film(10 * c + n)
            files[f"{root}/{name}/images/{name}-{n + 1}.png"] = png(pixels)
            files[f"{root}/{name}/masks/{name}-{n + 1}.png"] = png(mask)
    del files[f"{root}/Normal/masks/Normal-2.png"]
    del files[f"{root}/COVID/images/COVID-3.png"]
    return files


def test_the_radiography_database_reads_with_its_masks(tmp_path):
    source = entry("radiography-database")
    found, left_out = read(source, write_zip(tmp_path / "set.zip", radiography_database()))
    covid = "COVID-19_Radiography_Dataset/COVID/images/COVID-1.png"
    assert len(found) == 11
    assert Counter(labels(source, found).values()) == {"Normal": 3, "Pneumonia": 3, "COVID-19": 2, None: 3}
    assert (found[covid].patient_id, found[covid].findings, found[covid].region) == ("COVID-1", "COVID", "lungs")
    assert all(item.mask.path == path.replace("/images/", "/masks/") for path, item in found.items() if item.mask)
    assert [path.rpartition("/")[2] for path, item in found.items() if item.mask is None] == ["Normal-2.png"]
    assert reasons(left_out) == {"not an image file": 5, "mask without an image": 1}


def test_ingest_keeps_the_masks_of_the_radiography_database(tmp_path):
    write_zip(tmp_path / "raw.zip", {}).joinpath("raw").mkdir()
    write(tmp_path / "raw", radiography_database())
    params = tiny_params().ingest
    ingest("db", entry("radiography-database"), params, tmp_path / "raw", tmp_path / "out", tmp_path / "seen")
    records = read_table(tmp_path / "out/records.parquet", RECORD_COLUMNS)
    assert records["mask"].value_counts().to_dict() == {"lungs": 10}
    assert records["mask_share"].dropna().between(0.05, 0.9).all()


# ---- CheXpert ------------------------------------------------------------------------------------------------------

CHEXPERT = columns_of(
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def chexpert_row(path: str, ap_pa: str, **labels: str) -> list[str]:
    stated = {"Path": path, "Sex": "Female", "Age": "68", "AP/PA": ap_pa, **labels}
    stated["Frontal/Lateral"] = "Frontal" if "frontal" in path else "Lateral"
    return [stated.get(column, "") for column in CHEXPERT]


def chexpert() -> dict[str, bytes]:
    root = "CheXpert-v1.0-small"
    train = [
        chexpert_row(f"{root}/train/patient00001/study1/view1_frontal.jpg", "AP", **{"No Finding": "1.0"}),
        chexpert_row(f"{root}/train/patient00001/study1/view2_lateral.jpg", "", **{"No Finding": "1.0"}),
        chexpert_row(f"{root}/train/patient00001/study2/view1_frontal.jpg", "PA", Pneumonia="1.0", Edema="-1.0"),
        chexpert_row(f"{root}/train/patient00002/study1/view1_frontal.jpg", "AP", Pneumonia="-1.0"),
        chexpert_row(f"{root}/train/patient00003/study1/view1_frontal.jpg", "AP", Pneumonia="0.0"),
        chexpert_row(f"{root}/train/patient00004/study1/view1_frontal.jpg", "AP", Edema="1.0"),
        chexpert_row(f"{root}/train/patient00005/study1/view1_frontal.jpg", "LL", Pneumonia="1.0"),
    ]
    valid = [chexpert_row(f"{root}/valid/patient64541/study1/view1_frontal.jpg", "", **{"No Finding": "1.0"})]
    files = {row[0]: b"" for row in (*train, *valid)}
    return files | {f"{root}/train.csv": table(CHEXPERT, *train), f"{root}/valid.csv": table(CHEXPERT, *valid)}


def test_chexpert_has_its_patients_views_and_uncertain_labels(tmp_path):
    source = entry("chexpert")
    found, left_out = read(source, write_zip(tmp_path / "CheXpert-v1.0-small.zip", chexpert()))
    said = [(i.patient_id, i.view_position, i.published_split, i.age_years, i.sex) for i in found.values()]
    assert said == [
        ("patient00001", "AP", "train", 68, "F"),
        ("patient00001", "PA", "train", 68, "F"),
        ("patient64541", None, "val", 68, "F"),  # `Frontal`, and no word of PA or AP
    ]
    assert list(labels(source, found).values()) == ["Normal", "Pneumonia", "Normal"]
    assert reasons(left_out) == {
        "not a frontal view": 2, "uncertain finding": 1, "no positive label": 1, "no finding stated": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("policy", "findings"), [("positive", "Pneumonia"), ("negative", None), ("set-aside", None)])
def test_what_an_uncertain_label_counts_as_is_a_param(tmp_path, policy, findings):
    source = entry("chexpert", labels={"No Finding": "negative", "Pneumonia": policy})
    found, left_out = read(source, write(tmp_path, chexpert()))
    film = "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg"
    assert (found[film].findings if film in found else None) == findings
    told = {item.path: item.reason for item in left_out}
    assert (
        told.get(film) == {"positive": None, "negative": "no positive label", "set-aside": "uncertain finding"}[policy]
    )


def test_chexpert_unpacked_without_its_outer_folder_reads_the_same(tmp_path):
    files = {name.removeprefix("CheXpert-v1.0-small/"): data for name, data in chexpert().items()}
    found, left_out = read(entry("chexpert"), write(tmp_path, files))
    assert len(found) == 3
    assert "row without an image" not in reasons(left_out)


# ---- MIMIC-CXR-JPG -------------------------------------------------------------------------------------------------

MIMIC_METADATA = columns_of(
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
MIMIC_LABELS = columns_of(
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
MIMIC_FILMS = [  # dicom_id, subject_id, study_id, view, split
    ("02aa804e-bde0afdd", "10000032", "50414267", "PA", "train"),
    ("174413ec-4ec4c1f7", "10000032", "50414267", "LATERAL", "train"),
    ("2a2277a9-b0ded155", "10000032", "53189527", "AP", "train"),
    ("68b5c4b1-227d0485", "10000764", "57375967", "AP", "validate"),
    ("8959e402-2175d68d", "10000898", "50771383", "PA LLD", "test"),
    ("a7f5ec4b-d0cf6f5b", "10000898", "54205396", "PA", "test"),
    ("ffffffff-00000000", "10000935", "50578979", "", "train"),
]


def mimic(**changes: bytes) -> dict[str, bytes]:
    studies = {"50414267": {"No Finding": "1.0"}, "53189527": {"Pneumonia": "1.0"}, "57375967": {"Pneumonia": "-1.0"},
               "50771383": {"Pneumonia": "1.0"}, "50578979": {"No Finding": "1.0"}}  # fmt: skip
    patient_of = {study: patient for _, patient, study, *_ in MIMIC_FILMS}
    stated = [{"dicom_id": d, "subject_id": p, "study_id": s, "ViewPosition": v} for d, p, s, v, _ in MIMIC_FILMS]
    of_studies = [labels | {"subject_id": patient_of[study], "study_id": study} for study, labels in studies.items()]
    tables = {
        "metadata": [MIMIC_METADATA, *([row.get(column, "") for column in MIMIC_METADATA] for row in stated)],
        "chexpert": [MIMIC_LABELS, *([row.get(column, "") for column in MIMIC_LABELS] for row in of_studies)],
        "split": [["dicom_id", "study_id", "subject_id", "split"], *([d, s, p, t] for d, p, s, _, t in MIMIC_FILMS)],
    }
    files = {f"mimic-cxr-2.0.0-{name}.csv.gz": gzip.compress(table(*rows)) for name, rows in tables.items()}
    for d, patient, study, *_ in MIMIC_FILMS:
        files[f"files/p{patient[:2]}/p{patient}/s{study}/{d}.jpg"] = b""
    return files | {f"mimic-cxr-2.0.0-{name}.csv.gz": data for name, data in changes.items()}


def test_mimics_three_tables_are_joined(tmp_path):
    source = entry("mimic-cxr")
    found, left_out = read(source, write(tmp_path, mimic()))
    assert [(i.patient_id, i.view_position, i.findings, i.published_split) for i in found.values()] == [
        ("10000032", "PA", "No Finding", "train"),
        ("10000032", "AP", "Pneumonia", "train"),
    ]
    assert list(labels(source, found).values()) == ["Normal", "Pneumonia"]
    assert reasons(left_out) == {
        "not a frontal view": 2,
        "uncertain finding": 1,
        "image without a row": 1,  # its study has no row of labels
        "view position not stated": 1,
    }
    (unlabelled,) = (item for item in left_out if item.reason == "image without a row")
    assert re.match(r"no row of mimic-cxr-2.0.0-chexpert.csv.gz has its study_id", unlabelled.detail)


def test_a_row_of_a_joined_table_that_no_image_asks_for_is_counted(tmp_path):
    (write(tmp_path, mimic()) / "files/p10/p10000032/s53189527/2a2277a9-b0ded155.jpg").unlink()
    _, left_out = read(entry("mimic-cxr"), tmp_path)
    without = sorted(item.path for item in left_out if item.reason == "row without an image")
    assert without == [
        "2a2277a9-b0ded155", "mimic-cxr-2.0.0-chexpert.csv.gz row 3", "mimic-cxr-2.0.0-split.csv.gz row 4",
    ]  # fmt: skip


# ---- PadChest ------------------------------------------------------------------------------------------------------

PADCHEST = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
PADCHEST_COLUMNS = [
    "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
    "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Report", "MethodLabel", "Labels",
]  # fmt: skip


def padchest() -> dict[str, bytes]:
    films = [  # patient, sex, Projection, Labels
        ("839860488694292331637988235681460987", "F", "PA", "['normal']"),
        ("839860488694292331637988235681460987", "F", "L", "['normal']"),
        (
            "313572750430997347502932654319389875",
            "M",
            "AP_horizontal",
            "['pneumonia', 'pleural effusion', 'pneumonia']",
        ),
        ("50783093527901818115970441078916069", "O", "AP", "['COPD signs', 'aortic elongation', '']"),
        ("50783093527901818115970441078916069", "M", "PA", "['unchanged']"),
        ("1", "M", "EXCLUDE", "['exclude']"),
        ("2", "M", "COSTAL", "['rib fracture']"),
        ("3", "None", "PA", "[]"),
    ]
    rows, files = [], {}
    for n, (patient, sex, projection, words) in enumerate(films):
        name = f"216840111366964012819207061112010307142602253_04-014-{n:03d}.png"
        stated = {"ImageID": name, "ImageDir": str(n % 2), "PatientID": patient, "PatientSex_DICOM": sex,
                  "Projection": projection, "Labels": words, "PatientBirth": "1930", "": str(n),
                  "ViewPosition_DICOM": "POSTEROANTERIOR", "Report": "sin hallazg , de interes ."}  # fmt: skip
        rows.append([stated.get(column, "") for column in PADCHEST_COLUMNS])
        files[f"{n % 2}/{name}"] = b""
    return files | {f"{PADCHEST}.gz": gzip.compress(table(PADCHEST_COLUMNS, *rows))}


def test_padchests_lists_of_labels_are_read(tmp_path):
    files = padchest()
    for k in "01":
        inside = {name.partition("/")[2]: data for name, data in files.items() if name.startswith(f"{k}/")}
        write_zip(tmp_path / f"{k}.zip", inside)
    write(tmp_path, {name: data for name, data in files.items() if name.endswith(".gz")})
    source = entry("padchest")
    found, left_out = read(source, tmp_path)
    by_finding = {item.findings: item for item in found.values()}
    assert set(by_finding) == {"normal", "pneumonia|pleural effusion", "COPD signs|aortic elongation", "unchanged"}
    assert by_finding["pneumonia|pleural effusion"].view_position == "AP"
    assert by_finding["normal"].patient_id == "839860488694292331637988235681460987"
    assert by_finding["COPD signs|aortic elongation"].sex == "O"
    read_as = {item.findings: label for item, label in zip(found.values(), labels(source, found).values(), strict=True)}
    assert read_as == {
        "normal": "Normal", "pneumonia|pleural effusion": "Pneumonia", "COPD signs|aortic elongation": None,
        "unchanged": None,
    }  # fmt: skip
    assert reasons(left_out) == {"not a frontal view": 3, "no finding stated": 1}


# ---- VinDr-CXR -----------------------------------------------------------------------------------------------------


def vindr() -> dict[str, bytes]:
    names = ["Aortic enlargement", "Pneumonia", "Tuberculosis", "Other diseases", "No finding"]
    readers = {  # of each film, what its three readers call positive
        "000434271f63a053c4128a0ba6352c7f": ["No finding", "No finding", "No finding"],
        "00053190460d56c53cc3e57321387478": ["Pneumonia", "Pneumonia", "No finding"],
        "0005e8e3701dfb1dd93d53e2ff537b6e": ["Pneumonia", "Tuberculosis", "No finding"],
    }
    train = [
        [image, f"R{n + 8}", *(str(int(name == positive)) for name in names)]
        for image, positives in readers.items()
        for n, positive in enumerate(positives)
    ]
    test = [["002a34c58c5b758217ed1f584ccbcfe9", "0", "1", "0", "0", "0"]]
    pixels = np.zeros((8, 8), np.uint16)
    files = {f"train/{image}.dicom": dicom(pixels) for image in readers}
    return files | {
        f"test/{test[0][0]}.dicom": dicom(pixels),
        "annotations/image_labels_train.csv": table(["image_id", "rad_id", *names], *train),
        "annotations/image_labels_test.csv": table(
            ["image_id", *(name.replace("diseases", "disease") for name in names)], *test
        ),
        "annotations/annotations_train.csv": table(["image_id", "rad_id", "class_name", "x_min"]),
    }


@pytest.mark.parametrize(
    ("agree", "middle"), [("majority", "Pneumonia"), ("any", "Pneumonia|No finding"), ("all", None)]
)
def test_the_readers_of_vindr_are_counted(tmp_path, agree, middle):
    order = {"No finding": "negative", "Pneumonia": "negative"}
    source = entry("vindr-cxr", readers_agree=agree, labels=order)
    found, left_out = read(source, write(tmp_path, vindr()))
    said = {path: "|".join(sorted(item.findings.split("|"))[::-1]) for path, item in found.items()}
    assert said["train/000434271f63a053c4128a0ba6352c7f.dicom"] == "No finding"
    assert said.get("train/00053190460d56c53cc3e57321387478.dicom") == middle
    assert said["test/002a34c58c5b758217ed1f584ccbcfe9.dicom"] == "Pneumonia"
    assert {path.partition("/")[0]: item.published_split for path, item in found.items()} == {
        "train": "train", "test": "test",
    }  # fmt: skip
    counts = reasons(left_out)
    assert counts["not an image file"] == 1
    assert counts["no positive label"] == {"majority": 1, "any": 0, "all": 2}[agree]
    assert all(item.patient_id in path for path, item in found.items())


# ---- words and names -----------------------------------------------------------------------------------------------

LISTE = [
    "Datei;Patient;Diagnose;Projektion;Alter;Geschlecht",
    "Aufnahme 0.jpg;P0;ohne Befund;p.a.;045Y;M",
    "Aufnahme 1.jpg;P0;Pneumonie;AP supine;61;weiblich",
    "Aufnahme 2.jpg;P1;ohne Befund;PA erect;3M;männlich",
    "Aufnahme 3.jpg;P1;Pneumonie;postero-anterior;410;W",
    "Aufnahme 4.jpg;P2;ohne Befund;PA;70;F",
    "Aufnahme 5.jpg;P2;Pneumonie;LAT;;?",
    "Aufnahme 6.jpg;P3;ohne Befund;;55;m",
    "Aufnahme 7.jpg;P3;Pneumonie;a.-p.;80;keins",
    "Aufnahme 8.jpg;P4;Pneumonie;schief;80;Erika Musterfrau",
]
CLINIC = {
    "reader": "table",
    "origin": "/data/klinik",
    "table": "Liste.csv",
    "columns": {
        "path": "Datei", "patient_id": "Patient", "findings": "Diagnose", "view_position": "Projektion",
        "age_years": "Alter", "sex": "Geschlecht",
    },
    "words": {"ohne Befund": "Normal", "Pneumonie": "Pneumonia"},
    "licence": None,
}  # fmt: skip


def clinic(**changes: Any) -> SourceParams:
    return TypeAdapter(SourceParams).validate_python(CLINIC | changes)


def write_clinic(folder: Path) -> Path:
    files = {f"Bilder Köln/Aufnahme {n}.JPG": jpeg(film(n)[0]) for n in range(9)}
    return write(folder, files | {"Liste.csv": "\n".join(LISTE).encode("utf-8-sig")})


def test_a_clinics_words_and_names_are_understood(tmp_path):
    found, left_out = read(clinic(), write_clinic(tmp_path))
    said = [(i.view_position, i.age_years, i.sex) for i in found.values()]
    assert said == [("PA", 45, "M"), ("AP", 61, "F"), ("PA", 0.25, "M"), ("PA", None, "F"), ("PA", 70, "F"),
                    ("AP", 80, None)]  # fmt: skip
    assert {(item.path, item.reason, item.detail) for item in left_out} == {
        ("Bilder Köln/Aufnahme 5.JPG", "not a frontal view", "view 'LAT'"),
        ("Bilder Köln/Aufnahme 6.JPG", "view position not stated", ""),
        ("Bilder Köln/Aufnahme 8.JPG", "view position not understood", "'schief'"),
        ("Liste.csv row 5", "age not understood", "'410'"),
        ("Liste.csv row 9", "sex not understood", "'keins'"),
    }


def test_words_can_be_added(tmp_path):
    source = clinic(view_words={"Schief": "PA", "LAT": "not stated"}, sex_words={"Keins": "not stated"})
    found, left_out = read(source, write_clinic(tmp_path))
    assert found["Bilder Köln/Aufnahme 8.JPG"].view_position == "PA"
    assert reasons(left_out) == {"view position not stated": 2, "age not understood": 1, "sex not understood": 1}


def test_no_cell_of_free_text_is_quoted(tmp_path):
    _, left_out = read(clinic(view_words={"schief": "PA"}), write_clinic(tmp_path))
    assert [item.detail for item in left_out if item.reason == "sex not understood"] == [
        "'keins'", "a cell of 16 characters",
    ]  # fmt: skip


def test_what_ingest_does_not_understand_is_told_and_costs_no_image(tmp_path, capsys):
    ingest(
        "klinik", clinic(), tiny_params().ingest, write_clinic(tmp_path / "raw"), tmp_path / "out", tmp_path / "seen"
    )
    told = capsys.readouterr().out
    assert "klinik: age stated and not understood: '410' (1)" in told
    assert "klinik: view position stated and not understood: 'schief' (1)" in told
    rejected = pd.read_csv(tmp_path / "out/rejected.csv", keep_default_na=False)
    assert "sex not understood" in set(rejected["reason"])
    assert len(read_table(tmp_path / "out/records.parquet", RECORD_COLUMNS)) == 6


# ---- what is wrong -------------------------------------------------------------------------------------------------


def raises(sentence: str, source: SourceParams, root: Path) -> None:
    """Nothing is found before the sentence comes, so that nothing is decoded in vain."""
    items: Iterator[Found | SetAside] = READERS[source.reader](Tree(root), source)
    with pytest.raises(SourceError, match=sentence):
        assert not any(isinstance(item, Found) for item in items)


def test_an_unknown_value_of_a_label_is_one_sentence(tmp_path):
    files = chexpert()
    name = "CheXpert-v1.0-small/train.csv"
    files[name] = files[name].replace(b",-1.0,,,,,,\n", b",0.5,,,,,,\n")
    sentence = (
        r"train\.csv row 5: label Pneumonia is '0\.5'; label_values knows 1\.0 for positive; 0\.0 for "
        r"negative; -1\.0 for uncertain; add it there, or mend the table"
    )
    raises(sentence, entry("chexpert"), write(tmp_path, files))


def test_two_tables_that_disagree_on_a_patient_are_one_sentence(tmp_path):
    rows = [["subject_id", *MIMIC_LABELS[1:]], ["10000033", "50414267", *["1.0"] * 14]]
    root = write(tmp_path, mimic(chexpert=gzip.compress(table(*rows))))
    raises(
        r"metadata\.csv\.gz row 2 and .*chexpert\.csv\.gz row 2 .* disagree on subject_id; mend",
        entry("mimic-cxr"),
        root,
    )


def test_a_key_that_stands_in_two_rows_is_one_sentence(tmp_path):
    rows = [MIMIC_LABELS, *([["10000032", "50414267", *["1.0"] * 14]] * 2)]
    root = write(tmp_path, mimic(chexpert=gzip.compress(table(*rows))))
    raises(r"chexpert\.csv\.gz: rows 2 and 3 have the same study_id; .* remove the repeats", entry("mimic-cxr"), root)


def test_a_key_that_is_missing_is_one_sentence(tmp_path):
    root = write(tmp_path, mimic())
    theirs = [{"table": "mimic-cxr-2.0.0-chexpert.csv", "by": {"study_id": "accession"}}]
    raises(r"chexpert\.csv\.gz: no column accession; found subject_id, study_id", entry("mimic-cxr", join=theirs), root)
    ours = [{"table": "mimic-cxr-2.0.0-chexpert.csv", "by": {"accession": "study_id"}}]
    sentence = r"chexpert\.csv is joined by accession, which is no column of .*metadata\.csv and no group"
    raises(sentence, entry("mimic-cxr", join=ours), root)


def test_a_column_or_table_that_is_nowhere_is_one_sentence(tmp_path):
    root = write(tmp_path, mimic())
    columns = ENTRIES["mimic-cxr"]["columns"]
    raises(
        "no column sex in .*metadata.csv, .*split.csv; found",
        entry("mimic-cxr", columns=columns | {"sex": "sex"}),
        root,
    )
    raises("no files other.csv; params.yaml must name exactly one", entry("mimic-cxr", table="other.csv"), root)
    write(tmp_path, {"copy/mimic-cxr-2.0.0-split.csv": b"dicom_id,split\n"})
    raises("2 files mimic-cxr-2.0.0-split.csv: copy/", entry("mimic-cxr"), root)


def test_a_cut_gzip_is_one_sentence(tmp_path):
    whole = mimic()["mimic-cxr-2.0.0-split.csv.gz"]
    root = write(tmp_path, mimic(split=whole[:-20]))
    raises(r"split\.csv\.gz: not a whole gzip file .*fetch it again", entry("mimic-cxr"), root)


def test_a_study_in_the_path_can_be_the_key(tmp_path):
    files = {
        "p1/s7/a.png": b"",
        "images.csv": b"file\na.png\n",
        "studies.csv": b"exam,who,what\n7,p1,Normal\n8,p2,Normal\n",
    }
    source = TypeAdapter(SourceParams).validate_python(
        {
            "reader": "table", "origin": "/data", "licence": None, "words": {"Normal": "Normal"}, "table": "images.csv",
            "join": [{"table": "studies.csv", "by": {"study": "exam"}}], "extract": [{"pattern": r"/s(?P<study>\d+)/"}],
            "columns": {"path": "file", "patient_id": "who", "findings": "what"},
        }
    )  # fmt: skip
    found, left_out = read(source, write(tmp_path, files))
    assert [(item.patient_id, item.findings) for item in found.values()] == [("p1", "Normal")]
    assert reasons(left_out) == {"row without an image": 1}


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("chexpert", {"extract": [{"pattern": r"patient\d+"}]}, r"extract\.0\.pattern: .*no named group; expected"),
        ("chexpert", {"extract": [{"pattern": r"(?P<who>\d+)"}]}, "groups who; expected .* patient, finding, view"),
        ("chexpert", {"extract": [{"pattern": "(?P<view>"}]}, "not a regular expression"),
        ("chexpert", {"extract": []}, "columns: no patient_id; a column, a group of `extract`"),
        ("chexpert", {"label_values": None}, "labels and label_values: .* give both or neither"),
        ("chexpert", {"labels": {"Edema": "negative"}}, "words does not say what Edema means"),
        ("chexpert", {"labels": {"Pneumonia": "maybe"}}, r"sources\.a\.labels\.Pneumonia: found 'maybe'"),
        ("chexpert", {"label_values": {"positive": [True], "negative": [0]}}, "put them in quotes"),
        ("chexpert", {"label_values": {"positive": [1], "negative": ["1.0"]}}, "is positive and negative; keep one"),
        ("chexpert", {"columns": {"path": "Path", "patient_id": "Path"}}, "patient_id is given twice"),
        ("chexpert", {"columns": {"patient_id": "Path"}}, "columns: no path"),
        ("vindr-cxr", {"labels": {}, "label_values": None}, "readers_agree: .* give labels|no findings"),
        ("padchest", {"view_words": {"P.A.": "PA", "pa": "AP"}}, r"view_words: .*'P\.A\.' and 'pa' are one word"),
        ("padchest", {"view_words": {"x": "sideways"}}, r"sources\.a\.view_words\.x: found 'sideways'"),
        ("radiography-database", {"masks": {"lungs": "masks/"}}, "has no named group that `patient` has too"),
        ("radiography-database", {"patient": "images/"}, r"no group \(\?P<patient>"),
    ],
)  # fmt: skip
def test_params_that_cannot_be_meant_are_one_sentence(tmp_path, name, change, sentence):
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["sources"]["a"] = ENTRIES[name] | change
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=sentence) as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


# ---- folders -------------------------------------------------------------------------------------------------------


def test_folders_can_tell_view_and_split_and_masks_that_fit_nothing_are_named(tmp_path):
    source = TypeAdapter(SourceParams).validate_python(
        {
            "reader": "folders", "origin": "/data", "licence": None, "words": {"sick": "Pneumonia"},
            "patient": r"^(?P<split>[a-z]+)/(?P<finding>\w+)/(?P<name>(?P<patient>p\d+)_\d)_(?P<view>\w*)\.",
            "masks": {"lungs": r"(?i)^masks/(?P<name>p\d+_\d)"}, "view_position": None,
        }
    )  # fmt: skip
    names = ["train/sick/p1_1_PA.png", "test/sick/p2_1_lat.png", "test/sick/p2_2_.png", "holdout/sick/p3_1_PA.png",
             "train/sick/p4_1_AP.png", "test/sick/p4_1_AP.jpg", "masks/P1_1.png", "masks/p1_1.jpg", "masks/p4_1.png",
             "masks/p9_1.png", "masks/else.png", "train/sick/p5_1_xyz.png"]  # fmt: skip
    found, left_out = read(source, write(tmp_path, dict.fromkeys(names, b"")))
    assert {
        (i.path, i.patient_id, i.view_position, i.published_split, i.mask and i.mask.path) for i in found.values()
    } == {
        ("train/sick/p1_1_PA.png", "p1", "PA", "train", "masks/P1_1.png"),
        ("train/sick/p4_1_AP.png", "p4", "AP", "train", None),
        ("test/sick/p4_1_AP.jpg", "p4", "AP", "test", None),
    }
    assert reasons(left_out) == {
        "not a frontal view": 1, "view position not stated": 1, "unknown published split": 1, "another mask": 1,
        "mask fits several images": 1, "mask without an image": 1, "view position not understood": 1,
        "no patient in the path": 1,
    }  # fmt: skip


# ---- raw = used + set aside, with every key of `table` at once ------------------------------------------------------

STEMS = ["a", "b", "c", "d"]
FUZZED = {
    "reader": "table", "origin": "/data", "licence": None, "table": ["one.csv", "two.csv"],
    "join": [{"table": "studies.csv", "by": {"study": "exam"}}, {"table": "people.csv", "by": "who"}],
    "columns": {"path": "file", "patient_id": "who", "age_years": "age", "sex": "sex"},
    "extract": [{"column": "exam", "pattern": r"^s(?P<study>\d)"}, {"pattern": r"_(?P<view>\w+)\."}],
    "labels": {"Normal": "set-aside", "Pneumonia": "positive"},
    "label_values": {"positive": ["x"], "negative": [0], "uncertain": ["?"], "blank": ["NA"]},
    "words": {"Normal": "Normal", "Pneumonia": "Pneumonia"}, "sex_words": {"1": "M"},
}  # fmt: skip


@pytest.mark.parametrize("agree", [None, "majority", "any", "all"])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_file_and_row_of_joined_tables_is_used_or_set_aside(agree, tmp_path_factory, data):
    views = st.sampled_from(["PA", "ap", "lat", "xyz", "na"])
    suffix = st.sampled_from([".png", ".JPG", ".txt"])
    images = data.draw(st.lists(st.builds("{}_{}{}".format, st.sampled_from(STEMS), views, suffix), unique=True))
    named = st.sampled_from([*images, *(name.upper() for name in images), "absent.png", ""])
    row = st.tuples(
        named, st.sampled_from(["s1", "s2", "s9", ""]), st.sampled_from(["x", "0", "0.0", "?", "NA", ""]),
        st.sampled_from(["x", "0", "?", ""]),
    )  # fmt: skip
    firsts = [data.draw(st.lists(row, max_size=6)) for _ in range(2)]
    studies = data.draw(st.lists(st.sampled_from(["1", "2", "3"]), unique=True))
    people = data.draw(st.lists(st.sampled_from(["p1", "p2", "p3"]), unique=True))
    cells = st.sampled_from(["", "57", "410", "M", "weiblich", "1", "x"])
    files = dict.fromkeys(images, b"") | {
        "one.csv": table(["file", "exam", "Normal", "Pneumonia"], *firsts[0]),
        "two.csv": table(["file", "exam", "Normal", "Pneumonia"], *firsts[1]),
        "studies.csv": table(["exam", "who"], *([study, f"p{study}"] for study in studies)),
        "people.csv": table(["who", "age", "sex"], *([who, data.draw(cells), data.draw(cells)] for who in people)),
    }
    source = TypeAdapter(SourceParams).validate_python(FUZZED | {"readers_agree": agree})
    root = write(tmp_path_factory.mktemp("fuzzed"), files)
    items = list(READERS["table"](Tree(root), source))
    items = [item for item in items if not (isinstance(item, SetAside) and item.reason in OF_A_CELL)]
    of_rows = [item for item in items if isinstance(item, SetAside) and re.search(OF_A_ROW, item.reason)]
    of_files = [item.path for item in items if item not in of_rows]
    assert sorted(of_files) == sorted(images)
    joined = [item.path for item in of_rows if item.path.startswith(("studies.csv row", "people.csv row"))]
    assert len(set(joined)) == len(joined) <= len(studies) + len(people)
    for item in items:
        if isinstance(item, Found):
            assert item.patient_id in people
            assert item.patient_id[1:] in studies
            assert set(item.findings.split("|")) <= {"Normal", "Pneumonia"}
            assert item.view_position in {"PA", "AP"}
