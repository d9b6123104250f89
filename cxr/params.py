"""The schema of params.yaml: one class per section, no defaults, unknown keys refused."""

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxr.errors import ParamsError
from cxr.tasks import TASKS, Region, TaskName, Word

SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]  # names a DVC stage and a folder
PublishedReader = Literal["kermany", "nih", "covid", "rsna", "covid19-pneumonia-normal"]
DRAWN_READERS = ("kermany", "nih", "covid")  # the layouts that the demo draws
ScratchModel = Literal["cnn", "residual", "nam2022", "small", "unet"]
BackboneName = Literal[
    "vgg16", "resnet50", "resnet101", "resnet152", "resnet50v2", "densenet121", "inceptionv3", "xception",
    "mobilenetv2", "efficientnetv2b0", "convnexttiny", "squeezenet",
]  # fmt: skip
ModelName = Literal[ScratchModel, BackboneName]
Freeze = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)],
    Field(description="of a published backbone: so many first layers, the name of the last one, or `all`"),
]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RemoteFile(Section):
    """One file of an origin, where its address does not end in a usable name or its digest is published."""

    url: str = Field(min_length=1)
    name: str | None = Field(None, pattern=r"^[^./\\][^/\\]*$", description="file name in data/raw/<source>/files/")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class SourceSection(Section):
    origin: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)] | RemoteFile], Field(min_length=1)]
    ) = Field(description="`demo`, a path, `kaggle:<owner>/<name>`, an address that fsspec opens, or a list of these")

    @field_validator("origin")
    @classmethod
    def _demo_stands_alone(cls, origin: str | list) -> str | list:
        if isinstance(origin, list) and "demo" in origin:
            raise ValueError("`demo` cannot stand in a list")
        return origin


class PublishedSource(SourceSection):
    """A source whose layout and words the project knows."""

    reader: PublishedReader

    @model_validator(mode="after")
    def _demo_is_drawn(self) -> "PublishedSource":
        if self.origin == "demo" and self.reader not in DRAWN_READERS:
            raise ValueError(f"the demo draws {', '.join(DRAWN_READERS)}; give {self.reader} an origin of its own")
        return self


class OwnSource(SourceSection):
    """A source of the user's own: its words are mapped here. `demo` cannot be its origin."""

    words: dict[str, Word] = Field(description="each word of the source and what it means")
    licence: str | None

    @model_validator(mode="after")
    def _has_an_origin(self) -> "OwnSource":
        if self.origin == "demo":
            raise ValueError(f"the demo draws {', '.join(DRAWN_READERS)}; give this source an origin of its own")
        return self


class FoldersSource(OwnSource):
    """A folder per class: the image's parent folder is its finding."""

    reader: Literal["folders"]
    patient: str = Field(description="regular expression with a group `patient`, searched in the path of an image")
    view_position: Literal["PA", "AP"] | None

    @field_validator("patient")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        if "patient" not in groups:
            raise ValueError("no group (?P<patient>...): it is the part of the path that names the patient")
        return pattern


class TableSource(OwnSource):
    """A CSV beside the images, its columns named by `columns` (what the record holds -> column of the CSV)."""

    reader: Literal["table"]
    table: str = Field(min_length=1, description="name of the CSV, or the end of its path")
    columns: dict[
        Literal["path", "patient_id", "findings", "view_position", "age_years", "sex", "published_split"] | Region, str
    ]

    @model_validator(mode="after")
    def _has_the_needed_columns(self) -> "TableSource":
        missing = {"path", "patient_id", "findings"} - set(self.columns)
        if missing:
            raise ValueError(f"columns: no {', '.join(sorted(missing))}")
        if set(get_args(Region)) <= set(self.columns):
            raise ValueError("columns: both lungs and opacities; a source has masks of one of them")
        return self


class DicomSource(OwnSource):
    """DICOM files with labels in a CSV; view, age, sex and laterality are read from the headers."""

    reader: Literal["dicom"]
    table: str = Field(min_length=1, description="name of the CSV, or the end of its path")
    key: Literal["path", "SOPInstanceUID", "AccessionNumber", "PatientID"] = Field(
        description="what `key_column` holds; a path is told from the CSV's folder on"
    )
    key_column: str
    findings_column: str


SourceParams = Annotated[PublishedSource | FoldersSource | TableSource | DicomSource, Field(discriminator="reader")]


class DemoParams(Section):
    kermany: int = Field(ge=24, description="images drawn")
    nih: int = Field(ge=24)
    covid: int = Field(ge=24)


class PixelParams(Section):
    """The image path from decoded pixels to the square that the model reads; the same in ingest and in the service.

    `cxr.pixels.canonical` says in which order and why; `python -m benchmarks.shortcuts` what each value takes away.
    """

    size: int = Field(ge=32, le=1024, description="pixels a side of the square")
    square: Literal["letterbox", "stretch", "crop"]
    max_megapixels: float = Field(gt=0)
    crop: Literal["none", "border", "collimation"] = Field(description="what around the film is cut off")
    margin: float = Field(ge=0, le=0.25, description="fraction of the shorter side cut off every edge")
    grey: Literal["none", "percentile", "equalise", "clahe"] = Field(description="how grey levels are made alike")
    reencode: int = Field(ge=0, le=100, description="JPEG quality of one re-encoding for all, 0 for none")


class IngestParams(Section):
    pixels: PixelParams
    min_content_score: Fraction = Field(description="below, an image is refused as no frontal chest radiograph")
    shard_images: int = Field(ge=1)
    executor: Literal["processes", "dask"]
    workers: int = Field(ge=0, description="worker processes, 0 for one a core")
    scheduler: str | None = Field(description="address of a Dask scheduler; null starts one on this machine")


class DuplicateParams(Section):
    bits: int = Field(ge=0, le=64, description="largest Hamming distance of 256 that makes a candidate")
    same: float = Field(gt=0, le=1, description="correlation from which a candidate is the same image")
    unsure: float = Field(gt=0, le=1, description="correlation from which it goes to the review list")


class BalanceParams(Section):
    how: Literal["none", "undersample", "oversample", "class-weight"]
    per: Literal["class", "class-and-source"]
    max_copies: int = Field(ge=1, le=1000, description="most times an epoch shows one image")
    max_weight: float = Field(ge=1, description="largest weight of one image in the loss")
    max_images: int | None = Field(ge=1, description="most train images of one class, or of one class and source")


class AssembleParams(Section):
    official_test: list[SourceName] = Field(description="sources whose published test list is kept as test")
    test_source: SourceName | None = Field(description="leave one source out: it alone is test")
    folds: int = Field(ge=0, le=20, description="k-fold: what is not test falls into so many folds; 0 for none")
    fold: int = Field(ge=0, description="the fold that is val")
    val_fraction: Fraction
    test_fraction: Fraction
    pneumonia_findings: list[Literal["Pneumonia", "Infiltration", "Consolidation"]] = Field(
        min_length=1, description="NIH's text-mined words that a task reads as pneumonia"
    )
    label_priority: list[SourceName] = Field(description="of one image in several sources, whose label stands")
    balance: BalanceParams
    duplicates: DuplicateParams
    unknown_findings: Literal["stop", "set-aside"]

    @field_validator("pneumonia_findings")
    @classmethod
    def _hold_pneumonia(cls, findings: list[str]) -> list[str]:
        if "Pneumonia" not in findings:
            raise ValueError("Pneumonia itself must be among them")
        return findings

    @model_validator(mode="after")
    def _leaves_a_train_split(self) -> "AssembleParams":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must stay below 1, or nothing is left to train on")
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"folds must be 0 or at least 2, and fold below it; found {self.folds} and {self.fold}")
        if self.duplicates.unsure > self.duplicates.same:
            raise ValueError("duplicates.unsure must not exceed duplicates.same")
        return self


class ValidateParams(Section):
    mean_range: tuple[float, float]
    min_std: float = Field(ge=0)
    max_unreadable_share: Share = Field(description="of a source's files")
    max_rejected_share: Share = Field(description="of a source's files, unreadable ones included")
    max_odd_share: Share = Field(description="of a source's images outside mean_range or below min_std")
    max_images_per_patient: int = Field(ge=1)
    min_side: int = Field(ge=1, description="pixels of the published file")
    min_content_score: Share
    age_years: tuple[float, float]
    min_train_per_class: int = Field(ge=1)
    min_val_per_class: int = Field(ge=1)
    min_test_per_class: int = Field(ge=1)
    min_sources_per_class: int = Field(ge=1)
    max_unseen_share: Share = Field(description="of a window's images outside the reference's range of a descriptor")


class AugmentParams(Section):
    horizontal_flip: bool
    rotation_degrees: float = Field(ge=0, le=45)
    shift_fraction: Fraction
    zoom_fraction: Fraction
    shear_degrees: float = Field(ge=0, le=45)
    brightness: Fraction
    contrast: Fraction
    blur: Fraction = Field(description="largest share of the resolution that is lost")
    noise: Fraction = Field(description="largest standard deviation, of the grey range")
    erase: Share = Field(description="probability that a box is overwritten with noise")
    mixup: float = Field(ge=0, description="a of Beta(a, a), 0 for none")
    cutmix: float = Field(ge=0, description="a of Beta(a, a), 0 for none")


class OptimizerParams(Section):
    name: Literal["adam", "adamw", "sgd"]
    momentum: Fraction = Field(description="of sgd")
    weight_decay: float = Field(ge=0, description="of adamw and sgd")


class ScheduleParams(Section):
    """How the learning rate changes."""

    name: Literal["constant", "plateau", "step", "cosine"]
    factor: float = Field(gt=0, lt=1, description="of plateau and step, by which the rate falls")
    epochs: int = Field(ge=1, description="of plateau, without a lower val loss; of step, between two falls")
    warmup_epochs: float = Field(ge=0, description="from zero to the whole rate; not with plateau")

    @model_validator(mode="after")
    def _plateau_sets_the_rate_itself(self) -> "ScheduleParams":
        if self.name == "plateau" and self.warmup_epochs:
            raise ValueError("warmup_epochs must be 0 with plateau, which sets the rate itself")
        return self


class FineTuneParams(Section):
    """A second phase from the best epoch of the first, with more layers free and a lower rate."""

    epochs: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    freeze: Freeze


class HeadParams(Section):
    """From the last features to the classes."""

    pool: Literal["gap", "max", "flatten"] = Field(description="over the places of the last features")
    dense: list[Annotated[int, Field(ge=1)]] = Field(description="widths of dense layers with ReLU before the output")
    dropout: Fraction = Field(description="before each of them and the output")
    output: Literal["softmax", "sigmoid"] = Field(description="sigmoid: one node, for two classes")


class ViewParams(Section):
    """The same image, moved, whose answers are averaged (test-time augmentation). Less than a cell of the heatmap."""

    shift_fraction: float = Field(ge=0, le=0.1, description="of a side; four views, 0 for none")
    zoom_fraction: float = Field(ge=0, le=0.1, description="two views, 0 for none")


class TrainParams(Section):
    model: ModelName
    weights: str = Field(min_length=1, description="`none`, `imagenet` or a file, of a published backbone")
    freeze: Freeze
    widths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="of `cnn` and `residual`, by block")
    dropout: Fraction = Field(description="within the blocks of the networks that are trained from scratch")
    head: HeadParams
    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    optimizer: OptimizerParams
    schedule: ScheduleParams
    focal_gamma: float = Field(ge=0, description="of the focal loss, 0 for cross-entropy")
    label_smoothing: Fraction
    ema: Fraction = Field(description="share of the old in the moving average of the weights, 0 for none")
    early_stopping_patience: int = Field(ge=1, description="epochs without a lower val loss")
    fine_tune: FineTuneParams
    precision: Literal["float32", "bfloat16"] = Field(description="of the activations while training")
    ensemble: int = Field(ge=1, le=20, description="networks from as many seeds, exported as one model")
    views: ViewParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _only_backbones_have_weights(self) -> "TrainParams":
        untouched = self.weights == "none" and self.freeze == self.fine_tune.freeze == 0
        if self.model in get_args(ScratchModel) and not untouched:
            raise ValueError(f"{self.model} is trained from scratch: weights must be none and freeze 0")
        return self


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
    sources: dict[SourceName, SourceParams] = Field(min_length=1)
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

    @model_validator(mode="after")
    def _names_known_sources(self) -> "Params":
        named = {*self.assemble.official_test, *self.assemble.label_priority, self.assemble.test_source} - {None}
        unknown = named - set(self.sources)
        if unknown:
            raise ValueError(f"assemble names {', '.join(sorted(unknown))}, which sources does not hold")
        return self

    @model_validator(mode="after")
    def _fits_the_task(self) -> "Params":
        regions = [name for name, task in TASKS.items() if task.localises]
        train = self.train
        if (self.task in regions) != (train.model == "unet"):
            raise ValueError(
                f"task {self.task} with train.model {train.model}: unet finds regions, for the tasks "
                f"{' and '.join(regions)}, and they need it; every other network tells classes"
            )
        if self.task in regions and (train.augment.mixup or train.augment.cutmix):
            raise ValueError(f"train.augment: mixup and cutmix must be 0 for {self.task}; a mask is of one image")
        if self.task in regions and (train.views.shift_fraction or train.views.zoom_fraction):
            raise ValueError(f"train.views: must be 0 for {self.task}; moved views give moved masks")
        return self


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
        raise ParamsError(f"{path}: " + "; ".join(fault(e) for e in error.errors())) from None


def fault(error) -> str:
    """One of pydantic's errors as a sentence."""
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key (is it misspelt?)"
    if error["type"] == "missing":
        return f"{where}: missing"
    found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}: "  # a rule over several keys
    return f"{where}: {found}{error['msg'].removeprefix('Value error, ')}"
