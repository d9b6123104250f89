"""Presets of published systems: what each changes in params.yaml, and the figures that it was published with."""

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml, parse_yaml
from pydantic import Field, ValidationError

from cxr.errors import ParamsError
from cxr.params import AugmentParams, BackboneName, Params, Section, SourceName, fault, load_params
from cxr.tasks import TaskName

DataGroup = Literal["raw", "augmented", "balanced"]
NO_BALANCE = {"assemble": {"balance": {"how": "none"}}}
NO_AUGMENTATION = {
    "train": {
        "augment": {name: field.annotation is not bool and 0 for name, field in AugmentParams.model_fields.items()}
    }
}
# A preset describes the training on balanced and augmented data; the other groups take something away from it.
TAKEN_AWAY: dict[DataGroup, tuple[dict, ...]] = {
    "raw": (NO_BALANCE, NO_AUGMENTATION),
    "augmented": (NO_BALANCE,),
    "balanced": (),
}


class Published(Section):
    """One figure of a published system."""

    metric: Literal["accuracy", "auroc_macro", "dice"] = Field(description="as in reports/metrics.json")
    value: float = Field(gt=0, le=1)
    data: DataGroup | None = Field(description="null where it is not known")
    split: str = Field(min_length=1, description="what it was measured on")
    n: int | None = Field(ge=1, description="images of that split; null where it is not known")


class Preset(Section):
    """One published system. What its paper states, and what is not known of it and was chosen here, is in `notes`."""

    title: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    published: list[Published]
    task: TaskName
    sources: list[SourceName] = Field(min_length=1, description="of those in params.yaml; the others are left out")
    slice: str = Field(description="of reports/metrics.json, whose figures stand beside the published ones")
    data: list[DataGroup] = Field(min_length=1, description="the groups it runs in unless others are asked for")
    params: dict[str, Any] = Field(description="overrides of params.yaml, nested as there")
    notes: str


@dataclass(frozen=True)
class Changes:
    """What the command line changes in every preset.

    `epochs`: of each phase of training at most so many, None for the preset's own. `weights`: of the published
    backbones, None for the preset's own. `overrides`: `section.key=value`, the last word on every param but the seed.
    """

    epochs: int | None = None
    weights: str | None = None
    overrides: tuple[str, ...] = ()


def load_presets(folder: Path, names: Iterable[str] = ()) -> dict[str, Preset]:
    """The presets of `folder` by the stems of their files, all or the named ones.

    Raises ParamsError for a name that is not there and for a file that does not fit the schema.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    unknown = [name for name in names if name not in paths]
    if unknown:
        raise ParamsError(f"{folder}: no preset {', '.join(unknown)}; there are {', '.join(paths) or 'none'}")
    return {name: load_preset(paths[name]) for name in (dict.fromkeys(names) or paths)}


def load_preset(path: Path) -> Preset:
    try:
        return Preset.model_validate(load_yaml(path))
    except YAMLFileCorruptedError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error.__cause__ or error).split())}") from None
    except ValidationError as error:
        raise ParamsError(f"{path}: " + "; ".join(fault(e) for e in error.errors())) from None


def read_base(path: Path) -> dict[str, Any]:
    """params.yaml as it stands, checked. Raises ParamsError."""
    load_params(path)
    return load_yaml(path)  # a number such as 2e-3 is one, as for DVC


def settings(
    name: str, preset: Preset, data: DataGroup, base: Mapping, changes: Changes, seed: int, root: Path
) -> dict:
    """The whole params.yaml of one run: `base`, changed by the preset, the data group and the command line in turn.

    Paths in it are made absolute, from `root` on: a run has a folder of its own. Raises ParamsError.
    """
    where = f"studies/{name}.yaml, {data}"
    values = copy.deepcopy(dict(base))
    values["task"] = preset.task
    values["sources"] = {source: values["sources"].get(source) for source in preset.sources}
    missing = [source for source, section in values["sources"].items() if section is None]
    if missing:
        raise ParamsError(f"{where}: params.yaml has no source {', '.join(missing)}; add it there")
    for key in ("official_test", "label_priority"):
        values["assemble"][key] = [source for source in values["assemble"][key] if source in preset.sources]
    for change in (preset.params, *TAKEN_AWAY[data]):
        merge(values, change)
    train = check(values, where).train
    if changes.weights and train.model in get_args(BackboneName):
        values["train"]["weights"] = changes.weights
    if changes.epochs is not None:
        values["train"]["epochs"] = min(train.epochs, changes.epochs)
        values["train"]["fine_tune"]["epochs"] = min(train.fine_tune.epochs, changes.epochs)
    for override in changes.overrides:
        merge(values, parse_override(override))
    values["seed"] = seed
    balance = check(values, where).assemble.balance.how
    make_absolute(values, root)
    if data == "balanced" and balance == "none":
        raise ParamsError(f"{where}: assemble.balance.how is none; name oversample, undersample or class-weight")
    return values


def merge(values: dict, changes: Mapping) -> None:
    """Put `changes` into `values`, section by section; what is no section replaces what was there."""
    for key, change in changes.items():
        if isinstance(change, Mapping) and isinstance(values.get(key), dict):
            merge(values[key], change)
        else:
            values[key] = copy.deepcopy(change)


def parse_override(text: str) -> dict:
    """`train.epochs=3` as nested sections. Raises ParamsError."""
    path, equals, value = text.partition("=")
    if not (path and equals):
        raise ParamsError(f"-S {text}: expected section.key=value, such as train.epochs=3")
    try:
        changes = parse_yaml(value, f"-S {text}")
    except YAMLFileCorruptedError:
        raise ParamsError(f"-S {text}: the value is not valid YAML; put it into quotes") from None
    for key in reversed(path.split(".")):
        changes = {key: changes}
    return changes


def make_absolute(values: dict, root: Path) -> None:
    """Local origins and a local file of weights, where they are given from the repository's root on."""
    for source in values["sources"].values():
        origin = source.get("origin")
        if isinstance(origin, list):
            source["origin"] = [_absolute(item, root) for item in origin]
        else:
            source["origin"] = _absolute(origin, root)
    values["train"]["weights"] = _absolute(values["train"]["weights"], root)


def _absolute(item: Any, root: Path) -> Any:
    if isinstance(item, Mapping):
        return dict(item) | {"url": _absolute(item.get("url"), root)}
    if isinstance(item, str) and item not in ("demo", "none", "imagenet") and (root / item).exists():
        return os.path.abspath(root / item)  # its links stay links: what they point to may change
    return item


def check(values: dict, where: str) -> Params:
    """Raises ParamsError that names every wrong key."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{where}: " + "; ".join(fault(e) for e in error.errors())) from None
