"""One way to look at a film: its square, whether it is a frontal chest film, what it measures, what its header says."""

from dataclasses import dataclass

from cxr.params import PixelParams
from cxr.pixels.content import Content, recognise
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import Radiograph, load_radiograph


@dataclass(frozen=True)
class Note:
    """What a person must know beside an answer. `code`: for programs, as in `burned_in_text`; `sentence`: for them."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Stated:
    """What a file's header says of the film; None where it does not say. PNG and JPEG say nothing.

    `view_position`: PA, AP, LL as in DICOM. `burned_in`: whether letters are part of the pixels. `sex`: M, F or O.
    """

    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    age_years: float | None = None
    sex: str | None = None
    burned_in: bool | None = None


@dataclass(frozen=True)
class Film:
    """What one file shows and says. `descriptors`: see `cxr.pixels.descriptors`. `notes`: what must not go unsaid."""

    radiograph: Radiograph
    content: Content
    descriptors: dict[str, float]
    stated: Stated = Stated()
    notes: tuple[Note, ...] = ()

    def refusal(self, min_content_score: float) -> str | None:
        """Why this is no upright frontal chest film, in words that end a sentence; None where it is one."""
        if self.content.score < min_content_score:
            return self.content.reason or "not clearly an upright frontal chest film"
        return None


def examine(data: bytes, params: PixelParams) -> Film:
    """Look at one PNG, JPEG or single-frame DICOM file. Raises ImageError as `load_radiograph`."""
    radiograph = load_radiograph(data, params)
    return Film(radiograph, recognise(radiograph.thumb), describe(radiograph))
