"""The stage functions before training, on the tiny sources, in a folder of their own."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from checks.suites import Result
from cxr.dataset.manifest import MANIFEST_COLUMNS, read_table
from cxr.params import Params, load_params
from cxr.tasks import TASKS
from stages.acquire import acquire
from stages.assemble import assemble
from stages.ingest.stream import ingest
from stages.validate.manifest import validate_manifest
from stages.validate.records import validate_records
from tests.tiny_sources import WRITERS

SOURCES = ["kermany", "nih", "covid"]


def tiny_params() -> Params:
    """The shipped params at a size for tests."""
    values = load_params().model_dump(by_alias=True)
    values["ingest"] |= {"shard_images": 20, "min_content_score": 0}  # nothing here looks like a chest
    values["ingest"]["pixels"]["size"] = 64
    values["train"] |= {"widths": [8, 16, 16], "epochs": 3, "batch_size": 16}
    values["validate"] |= {"min_train_per_class": 5, "min_val_per_class": 1, "min_test_per_class": 1, "min_side": 64}
    values["validate"] |= {"min_content_score": 0}
    values["package"] |= {"parity_images": 8}
    return Params.model_validate(values)


@dataclass(frozen=True)
class Repository:
    """Where the stages put things."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "data/images"

    @property
    def manifest(self) -> Path:
        return self.root / "data/manifest.parquet"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def table(self) -> pd.DataFrame:
        return read_table(self.manifest, MANIFEST_COLUMNS)

    def ingest(self, source: str, params: Params) -> None:
        raw, seen = self.root / "data/raw" / source, self.root / "data/seen" / f"{source}.parquet"
        ingest(source, params.sources[source], params.ingest, raw, self.images / source, seen)

    def assemble(self, params: Params, **changes: object) -> None:
        settings = params.assemble.model_copy(update=changes)
        assemble(
            TASKS[params.task], settings, params.sources, params.seed, self.images, Path("data/reviewed_pairs.csv"),
            self.manifest, self.reports / "assembly.json", self.reports / "duplicates",
        )  # fmt: skip

    def validate(self, door: str, params: Params, **changes: object) -> list[Result]:
        """Judge at one door: `records` or `manifest`."""
        limits = params.validate_.model_copy(update=changes)
        report, docs = self.reports / "validation" / f"{door}.json", self.reports / "data-docs" / door
        if door == "records":
            return validate_records(SOURCES, limits, self.images, report, docs)
        return validate_manifest(params.task, limits, self.manifest, self.images, report, docs)


def build_repository(root: Path, params: Params) -> Repository:
    """Tiny sources acquired, ingested and assembled below `root`."""
    repository = Repository(root)
    for source in SOURCES:
        origin = root / "origin" / source
        WRITERS[source](origin)
        section = params.sources[source].model_copy(update={"origin": str(origin)})
        checksums = root / "data/checksums" / f"{source}.sha256"
        acquire(source, section, params.demo, params.seed, root / "data/raw" / source, checksums)
        repository.ingest(source, params)
    repository.assemble(params)
    return repository
