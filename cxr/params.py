"""The schema of params.yaml: one class per section, no defaults, unknown keys refused."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxr.errors import ParamsError
from cxr.tasks import TASKS, Region, TaskName, Word
from cxr.words import SexMeaning, ViewMeaning, label_value, plain_word

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

    words: dict[str, Word | None] = Field(
        description="each word of the source and what it means; null: it says nothing"
    )
    licence: str | None

    @model_validator(mode="after")
    def _has_an_origin(self) -> "OwnSource":
        if self.origin == "demo":
            raise ValueError(f"the demo draws {', '.join(DRAWN_READERS)}; give this source an origin of its own")
        return self


Group = Literal["patient", "finding", "view", "split", "study", "age", "sex"]  # of a regular expression
PathGroup = Literal["patient", "finding", "view", "split"]  # of one that reads the path alone


def _groups(pattern: str) -> set[str]:
    try:
        return set(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None


def _mean_one_thing(words: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, str] = {}
    for word, meaning in words.items():
        other = first.setdefault(plain_word(word), word)
        if words[other] != meaning:
            raise ValueError(f"{other!r} and {word!r} are one word, and mean {words[other]} and {meaning}; keep one")
    return words


ViewWords = Annotated[dict[str, ViewMeaning], AfterValidator(_mean_one_thing)]
SexWords = Annotated[dict[str, SexMeaning], AfterValidator(_mean_one_thing)]


class FoldersSource(OwnSource):
    """Folders that tell the findings: by a group `finding` of `patient`, or else the folder that holds the image."""

    reader: Literal["folders"]
    patient: str = Field(
        description="regular expression searched in the path of an image: its group `patient` names the patient; it "
        "may have groups `finding`, `view` and `split`, and others that `masks` has too"
    )
    masks: dict[Region, str] | None = Field(
        None,
        max_length=1,
        description="region -> regular expression that finds its masks; a mask is of the image that agrees with it in "
        "all groups that both expressions have",
    )
    view_position: Literal["PA", "AP"] | None
    view_words: ViewWords = Field({}, description="words for a view that the project does not know")

    @field_validator("patient")
    @classmethod
    def _has_a_group(cls, pattern: str) -> str:
        if "patient" not in _groups(pattern):
            raise ValueError("no group (?P<patient>...): it is the part of the path that names the patient")
        return pattern

    @model_validator(mode="after")
    def _masks_share_groups(self) -> "FoldersSource":
        for region, pattern in (self.masks or {}).items():
            if not _groups(pattern) & _groups(self.patient):
                raise ValueError(
                    f"masks: the expression of {region} has no named group that `patient` has too; a group such as "
                    "(?P<name>...) in both tells which image a mask is of"
                )
        if self.view_position and "view" in _groups(self.patient):
            raise ValueError("view_position: must be null where the group `view` of `patient` tells the view")
        return self


class Join(Section):
    """A further table that says more of the rows of the first."""

    table: str = Field(min_length=1, description="name of the CSV, or the end of its path")
    by: str | Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="the column that both have, or: column of the first table or group of `extract` -> column of this"
    )

    @property
    def keys(self) -> dict[str, str]:
        return {self.by: self.by} if isinstance(self.by, str) else self.by


class Extract(Section):
    """A part of a cell, or of an image's path where no column is named."""

    column: str | None = None
    pattern: str = Field(description="regular expression whose groups are called as what they find")

    @field_validator("pattern")
    @classmethod
    def _names_what_it_finds(cls, pattern: str) -> str:
        groups, known = _groups(pattern), get_args(Group)
        if not groups or not groups <= set(known):
            found = f"groups {', '.join(sorted(groups))}" if groups else "no named group"
            raise ValueError(f"{found}; expected (?P<name>...) with a name of {', '.join(known)}")
        return pattern


class LabelValues(Section):
    """What the cells of label columns mean; numbers are compared as numbers, and an empty cell is always blank."""

    positive: list[str | float] = Field(min_length=1)
    negative: list[str | float]
    uncertain: list[str | float] = []
    blank: list[str | float] = Field([], description="not mentioned, like an empty cell")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, values: Any) -> Any:
        if isinstance(values, list) and any(isinstance(value, bool) for value in values):
            raise ValueError("YAML reads yes, no, on, off, true and false as truth values; put them in quotes")
        return values

    @model_validator(mode="after")
    def _mean_one_thing(self) -> "LabelValues":
        seen: dict[str | float, str] = {}
        for meaning, values in self:
            for value in values:
                if seen.setdefault(label_value(value), meaning) != meaning:
                    raise ValueError(f"{value!r} is {seen[label_value(value)]} and {meaning}; keep one")
        return self


Said = Literal["path", "patient_id", "findings", "view_position", "age_years", "sex", "published_split"]
COLUMN_OF: dict[Group, Said] = {
    "patient": "patient_id",
    "finding": "findings",
    "view": "view_position",
    "split": "published_split",
    "age": "age_years",
    "sex": "sex",
}


class TableSource(OwnSource):
    """CSVs beside the images, their columns named by `columns` (what the record holds -> column of the CSV)."""

    reader: Literal["table"]
    table: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)] = Field(
        description="name of the CSV that has a row for each image, or the end of its path; or several such CSVs"
    )
    join: list[Join] = []
    columns: dict[Said | Region, str]
    extract: list[Extract] = []
    labels: dict[str, Literal["positive", "negative", "set-aside"]] = Field(
        {}, description="a column for each finding -> what an uncertain one counts as"
    )
    label_values: LabelValues | None = None
    readers_agree: Literal["majority", "any", "all"] | None = Field(
        None, description="where an image has a row for each person who read it: how many must call a label positive"
    )
    view_words: ViewWords = Field({}, description="words for a view that the project does not know")
    sex_words: SexWords = Field({}, description="words for a sex that the project does not know")
    other_words: Word | None = Field(None, description="what every word means that `words` does not hold")

    @property
    def tables(self) -> list[str]:
        return [self.table] if isinstance(self.table, str) else self.table

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> "TableSource":
        groups = [group for part in self.extract for group in sorted(_groups(part.pattern))]
        said = [*self.columns, *(COLUMN_OF[group] for group in groups if group in COLUMN_OF)]
        said += ["findings"] if self.labels else []
        missing = {"path", "patient_id", "findings"} - set(said)
        if "path" not in self.columns:
            raise ValueError("columns: no path, the column that names the image's file")
        if missing:
            raise ValueError(
                f"columns: no {', '.join(sorted(missing))}; a column, a group of `extract` or, for findings, `labels` "
                "tells it"
            )
        twice = {name for name in said if said.count(name) > 1} - {"view_position"}  # two columns can tell one view
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is given twice by columns, extract or labels; keep one")
        if set(get_args(Region)) <= set(self.columns):
            raise ValueError("columns: both lungs and opacities; a source has masks of one of them")
        return self

    @model_validator(mode="after")
    def _labels_have_values_and_words(self) -> "TableSource":
        if bool(self.labels) != (self.label_values is not None):
            raise ValueError("labels and label_values: they belong together; give both or neither")
        if self.readers_agree and not self.labels:
            raise ValueError("readers_agree: it counts the rows in which a label is positive; give labels")
        odd = [name for name in self.labels if "|" in name or "," in name]
        if odd:
            raise ValueError(f"labels: {odd[0]!r} holds a bar or a comma, which separate findings; rename the column")
        unknown = [name for name in self.labels if name not in self.words]
        if unknown and self.other_words is None:
            raise ValueError(f"labels: words does not say what {', '.join(unknown)} means; add it, or set other_words")
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
    min_images_for_patients: int = Field(ge=2, description="fewer images of a source say nothing of its patients")
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
    warmup_epochs: float = Field(ge=0, description="from zero to the whole rate; of constant and cosine")

    @model_validator(mode="after")
    def _warms_up_what_can(self) -> "ScheduleParams":
        if self.name in ("plateau", "step") and self.warmup_epochs:
            raise ValueError(f"warmup_epochs must be 0 with {self.name}; constant and cosine have a warm-up")
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
            raise ValueError(f"assemble names {', '.join(sorted(unknown))}, which is not under sources")
        return self

    @model_validator(mode="after")
    def _fits_the_task(self) -> "Params":
        regions = [name for name, task in TASKS.items() if task.localises]
        train = self.train
        if (self.task in regions) != (train.model == "unet"):
            raise ValueError(
                f"task {self.task} with train.model {train.model}: the tasks {' and '.join(regions)} need unet, "
                "and every other task needs another network"
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
    place = error["loc"]
    if place[:1] == ("sources",):
        place = (*place[:2], *place[3:])  # pydantic puts the reader's name between a source and its keys
    where = ".".join(str(part) for part in place) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key (is it misspelt?)"
    if error["type"] == "missing":
        return f"{where}: missing"
    found = "" if isinstance(error["input"], dict) else f"found {error['input']!r}: "  # a rule over several keys
    return f"{where}: {found}{error['msg'].removeprefix('Value error, ')}"
