"""Real releases, small enough to build in a test: a two-convolution OpenVINO model with random weights, and one that
finds a region by a threshold."""

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset15 as op

from cxr.params import load_params
from cxr.release.facts import ReleaseFacts, TrainAges, write_facts
from cxr.release.model import OUTPUTS, OpenVinoModel, self_test_image
from cxr.tasks import TaskName

CLASSES = ["Normal", "Pneumonia", "COVID-19"]


WHOLE = {"square": "letterbox", "crop": "none", "margin": 0.0, "grey": "none", "reencode": 0}
ADULTS = TrainAges(images=100, stated=40, youngest=18, oldest=90)


def build_release(
    folder: Path,
    size: int = 64,
    seed: int = 0,
    min_content_score: float = 0,
    train_ages: TrainAges = ADULTS,
    **pixels: object,
) -> Path:
    """Write `model.xml`, `model.bin` and `release.json` into `folder`, as `package` does, and return it.

    The model reads the whole file but for what `pixels` says. It refuses nothing by its look unless told to: what tests
    draw in a line or two looks like no chest.
    """
    points = {"Normal": 0.5, "Pneumonia": 0.35, "COVID-19": 0.25}
    model = _model(size, np.random.default_rng(seed))
    return _write(folder, model, "covid", points, size, pixels, min_content_score, train_ages)


def build_region_release(folder: Path, size: int = 64) -> Path:
    """A release that finds as `Lungs` every pixel darker than grey level 100."""
    return _write(folder, _threshold(size), "localise-lungs", {"Background": 0.5, "Lungs": 0.5}, size, {}, 0, ADULTS)


def _write(
    folder: Path,
    model: ov.Model,
    task: TaskName,
    points: dict[str, float],
    size: int,
    pixels: dict[str, object],
    min_content_score: float,
    train_ages: TrainAges,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    probabilities = OpenVinoModel(folder / "model.xml")(self_test_image(size)[np.newaxis]).probabilities[0]
    facts = ReleaseFacts(
        version="",
        task=task,
        classes=list(points),
        pixels=load_params().ingest.pixels.model_copy(update={"size": size, "max_megapixels": 4.0} | WHOLE | pixels),
        min_content_score=min_content_score,
        train_ages=train_ages,
        operating_points=points,
        self_test=[float(p) for p in probabilities],
        parity_tolerance=load_params().package.parity_tolerance,
    )
    write_facts(facts, folder)
    return folder


def _model(size: int, rng: np.random.Generator) -> ov.Model:
    """uint8 (n, size, size, 1) in; its heatmap's mean over h, w is the logit, as in the trained model."""
    features, patch = 8, size // 8
    images = op.parameter([-1, size, size, 1], np.uint8, name="images")
    scaled = op.multiply(op.convert(images, np.float32), np.float32(1 / 255))
    planes = op.transpose(scaled, [0, 3, 1, 2])
    filters = rng.normal(size=(features, 1, patch, patch)).astype(np.float32) / patch
    maps = op.relu(op.convolution(planes, filters, [patch, patch], [0, 0], [0, 0], [1, 1]))
    head = rng.normal(size=(len(CLASSES), features, 1, 1)).astype(np.float32)
    evidence = op.transpose(op.convolution(maps, head, [1, 1], [0, 0], [0, 0], [1, 1]), [0, 2, 3, 1])
    return _named([op.softmax(op.reduce_mean(evidence, [1, 2]), -1), op.reduce_mean(maps, [2, 3]), evidence], images)


def _threshold(size: int) -> ov.Model:
    """uint8 (n, size, size, 1) in; the logits of each pixel, and the mean of their softmax, as of the trained U-Net."""
    images = op.parameter([-1, size, size, 1], np.uint8, name="images")
    grey = op.convert(images, np.float32)
    half = op.multiply(op.subtract(grey, np.float32(100)), np.float32(0.05))
    heatmap = op.concat([half, op.multiply(half, np.float32(-1))], -1)
    return _named([op.reduce_mean(op.softmax(heatmap, -1), [1, 2]), op.reduce_mean(grey, [1, 2]), heatmap], images)


def _named(results: list[ov.Node], images: ov.Node) -> ov.Model:
    for name, result in zip(OUTPUTS, results, strict=True):
        result.output(0).set_names({name})
    return ov.Model(results, [images], "tiny")  # pyright: ignore[reportGeneralTypeIssues]  # its stubs bind wrongly
