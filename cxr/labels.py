"""What a source's words mean in a task: one explicit table per task, never a guess.

A finding is split into words at `|`, `,` and, for hierarchies such as `Pneumonia/Viral/COVID-19`, reduced to its leaf.
Each word maps to a class or to None (known, but no class of this task). An image has a label when its words name
exactly one class; what names none or several is set aside with its count. A word in no table is a fault.
"""

import re
from dataclasses import dataclass

from cxr.params import TaskName


@dataclass(frozen=True)
class Task:
    """`classes` is the order of the model's outputs; `words` maps source -> word -> class or None."""

    name: TaskName
    classes: tuple[str, ...]
    words: dict[str, dict[str, str | None]]


NIH_OTHER = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax", "Consolidation",
    "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
BACTERIA = (
    "Bacterial", "Streptococcus", "Klebsiella", "Mycoplasma Bacterial Pneumonia", "Mycoplasma", "E.Coli", "Legionella",
    "Chlamydophila", "Nocardia", "Staphylococcus", "MRSA",
)  # fmt: skip
VIRUSES = ("Viral", "SARS", "MERS-CoV", "Varicella", "Influenza", "H1N1", "Herpes")
OTHER_PNEUMONIA = ("Pneumonia", "Pneumocystis", "Lipoid", "Aspergillosis", "Fungal", "Aspiration")
# not stated (`todo`, empty), not a cause (ARDS is a course that many causes take), or not pneumonia
UNDECIDED = ("todo", "Unknown", "", "ARDS", "Tuberculosis")


def _covid_words(
    bacterial: str | None, viral: str | None, other: str | None, covid_19: str | None
) -> dict[str, str | None]:
    return {
        **dict.fromkeys(BACTERIA, bacterial),
        **dict.fromkeys(VIRUSES, viral),
        **dict.fromkeys(OTHER_PNEUMONIA, other),
        **dict.fromkeys(UNDECIDED, None),
        "COVID-19": covid_19,
        "No Finding": "Normal",
        "No finding": "Normal",
    }


def _nih_words(pneumonia: str | None) -> dict[str, str | None]:
    return {**dict.fromkeys(NIH_OTHER, None), "Pneumonia": pneumonia, "No Finding": "Normal"}


def _kermany_words(pneumonia: str | None, bacteria: str | None, virus: str | None) -> dict[str, str | None]:
    return {"NORMAL": "Normal", "PNEUMONIA": pneumonia, "bacteria": bacteria, "virus": virus}


TASKS: dict[TaskName, Task] = {
    task.name: task
    for task in (
        Task(
            "covid",
            ("Normal", "Pneumonia", "COVID-19"),
            {
                "kermany": _kermany_words("Pneumonia", None, None),
                "nih": _nih_words("Pneumonia"),
                "covid": _covid_words("Pneumonia", "Pneumonia", "Pneumonia", "COVID-19"),
            },
        ),
        Task(
            "pneumonia",
            ("Normal", "Pneumonia"),
            {
                "kermany": _kermany_words("Pneumonia", None, None),
                "nih": _nih_words("Pneumonia"),
                # COVID-19 is set aside: the collections state the infection, not whether the film shows pneumonia
                "covid": _covid_words("Pneumonia", "Pneumonia", "Pneumonia", None),
            },
        ),
        Task(
            "pneumonia-type",
            ("Normal", "Bacterial", "Viral"),
            {
                "kermany": _kermany_words(None, "Bacterial", "Viral"),
                "nih": _nih_words(None),  # the type is not stated
                "covid": _covid_words("Bacterial", "Viral", None, "Viral"),
            },
        ),
    )
}


@dataclass(frozen=True)
class Reading:
    """The label of a finding, or None with the reason; `unknown` holds words that stand in no table."""

    label: str | None
    reason: str = ""
    unknown: tuple[str, ...] = ()


def read_label(task: Task, source: str, findings: str) -> Reading:
    """What `findings`, in the words of `source`, mean in `task`."""
    table = task.words[source]
    words = [part.strip().rpartition("/")[2] for part in re.split(r"[|,]", findings)]
    unknown = tuple(word for word in words if word not in table)
    if unknown:
        return Reading(None, "unknown finding", unknown)
    classes = {table[word] for word in words} - {None}
    if len(classes) > 1:
        return Reading(None, "findings of several classes")
    return Reading(classes.pop()) if classes else Reading(None, "no class of the task")
