"""One way to look at a film: its square, whether it is a frontal chest film, what it measures, what its header says."""

from dataclasses import dataclass

from cxr.params import PixelParams
from cxr.pixels.content import Content, recognise
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import Radiograph, load_radiograph
from cxr.pixels.stated import Note, Stated

__all__ = ["Film", "Note", "Stated", "examine", "look"]

MAX_ASPECT = 4  # times as wide as high; the flattest crops among published films are 3.4


@dataclass(frozen=True)
class Film:
    """What one file shows and says. `descriptors`: see `cxr.pixels.descriptors`."""

    radiograph: Radiograph
    content: Content
    descriptors: dict[str, float]

    @property
    def stated(self) -> Stated:
        return self.radiograph.stated

    @property
    def notes(self) -> tuple[Note, ...]:
        """What must not go unsaid."""
        return self.stated.notes

    def refusal(self, min_content_score: float) -> str | None:
        """Why this is no upright frontal chest film, in words that end a sentence; None where it is one.

        The header's word comes first: it says what the picture can only suggest.
        """
        if self.stated.not_frontal:
            return self.stated.not_frontal
        if self.content.score < min_content_score:
            return self.content.reason or "not clearly an upright frontal chest film"
        return None


def examine(data: bytes, params: PixelParams) -> Film:
    """Look at one PNG, JPEG or single-frame DICOM file. Raises ImageError as `load_radiograph`."""
    return look(load_radiograph(data, params))


def look(radiograph: Radiograph) -> Film:
    """The second half of `examine`, for those who decode many files before they look at any."""
    content = recognise(radiograph.thumb)  # on a thumb, whose shape is always the same
    if not 1 / MAX_ASPECT <= radiograph.width / radiograph.height <= MAX_ASPECT:
        content = Content(0.0, "a strip, far from the shape of a film")
    return Film(radiograph, content, describe(radiograph))
