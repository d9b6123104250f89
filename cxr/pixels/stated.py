"""What a file's header says of its film, beyond the pixels."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """What a person must know beside an answer. `code`: for programs, as in `burned_in_text`; `sentence`: for them."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Stated:
    """What a file's header says of the film; None where it does not say. PNG and JPEG say nothing.

    `view_position`: PA, AP, LL as in DICOM. `burned_in`: whether letters are part of the pixels. `sex`: M, F or O.
    `not_frontal`: what in it says that this is no frontal chest film, in words that end a sentence. `notes`: what in it
    must not go unsaid.
    """

    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    age_years: float | None = None
    sex: str | None = None
    burned_in: bool | None = None
    not_frontal: str | None = None
    notes: tuple[Note, ...] = ()


NOTHING = Stated()
