# The types of NumPy leave open what a call takes and gives.
# pyright: reportReturnType=false
"""The release that ships: an OpenVINO model beside the facts that describe it, loaded and run without TensorFlow.

`models/release/` holds `model.xml`, `model.bin` and `release.json` (see `cxr.release.facts`).
"""

# ruff: noqa: E402  # usage reports are turned off before the package that sends them is imported

import sys
from dataclasses import dataclass
from pathlib import Path

# OpenVINO reports its import to Google Analytics wherever it finds this package
sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]

import numpy as np
import openvino as ov

from cxr.errors import CxrError
from cxr.pixels.examine import Film, Note
from cxr.release.facts import ReleaseFacts, TrainAges, read_facts, release_version
from cxr.tasks import TASKS

OUTPUTS = ("probabilities", "embedding", "heatmap")


@dataclass(frozen=True)
class Prediction:
    """Model outputs for n images.

    `probabilities`: float32 (n, classes), rows sum to 1. `embedding`: float32 (n, d). `heatmap`: float32
    (n, h, w, classes), each class's evidence by place, unbounded; its mean over h, w is the class's logit.

    Of a task that localises, `heatmap` is (n, size, size, 2), the logits of each pixel, and `probabilities` are the
    shares of the image that background and region cover.
    """

    probabilities: np.ndarray
    embedding: np.ndarray
    heatmap: np.ndarray


class OpenVinoModel:
    """A compiled model: uint8 (n, size, size, 1) in, OUTPUTS out. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        core = ov.Core()
        # bfloat16 is the default where the CPU has it and moves probabilities by up to 1e-2
        self._compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._ports = {name: self._port(name) for name in OUTPUTS}

    def _port(self, name: str):
        for output in self._compiled.outputs:
            if name in output.get_names():
                return output
        raise CxrError(f"the OpenVINO model has no output named {name}; export it again with `dvc repro package`")

    def __call__(self, images: np.ndarray) -> Prediction:
        """Run uint8 (n, size, size) images."""
        results = self._compiled.create_infer_request().infer({0: images[..., np.newaxis]})
        return Prediction(**{name: np.array(results[port], np.float32) for name, port in self._ports.items()})


@dataclass(frozen=True)
class FilmAnswer:
    """What the release says of one film.

    `predicted`: the most probable class; of a task that localises, the region where any pixel shows it, else the
    background. `probabilities`: of each class, 0 to 1. `embedding`: float32 (d,). `evidence`: float32 (h, w), for
    `predicted`, by place. `mask`: bool (size, size), of a task that localises: the pixels that are likelier the
    region's than the background's; else None. `notes`: what a person must know beside the answer.
    """

    predicted: str
    probabilities: dict[str, float]
    embedding: np.ndarray
    evidence: np.ndarray
    mask: np.ndarray | None
    notes: tuple[Note, ...]


class Release:
    """The released model with its facts; `Release.load` refuses one whose files were changed."""

    def __init__(self, facts: ReleaseFacts, model: OpenVinoModel) -> None:
        self.facts = facts
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> "Release":
        """Raises CxrError where the release is missing, changed, or does not repeat its self-test."""
        facts = read_facts(folder)
        if release_version(folder, facts) != facts.version:
            raise CxrError(f"{folder}: the files are not those of version {facts.version}; run `dvc repro package`")
        release = cls(facts, OpenVinoModel(folder / "model.xml"))
        release.check()
        return release

    @property
    def localises(self) -> bool:
        """Whether the model finds a region instead of telling classes."""
        return TASKS[self.facts.task].localises

    def answer(self, film: Film) -> FilmAnswer:
        """What the model and the facts say of a film that `Film.refusal` does not refuse."""
        prediction = self.model(film.radiograph.image[np.newaxis])
        probabilities, heatmap = prediction.probabilities[0], prediction.heatmap[0]
        mask = heatmap[..., 1] > heatmap[..., 0] if self.localises else None
        best = int(probabilities.argmax() if mask is None else mask.any())
        age = age_note(film.stated.age_years, self.facts.train_ages)
        return FilmAnswer(
            predicted=self.facts.classes[best],
            probabilities=dict(zip(self.facts.classes, probabilities.tolist(), strict=True)),
            embedding=prediction.embedding[0],
            evidence=heatmap[..., best],
            mask=mask,
            notes=(*film.notes, age) if age else film.notes,
        )

    def check(self) -> None:
        """Raises CxrError unless the self-test image gives the recorded probabilities."""
        found = self.model(self_test_image(self.facts.pixels.size)[np.newaxis]).probabilities[0]
        difference = float(np.abs(found - np.array(self.facts.self_test)).max())
        tolerance = self.facts.parity_tolerance
        if not difference <= tolerance:  # a NaN is no parity either
            raise CxrError(
                f"the self-test differs by {difference:.2g} from version {self.facts.version} (limit {tolerance:g})"
            )


def age_note(age_years: float | None, trained: TrainAges) -> Note | None:
    """What to say where a film states an age that the model was not trained on, or may not have been."""
    if age_years is None:
        return None
    months = round(age_years * 12)
    says = f"the header says {_years(age_years)} years" if age_years >= 2 else f"the header says {months} months"
    if trained.youngest is None or trained.oldest is None:
        unknown = "no training film states an age, so nobody knows whether the model has seen this age"
        return Note("age_unknown_in_training", f"{says}; {unknown}")
    if trained.youngest <= age_years <= trained.oldest:
        return None
    return Note(
        "age_outside_training",
        f"{says}; the training films that state an age are of "
        f"{_years(trained.youngest)} to {_years(trained.oldest)} years",
    )


def _years(years: float) -> str:
    return f"{round(years, 1):g}"


def self_test_image(size: int) -> np.ndarray:
    """A fixed uint8 (size, size) pattern: no patient's image has to ship for the self-test."""
    y, x = np.mgrid[0:size, 0:size] / size
    return np.uint8(127 + 90 * np.sin(7 * x) * np.cos(5 * y))
