"""What a release says of itself: `release.json`, beside the model. Reading it needs no model."""

import hashlib
import json
from pathlib import Path

from pydantic import Field, ValidationError

from cxr.errors import CxrError
from cxr.files import write_json
from cxr.params import PixelParams, Section, Share, fault
from cxr.tasks import TaskName

MODEL_FILES = ("model.xml", "model.bin")


class TrainAges(Section):
    """The ages that the images of the train split state. Without any, `youngest` and `oldest` are None."""

    images: int = Field(ge=0, description="of the train split")
    stated: int = Field(ge=0, description="of these: how many state an age")
    youngest: float | None = Field(description="years")
    oldest: float | None = Field(description="years")


class ReleaseFacts(Section):
    """What `release.json` says."""

    version: str = Field(description="hash of the model's files and of every other fact")
    task: TaskName
    classes: list[str] = Field(description="in the order of the model's outputs")
    pixels: PixelParams = Field(description="how `load_radiograph` makes the model's square")
    min_content_score: Share = Field(description="below, an image is refused as no frontal chest film, as in ingest")
    train_ages: TrainAges
    operating_points: dict[str, float] = Field(description="threshold per class, chosen on val")
    self_test: list[float] = Field(description="the probabilities that `self_test_image` must give")
    parity_tolerance: float = Field(gt=0, description="largest difference from what Keras answered, of any output")


def read_facts(release: Path) -> ReleaseFacts:
    """The facts of the release in the folder `release`. Raises CxrError where there are none."""
    path = release / "release.json"
    try:
        return ReleaseFacts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CxrError(f"{release}: no release here; `dvc repro` builds one") from None
    except ValidationError as error:
        faults = "; ".join(fault(each) for each in error.errors())
        raise CxrError(f"{path}: not the facts of a release ({faults}); run `dvc repro package`") from None


def write_facts(facts: ReleaseFacts, release: Path) -> ReleaseFacts:
    """Write the facts beside the model's files, with the version that follows from both, and return them."""
    facts = facts.model_copy(update={"version": release_version(release, facts)})
    write_json(release / "release.json", facts.model_dump(mode="json"))
    return facts


def release_version(release: Path, facts: ReleaseFacts) -> str:
    """12 hex digits over the model's files and every fact but the version itself."""
    digest = hashlib.sha256()
    for name in MODEL_FILES:
        digest.update((release / name).read_bytes())
    digest.update(json.dumps(facts.model_dump(mode="json") | {"version": ""}, sort_keys=True).encode())
    return digest.hexdigest()[:12]
