"""The release that ships: an OpenVINO model beside the facts that describe it, loaded and run without TensorFlow.

`models/release/` holds `model.xml`, `model.bin` and `release.json` (see `ReleaseFacts`).
"""

# ruff: noqa: E402  # usage reports are turned off before the package that sends them is imported

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

# OpenVINO reports its import to Google Analytics wherever it finds this package
sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]

import numpy as np
import openvino as ov

from cxr.errors import CxrError
from cxr.params import PixelParams
from cxr.tasks import TASKS, TaskName

OUTPUTS = ("probabilities", "embedding", "heatmap")


@dataclass(frozen=True)
class ReleaseFacts:
    """What `release.json` says.

    `version`: hash of model and facts. `classes`: in the order of the model's outputs. `pixels`: how
    `load_radiograph` makes the model's square. `operating_points`: threshold per class, chosen on val.
    `self_test`: the probabilities that `self_test_image` must give.
    """

    version: str
    task: TaskName
    classes: list[str]
    pixels: PixelParams
    operating_points: dict[str, float]
    self_test: list[float]


def read_facts(path: Path) -> ReleaseFacts:
    """Raises OSError, ValueError or TypeError where `path` does not hold the facts of a release."""
    values = json.loads(path.read_text())
    return ReleaseFacts(**(values | {"pixels": PixelParams.model_validate(values.get("pixels"))}))


def facts_as_json(facts: ReleaseFacts) -> dict:
    return vars(facts) | {"pixels": facts.pixels.model_dump()}


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


class Release:
    """The released model with its facts; `Release.load` refuses one whose files were changed."""

    def __init__(self, facts: ReleaseFacts, model: OpenVinoModel) -> None:
        self.facts = facts
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> "Release":
        """Raises CxrError where the release is missing, changed, or does not repeat its self-test."""
        try:
            facts = read_facts(folder / "release.json")
        except FileNotFoundError:
            raise CxrError(f"{folder}: no release here; `dvc repro` builds one") from None
        except (ValueError, TypeError) as error:
            raise CxrError(f"{folder}/release.json: not the facts of a release ({error}); run `dvc repro`") from None
        if release_version(folder, facts) != facts.version:
            raise CxrError(f"{folder}: the files are not those of version {facts.version}; run `dvc repro package`")
        release = cls(facts, OpenVinoModel(folder / "model.xml"))
        release.check()
        return release

    @property
    def localises(self) -> bool:
        """Whether the model finds a region instead of telling classes."""
        return TASKS[self.facts.task].localises

    def mask(self, prediction: Prediction, i: int = 0) -> np.ndarray:
        """The pixels of image `i` that are likelier the region's than the background's, bool (size, size)."""
        return prediction.heatmap[i, ..., 1] > prediction.heatmap[i, ..., 0]

    def predicted(self, prediction: Prediction, i: int = 0) -> str:
        """The most probable class of image `i`; of a task that localises, the region where any pixel shows it."""
        scores = [0, self.mask(prediction, i).any()] if self.localises else prediction.probabilities[i]
        return self.facts.classes[int(np.argmax(scores))]

    def check(self) -> None:
        """Raises CxrError unless the self-test image gives the recorded probabilities to 1e-3."""
        found = self.model(self_test_image(self.facts.pixels.size)[np.newaxis]).probabilities[0]
        difference = float(np.abs(found - np.array(self.facts.self_test)).max())
        if difference > 1e-3:
            raise CxrError(f"the self-test differs by {difference:.2g} from version {self.facts.version} (limit 0.001)")


def self_test_image(size: int) -> np.ndarray:
    """A fixed uint8 (size, size) pattern: no patient's image has to ship for the self-test."""
    y, x = np.mgrid[0:size, 0:size] / size
    return np.uint8(127 + 90 * np.sin(7 * x) * np.cos(5 * y))


def release_version(folder: Path, facts: ReleaseFacts) -> str:
    """12 hex digits over the model's files and every fact but the version itself."""
    digest = hashlib.sha256()
    for name in ("model.xml", "model.bin"):
        digest.update((folder / name).read_bytes())
    digest.update(json.dumps(facts_as_json(facts) | {"version": ""}, sort_keys=True).encode())
    return digest.hexdigest()[:12]
