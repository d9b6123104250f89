"""A real release, small enough to build in a test: a two-convolution OpenVINO model with random weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset15 as op

from cxr.inference import OUTPUTS, OpenVinoModel, ReleaseFacts, facts_as_json, release_version, self_test_image
from cxr.params import load_params

CLASSES = ["Normal", "Pneumonia", "COVID-19"]


WHOLE = {"square": "letterbox", "crop": "none", "margin": 0.0, "grey": "none", "reencode": 0}


def build_release(folder: Path, size: int = 64, seed: int = 0, **pixels: object) -> Path:
    """Write `model.xml`, `model.bin` and `release.json` into `folder`, as `package` does, and return it.

    The model reads the whole file but for what `pixels` says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(_model(size, np.random.default_rng(seed)), folder / "model.xml", compress_to_fp16=False)
    probabilities = OpenVinoModel(folder / "model.xml")(self_test_image(size)[np.newaxis]).probabilities[0]
    facts = ReleaseFacts(
        version="",
        task="covid",
        classes=CLASSES,
        pixels=load_params().ingest.pixels.model_copy(update={"size": size, "max_megapixels": 4.0} | WHOLE | pixels),
        operating_points={"Normal": 0.5, "Pneumonia": 0.35, "COVID-19": 0.25},
        self_test=[float(p) for p in probabilities],
    )
    facts = replace(facts, version=release_version(folder, facts))
    (folder / "release.json").write_text(json.dumps(facts_as_json(facts)))
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
    results = (op.softmax(op.reduce_mean(evidence, [1, 2]), -1), op.reduce_mean(maps, [2, 3]), evidence)
    for name, result in zip(OUTPUTS, results, strict=True):
        result.output(0).set_names({name})
    return ov.Model(list(results), [images], "tiny")  # pyright: ignore[reportGeneralTypeIssues]  # its stubs bind wrongly
