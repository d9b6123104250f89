# Words that a person wrote become the words of the vocabulary here.
# pyright: reportArgumentType=false
"""What a source's words mean in a task: each reader's table maps them onto one vocabulary, and each task reads that.

The vocabulary is `cxr.tasks.Word`. A word in no table is a fault, never a guess. An image has a label where its words
name exactly one class of the task. Normal stands alone: beside any other finding it contradicts itself.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cxr.params import OwnSource, SourceParams, TableSource
from cxr.tasks import Task, Word

NOT_STATED = "finding not stated"
NO_CLASS = "no class of the task"
SEVERAL = "findings of several classes"
UNKNOWN = "unknown finding"


@dataclass(frozen=True)
class Vocabulary:
    """How one source writes: `split` cuts a finding into words, `words` gives each its meaning, None for not stated.

    `others`: what every other word means; None where it is unknown.
    """

    split: Callable[[str], list[str]]
    words: Mapping[str, Word | None]
    others: Word | None = None


KERMANY: dict[str, Word | None] = {
    "NORMAL": "Normal",
    "PNEUMONIA": "Pneumonia",
    "bacteria": "Bacterial pneumonia",
    "virus": "Viral pneumonia",
}
NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
BACTERIA = (
    "Bacterial", "Streptococcus", "Klebsiella", "Mycoplasma Bacterial Pneumonia", "Mycoplasma", "E.Coli", "Legionella",
    "Chlamydophila", "Nocardia", "Staphylococcus", "MRSA",
)  # fmt: skip
VIRUSES = ("Viral", "SARS", "MERS-CoV", "Varicella", "Influenza", "H1N1", "Herpes")
OTHER_PNEUMONIA = ("Pneumonia", "Pneumocystis", "Lipoid", "Aspergillosis", "Fungal", "Aspiration")
COVID: dict[str, Word | None] = {
    **dict.fromkeys(BACTERIA, "Bacterial pneumonia"),
    **dict.fromkeys(VIRUSES, "Viral pneumonia"),
    **dict.fromkeys(OTHER_PNEUMONIA, "Pneumonia"),
    **dict.fromkeys(("ARDS", "Tuberculosis"), "Other"),  # ARDS is a course that many causes take
    **dict.fromkeys(("todo", "Unknown"), None),
    "COVID-19": "COVID-19",
    **dict.fromkeys(("No Finding", "No finding"), "Normal"),
}
RSNA: dict[str, Word | None] = {
    "Normal": "Normal",
    "Lung Opacity": "Pneumonia",  # that of the challenge: an opacity that the radiologists held for pneumonia
    "No Lung Opacity / Not Normal": "Other",
}
COVID19_PNEUMONIA_NORMAL: dict[str, Word | None] = {"COVID": "COVID-19", "NORMAL": "Normal", "PNEUMONIA": "Pneumonia"}


def whole(finding: str) -> list[str]:
    return [finding.strip()]


def at_bars(finding: str) -> list[str]:
    return [word.strip() for word in finding.split("|")]


def at_bars_and_commas(finding: str) -> list[str]:
    return [word.strip() for word in re.split(r"[|,]", finding)]


def leaves(finding: str) -> list[str]:
    """`COVID-19` of `Pneumonia/Viral/COVID-19`; several are separated by commas."""
    return [word.rpartition("/")[2].strip() for word in finding.split(",")]


def vocabulary_of(source: SourceParams, pneumonia_findings: Collection[str]) -> Vocabulary:
    """The words of `source`; `pneumonia_findings` are those of NIH's text-mined words that are read as pneumonia."""
    if isinstance(source, OwnSource):
        others = source.other_words if isinstance(source, TableSource) else None
        return Vocabulary(whole if source.reader == "folders" else at_bars_and_commas, source.words, others)
    if source.reader == "nih":
        meanings = {word: "Pneumonia" if word in pneumonia_findings else "Other" for word in NIH_FINDINGS}
        return Vocabulary(at_bars, {**meanings, "No Finding": "Normal"})
    return {
        "kermany": Vocabulary(at_bars, KERMANY),
        "covid": Vocabulary(leaves, COVID),
        "rsna": Vocabulary(at_bars, RSNA),
        "covid19-pneumonia-normal": Vocabulary(whole, COVID19_PNEUMONIA_NORMAL),
    }[source.reader]


@dataclass(frozen=True)
class Reading:
    """The label of a finding, or None with the reason. `words`: what the finding says; `unknown`: those in no table."""

    label: str | None
    reason: str | None
    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def read_label(task: Task, vocabulary: Vocabulary, finding: str) -> Reading:
    """What `finding`, in the words of its source, means in `task`. An empty finding states nothing."""
    words = tuple(dict.fromkeys(vocabulary.split(finding))) if finding.strip() else ("",)
    unknown = tuple(word for word in words if word and word not in vocabulary.words and vocabulary.others is None)
    if unknown:
        return Reading(None, UNKNOWN, words, unknown)
    stated = {vocabulary.words.get(word, vocabulary.others) for word in words if word} - {None}
    classes = {task.reads[word] for word in stated} - {None}
    if not stated:
        return Reading(None, NOT_STATED, words)
    if len(classes) > 1 or ("Normal" in stated and len(stated) > 1):
        return Reading(None, SEVERAL, words)
    return Reading(classes.pop(), None, words) if classes else Reading(None, NO_CLASS, words)
