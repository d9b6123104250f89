"""What each reader's words mean in each task."""

import csv
from pathlib import Path
from typing import get_args

import pytest

from cxr.dataset.labels import NIH_FINDINGS, Vocabulary, read_label, vocabulary_of
from cxr.params import FoldersSource, PublishedReader, PublishedSource, TableSource
from cxr.tasks import TASKS, TaskName, Word

REAL = Path(__file__).parents[2] / "shared/real"


def words_of(reader: PublishedReader, *pneumonia_findings: str) -> Vocabulary:
    source = PublishedSource(reader=reader, origin="/data")
    return vocabulary_of(source, pneumonia_findings or ("Pneumonia",))


def test_every_task_reads_the_whole_vocabulary_and_names_its_classes():
    assert set(TASKS) == set(get_args(TaskName))
    for task in TASKS.values():
        assert set(task.reads) == set(get_args(Word))
        assert {name for name in task.reads.values() if name} == (set() if task.region else set(task.classes))


@pytest.mark.parametrize("reader", get_args(PublishedReader))
def test_every_reader_has_words_of_the_vocabulary(reader):
    meanings = words_of(reader).words.values()
    assert set(meanings) <= {*get_args(Word), None}
    assert "Normal" in meanings


@pytest.mark.parametrize(
    ("task", "reader", "finding", "label"),
    [
        ("covid", "kermany", "NORMAL", "Normal"),
        ("covid", "kermany", "PNEUMONIA|virus", "Pneumonia"),
        ("pneumonia-type", "kermany", "PNEUMONIA|virus", "Viral"),
        ("pneumonia-type", "kermany", "PNEUMONIA|bacteria", "Bacterial"),
        ("covid", "nih", "Infiltration|Pneumonia", "Pneumonia"),
        ("covid", "covid", "COVID-19, ARDS", "COVID-19"),
        ("covid", "covid", "Pneumonia/Viral/COVID-19", "COVID-19"),
        ("covid", "covid", "Pneumonia/Viral/Herpes ", "Pneumonia"),
        ("pneumonia-type", "covid", "Pneumonia/Bacterial/Staphylococcus/MRSA", "Bacterial"),
        ("pneumonia-type", "covid", "COVID-19", "Viral"),
        ("covid", "rsna", "Lung Opacity", "Pneumonia"),
        ("covid", "rsna", "Normal", "Normal"),
        ("covid", "covid19-pneumonia-normal", "COVID", "COVID-19"),
        ("pneumonia", "covid19-pneumonia-normal", "PNEUMONIA", "Pneumonia"),
    ],
)
def test_findings_are_read_by_the_table(task, reader, finding, label):
    reading = read_label(TASKS[task], words_of(reader), finding)
    assert (reading.label, reading.reason, reading.unknown) == (label, None, ())


@pytest.mark.parametrize(
    ("task", "reader", "finding", "reason"),
    [
        ("covid", "nih", "Hernia", "no class of the task"),
        ("covid", "rsna", "No Lung Opacity / Not Normal", "no class of the task"),
        ("covid", "covid", "Tuberculosis", "no class of the task"),
        ("pneumonia", "covid", "COVID-19", "no class of the task"),
        ("pneumonia-type", "nih", "Pneumonia", "no class of the task"),
        ("pneumonia-type", "covid", "Pneumonia/Lipoid", "no class of the task"),
        ("covid", "covid", "todo", "finding not stated"),
        ("covid", "covid", "Unknown", "finding not stated"),
        ("covid", "covid", "", "finding not stated"),
        ("covid", "nih", " ", "finding not stated"),
        ("covid", "covid", "COVID-19, Streptococcus", "findings of several classes"),
        ("covid", "nih", "No Finding|Hernia", "findings of several classes"),
        ("covid", "rsna", "Normal|Lung Opacity", "findings of several classes"),
        ("covid", "nih", "Pneumonia|Pnuemonia", "unknown finding"),
        ("covid", "covid", "Pneumonia/Fungal/Yeast", "unknown finding"),
        ("covid", "kermany", "normal", "unknown finding"),
    ],
)
def test_what_names_no_class_is_left_out_with_its_reason(task, reader, finding, reason):
    reading = read_label(TASKS[task], words_of(reader), finding)
    assert (reading.label, reading.reason) == (None, reason)
    assert bool(reading.unknown) == (reason == "unknown finding")


def test_what_of_nih_is_pneumonia_is_a_param():
    alone, wide = words_of("nih"), words_of("nih", "Pneumonia", "Infiltration", "Consolidation")
    task = TASKS["pneumonia"]
    for finding in ("Infiltration", "Consolidation", "Consolidation|Edema"):
        assert read_label(task, alone, finding).label is None
        assert read_label(task, wide, finding).label == "Pneumonia"
    assert read_label(task, wide, "Edema").label is None
    assert read_label(task, wide, "No Finding").label == "Normal"


def test_an_own_source_is_read_by_its_own_words_alone():
    folders = FoldersSource(
        reader="folders", origin="/data", licence=None, patient="(?P<patient>x)", view_position=None,
        words={"01 - healthy, adult": "Normal", "Pneumonia": "COVID-19"},
    )  # fmt: skip
    table = TableSource(
        reader="table", origin="/data", licence=None, table="a.csv", words={"clear": "Normal", "opaque": "Pneumonia"},
        columns={"path": "path", "patient_id": "patient", "findings": "finding"},
    )  # fmt: skip
    task = TASKS["covid"]
    assert read_label(task, vocabulary_of(folders, ["Pneumonia"]), "01 - healthy, adult").label == "Normal"
    assert read_label(task, vocabulary_of(folders, ["Pneumonia"]), "Pneumonia").label == "COVID-19"
    assert read_label(task, vocabulary_of(table, ["Pneumonia"]), "opaque").label == "Pneumonia"
    assert (
        read_label(task, vocabulary_of(table, ["Pneumonia"]), "opaque, clear").reason == "findings of several classes"
    )
    assert read_label(task, vocabulary_of(table, ["Pneumonia"]), "NORMAL").unknown == ("NORMAL",)


@pytest.mark.skipif(not REAL.exists(), reason="needs the real sources")
@pytest.mark.parametrize(
    ("reader", "table", "column"),
    [
        ("nih", "nih/Data_Entry_2017_v2020.csv", "Finding Labels"),
        ("rsna", "rsna/stage_2_detailed_class_info.csv", "class"),
        ("covid", "covid/covid-chestxray-dataset/metadata.csv", "finding"),
        ("covid", "covid/Figure1-COVID-chestxray-dataset/metadata.csv", "finding"),
    ],
)
def test_every_word_of_the_real_tables_is_known(reader, table, column):
    with open(REAL / table, encoding="cp1252", newline="") as file:
        findings = {row[column] for row in csv.DictReader(file)}
    vocabulary = words_of(reader)
    assert len(findings) > 2
    assert {word for finding in findings for word in read_label(TASKS["covid"], vocabulary, finding).unknown} == set()
    if reader == "nih":
        assert {word for finding in findings for word in finding.split("|")} == {*NIH_FINDINGS, "No Finding"}
