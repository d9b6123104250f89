"""The schema of params.yaml: one class per section, no defaults, unknown keys refused."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxr.errors import ParamsError

SourceName = Literal["kermany", "nih", "covid"]
TaskName = Literal["covid", "pneumonia", "pneumonia-type"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceParams(Section):
    origin: str = Field(min_length=1, description="`demo`, or a path to a directory or an archive")


class DemoParams(Section):
    kermany: int = Field(ge=24, description="images drawn")
    nih: int = Field(ge=24)
    covid: int = Field(ge=24)


class IngestParams(Section):
    size: int = Field(ge=32, le=1024, description="pixels a side of the stored square")
    square: Literal["letterbox", "stretch"]
    max_megapixels: float = Field(gt=0)
    shard_images: int = Field(ge=1)


class AssembleParams(Section):
    official_test: list[SourceName] = Field(description="sources whose published test list is kept as test")
    val_fraction: Fraction
    test_fraction: Fraction
    balance: Literal["none", "undersample", "oversample", "class-weight"]
    duplicate_bits: int = Field(ge=0, le=64, description="largest Hamming distance of 256 that makes a candidate")
    duplicate_correlation: float = Field(gt=0, le=1)
    unknown_findings: Literal["stop", "set-aside"]

    @model_validator(mode="after")
    def _leaves_a_train_split(self) -> "AssembleParams":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must stay below 1, or nothing is left to train on")
        return self


class ValidateParams(Section):
    min_train_per_class: int = Field(ge=1)
    min_val_per_class: int = Field(ge=1)
    min_test_per_class: int = Field(ge=1)
    mean_range: tuple[float, float]
    min_std: float = Field(ge=0)
    min_sources_per_class: int = Field(ge=1)


class AugmentParams(Section):
    horizontal_flip: bool
    rotation_degrees: float = Field(ge=0, le=45)
    shift_fraction: Fraction
    zoom_fraction: Fraction
    brightness: Fraction
    contrast: Fraction


class TrainParams(Section):
    model: Literal["cnn"]
    widths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    dropout: Fraction
    head_dropout: Fraction
    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    label_smoothing: Fraction
    early_stopping_patience: int = Field(ge=1, description="epochs without a lower val loss")
    reduce_lr_patience: int = Field(ge=1)
    reduce_lr_factor: float = Field(gt=0, lt=1)
    augment: AugmentParams


class EvaluateParams(Section):
    batch_size: int = Field(ge=1)
    bootstrap_samples: int = Field(ge=100)


class GateRule(Section):
    metric: str
    slice: str
    comparison: Literal[">=", ">", "<=", "<"]
    limit: float


class GateParams(Section):
    rules: list[GateRule] = Field(min_length=1)


class PackageParams(Section):
    parity_images: int = Field(ge=1)
    parity_tolerance: float = Field(gt=0)


class MonitorParams(Section):
    log: str = Field(description="SQLAlchemy URL of the prediction log")
    window_hours: float = Field(gt=0)
    min_images: int = Field(ge=1)
    alpha: float = Field(gt=0, lt=1, description="probability of a false alarm per report, over all columns")


class FlowsParams(Section):
    retrain_cron: str
    monitor_cron: str
    timezone: str


class Params(Section):
    seed: int = Field(ge=0)
    task: TaskName
    sources: dict[SourceName, SourceParams]
    demo: DemoParams
    ingest: IngestParams
    assemble: AssembleParams
    validate_: ValidateParams = Field(alias="validate")  # `validate` is a method of pydantic's BaseModel
    train: TrainParams
    evaluate: EvaluateParams
    gate: GateParams
    package: PackageParams
    monitor: MonitorParams
    flows: FlowsParams


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml. Raises ParamsError that names every wrong key."""
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; run from the repository's root") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path}: " + "; ".join(_fault(e) for e in error.errors())) from None


def _fault(error) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key (is it misspelt?)"
    if error["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: found {error['input']!r}: {error['msg']}"
