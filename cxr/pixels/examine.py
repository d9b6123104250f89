"""One way to look at a film: its square, whether it is a frontal chest film, what it measures, what its header says."""

from dataclasses import dataclass

from cxr.params import PixelParams
from cxr.pixels.content import Content, recognise
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import Radiograph, load_radiograph
from cxr.pixels.stated import Note, Stated

__all__ = ["Film", "Note", "Stated", "examine", "look"]


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
    return Film(radiograph, recognise(radiograph.thumb), describe(radiograph))
