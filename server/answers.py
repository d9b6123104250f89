# The types of OpenCV leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportCallIssue=false
"""What the service says: of one film, and of the release that answers."""

import base64

import cv2
import numpy as np
from pydantic import BaseModel, Field

from cxr.errors import ImageError
from cxr.pixels.canonical import keeps_whole
from cxr.pixels.examine import Film, examine
from cxr.release.facts import ReleaseFacts, TrainAges
from cxr.release.model import FilmAnswer
from server.limits import MAX_BYTES
from server.refusals import RefusedError

OVERLAY_BGR = (0, 106, 255)  # orange, as the legend of the page: `--evidence` in web/style.css


class Caution(BaseModel):
    """What a person must know beside an answer."""

    code: str = Field(description="for programs, as in `age_outside_training`")
    sentence: str = Field(description="for a person")


class Answer(BaseModel):
    """One prediction."""

    request_id: str = Field(description="UUID; also in the header X-Request-Id and in the prediction log")
    model_version: str
    task: str
    predicted: str = Field(
        description="the class with the highest probability; of a task that localises, the region where any pixel "
        "shows it, else `Background`"
    )
    probabilities: dict[str, float] = Field(
        description="per class; they add up to 1. Of a task that localises: the share of the square that each covers"
    )
    operating_points: dict[str, float] = Field(
        description="per class: the threshold chosen on the val split; of a task that localises, that of a pixel"
    )
    warnings: list[Caution] = Field(description="read them before the answer; empty where there is nothing to say")
    age_years: float | None = Field(None, description="what the DICOM header says, where it says")
    burned_in: bool | None = Field(
        None, description="whether the DICOM header says that letters are part of the pixels, where it says"
    )
    square: str | None = Field(None, description="how the image was fitted into the model's square")
    whole: bool | None = Field(None, description="whether that square shows all of the file, and nothing was cut off")
    image: str | None = Field(None, description="data URI: the square that the model read, grey PNG")
    heatmap: str | None = Field(
        None,
        description="data URI: evidence for `predicted`, or the region that was found, RGBA PNG to lay over `image`",
    )
    mask: str | None = Field(
        None, description="data URI, of a task that localises: that region in `image`, grey PNG, 0 outside, 255 inside"
    )


class Facts(BaseModel):
    """The release that answers."""

    version: str
    task: str
    classes: list[str]
    size: int = Field(description="pixels a side of the square that the model reads")
    square: str
    max_megapixels: float
    max_bytes: int = Field(description="largest request body")
    min_content_score: float = Field(description="below, an image is refused as no upright frontal chest film")
    train_ages: TrainAges
    operating_points: dict[str, float]


def describe_release(facts: ReleaseFacts) -> Facts:
    """What a client needs to know of the release."""
    pixels = facts.pixels
    shared = {name: getattr(facts, name) for name in Facts.model_fields if name in ReleaseFacts.model_fields}
    return Facts(
        **shared,
        size=pixels.size,
        square=pixels.square,
        max_megapixels=pixels.max_megapixels,
        max_bytes=MAX_BYTES,
    )


def accepted_film(data: bytes, facts: ReleaseFacts) -> Film:
    """The film in an uploaded file. Raises RefusedError where it cannot be read or is no frontal chest film."""
    try:
        film = examine(data, facts.pixels)
    except ImageError as error:
        raise RefusedError(422, "image", f"the image cannot be read: {error}") from None
    if film.refusal(facts.min_content_score) is None:
        return film
    if film.stated.not_frontal:
        reason, why = "header", f"the header says that {film.stated.not_frontal}"
    elif film.content.reason:
        reason, why = "content", f"it seems to be {film.content.reason}"
    else:  # the limit of the release is above the score from which the content check sees nothing else
        score = f"{film.content.score:.2f} of 1, and {facts.min_content_score:g} is needed"
        reason, why = "content", f"the content check gives it {score}"
    raise RefusedError(
        422,
        reason,
        f"the image is no upright frontal chest film: {why}; send one PA or AP film of the whole chest, upright",
    )


def build_answer(facts: ReleaseFacts, film: Film, found: FilmAnswer, request_id: str, with_pictures: bool) -> Answer:
    """`with_pictures`: also the square that the model read, and what to lay over it."""
    answer = Answer(
        request_id=request_id,
        model_version=facts.version,
        task=facts.task,
        predicted=found.predicted,
        probabilities=found.probabilities,
        operating_points=facts.operating_points,
        warnings=[Caution(code=note.code, sentence=note.sentence) for note in found.notes],
        age_years=film.stated.age_years,
        burned_in=film.stated.burned_in,
    )
    if with_pictures:
        answer.square = facts.pixels.square
        answer.whole = keeps_whole(facts.pixels)
        answer.image = data_uri(film.radiograph.image)
        answer.heatmap = data_uri(overlay(found.evidence if found.mask is None else found.mask, facts.pixels.size))
        answer.mask = None if found.mask is None else data_uri(np.uint8(255) * found.mask)
    return answer


def overlay(evidence: np.ndarray, size: int) -> np.ndarray:
    """Draw one class's evidence, float32 (h, w), or a mask, bool (h, w), as an overlay, uint8 BGRA (size, size, 4).

    One colour, whose opacity is the evidence for the class as a share of the largest: the radiograph stays visible
    below. Evidence against the class is not drawn; where nothing speaks for it the overlay is transparent.
    """
    positive = np.maximum(evidence, 0)
    share = np.uint8(255 * positive / max(float(positive.max()), 1e-9))
    drawn = np.empty((size, size, 4), np.uint8)
    drawn[..., :3] = OVERLAY_BGR
    drawn[..., 3] = cv2.resize(share, (size, size), interpolation=cv2.INTER_LINEAR)
    return drawn


def data_uri(pixels: np.ndarray) -> str:
    """uint8 pixels, grey or BGRA, as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
