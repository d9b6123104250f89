"""The tasks: their classes in the order of the model's outputs, and which of them localise.

`cxr.dataset.labels` maps every source's words onto one vocabulary, `Word`; a task says which class each of these words
is. A task that localises reads masks instead. Its classes are the background and a region; every pixel is one of the
two, and an image's label says whether its mask shows any of the region.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Word = Literal["Normal", "Pneumonia", "Bacterial pneumonia", "Viral pneumonia", "COVID-19", "Other"]
Region = Literal["lungs", "opacities"]
TaskName = Literal["covid", "pneumonia", "pneumonia-type", "localise-lungs", "localise-opacities"]

BACKGROUND = "Background"


@dataclass(frozen=True)
class Task:
    """`classes` is the order of the model's outputs; `reads` gives each word of the vocabulary its class, or None.

    `region`: what a task that localises finds; its classes are BACKGROUND and this.
    """

    name: TaskName
    classes: tuple[str, ...]
    reads: Mapping[Word, str | None]
    region: Region | None = None

    @property
    def localises(self) -> bool:
        """Whether the model finds a region instead of telling classes."""
        return self.region is not None

    @property
    def needed(self) -> tuple[str, ...]:
        """The classes that every split must have; a task that localises needs no image without the region."""
        return self.classes[1:] if self.region else self.classes


def localisation(name: TaskName, region: Region, shown: str) -> Task:
    """`shown`: the region as a class."""
    return Task(name, (BACKGROUND, shown), dict.fromkeys(get_args(Word)), region)


TASKS: dict[TaskName, Task] = {
    task.name: task
    for task in (
        Task(
            "covid",
            ("Normal", "Pneumonia", "COVID-19"),
            {
                "Normal": "Normal",
                "Pneumonia": "Pneumonia",
                "Bacterial pneumonia": "Pneumonia",
                "Viral pneumonia": "Pneumonia",
                "COVID-19": "COVID-19",
                "Other": None,
            },
        ),
        Task(
            "pneumonia",
            ("Normal", "Pneumonia"),
            {
                "Normal": "Normal",
                "Pneumonia": "Pneumonia",
                "Bacterial pneumonia": "Pneumonia",
                "Viral pneumonia": "Pneumonia",
                "COVID-19": None,  # the collections state the infection, not whether the film shows pneumonia
                "Other": None,
            },
        ),
        Task(
            "pneumonia-type",
            ("Normal", "Bacterial", "Viral"),
            {
                "Normal": "Normal",
                "Pneumonia": None,  # of a type not stated, or neither: fungal, lipoid, aspirated
                "Bacterial pneumonia": "Bacterial",
                "Viral pneumonia": "Viral",
                "COVID-19": "Viral",
                "Other": None,
            },
        ),
        localisation("localise-lungs", "lungs", "Lungs"),
        localisation("localise-opacities", "opacities", "Opacity"),
    )
}
