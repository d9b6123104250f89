"""What `study` trains: recipes as in the section `train` of params.yaml, as plain JSON."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu.kermany import TASKS
from cxr.errors import CxrError

RECIPE: dict[str, Any] = {
    "model": "residual",
    "weights": "none",
    "freeze": 0,
    "widths": [32, 64, 128, 192],
    "dropout": 0.1,
    "head": {"pool": "gap", "dense": [], "dropout": 0.3, "output": "softmax"},
    "epochs": 40,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "optimizer": {"name": "adamw", "momentum": 0.9, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "factor": 0.5, "epochs": 1, "warmup_epochs": 2},
    "focal_gamma": 0,
    "label_smoothing": 0.05,
    "ema": 0,
    "early_stopping_patience": 40,  # never: the cosine's last epochs are its best
    "fine_tune": {"epochs": 0, "learning_rate": 1e-5, "freeze": 0},
    "precision": "bfloat16",
    "ensemble": 1,
    "views": {"shift_fraction": 0, "zoom_fraction": 0},
    "augment": {
        "horizontal_flip": False,
        "rotation_degrees": 10,
        "shift_fraction": 0.1,
        "zoom_fraction": 0.15,
        "shear_degrees": 0,
        "brightness": 0.2,
        "contrast": 0.3,
        "blur": 0,
        "noise": 0,
        "erase": 0,
        "mixup": 0,
        "cutmix": 0,
    },
}
BACKBONE = RECIPE | {"learning_rate": 1e-3}
PRESETS: list[dict] = [
    {"name": "residual-128", "task": "pneumonia", "size": 128, "train": RECIPE, "published": {}},
    {"name": "residual-224", "task": "pneumonia", "size": 224, "train": RECIPE, "published": {}},
    {"name": "residual-type-224", "task": "pneumonia-type", "size": 224, "train": RECIPE, "published": {}},
    {  # published figures: with ImageNet weights
        "name": "densenet121-224", "task": "pneumonia", "size": 224,
        "train": BACKBONE | {"model": "densenet121"}, "published": {"accuracy": 0.9471},
    },
    {
        "name": "resnet50-224", "task": "pneumonia", "size": 224,
        "train": BACKBONE | {"model": "resnet50"}, "published": {"accuracy": 0.9455},
    },
]  # fmt: skip


def read_presets(path: Path) -> list[dict]:
    """Raises CxrError that names the preset and the key at fault."""
    try:
        presets = json.loads(path.read_text())
    except ValueError as error:
        raise CxrError(f"{path}: not JSON: {error}") from None
    if not isinstance(presets, list) or not presets:
        raise CxrError(f"{path}: expected a list of presets")
    for i, preset in enumerate(presets):
        if fault := find_fault(preset):
            raise CxrError(f"{path}: preset {i + 1}: {fault}")
    names = [preset["name"] for preset in presets]
    if len(set(names)) < len(names):
        raise CxrError(f"{path}: two presets of one name; found {', '.join(names)}")
    return presets


def find_fault(preset: Any) -> str | None:
    """What keeps a preset from being run, in words."""
    if fault := different_keys(preset, PRESETS[0] | {"train": None, "published": None}, ""):
        return fault
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", str(preset["name"])):
        return f"name: found {preset['name']!r}; expected small letters, digits and -, since it names files"
    if preset["task"] not in TASKS:
        return f"task: found {preset['task']!r}; expected {' or '.join(TASKS)}"
    if not isinstance(preset["size"], int) or preset["size"] < 1:
        return f"size: found {preset['size']!r}; expected pixels a side"
    if fault := different_keys(preset["train"], RECIPE, "train."):
        return fault
    if preset["train"]["ensemble"] != 1:
        return "train.ensemble: expected 1; each seed is a step of its own, and the table averages them"
    return None


def different_keys(found: Any, expected: dict, place: str) -> str | None:
    if not isinstance(found, dict):
        return f"{place.rstrip('.') or 'it'}: found {found!r}; expected keys {', '.join(expected)}"
    if missing := expected.keys() - found.keys():
        return f"{place}{min(missing)}: missing"
    if unknown := found.keys() - expected.keys():
        return f"{place}{min(unknown)}: unknown key (is it misspelt?)"
    inner = [key for key, value in expected.items() if isinstance(value, dict)]
    return next(filter(None, (different_keys(found[key], expected[key], f"{place}{key}.") for key in inner)), None)


def as_params(recipe: dict) -> Any:
    """The recipe with attributes where `cxr.params.TrainParams` has them, for machines without pydantic."""
    return json.loads(json.dumps(recipe), object_hook=lambda values: SimpleNamespace(**values))
