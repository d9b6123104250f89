"""Ingest and assembly of the tiny source with masks."""

import shutil
from pathlib import Path

from cxr.params import IngestParams, Params, PublishedSource
from cxr.tasks import TASKS
from stages.assemble import assemble
from stages.ingest.stream import ingest
from tests.tiny_repository import tiny_params

COVID = PublishedSource(reader="covid", origin="/data")
INGEST = tiny_params().ingest.model_copy(update={"workers": 2})


def run(raw: Path, out: Path, params: IngestParams = INGEST) -> None:
    ingest("covid", COVID, params, raw, out, out.with_suffix(".seen"))


def settings(**train: object) -> Params:
    values = tiny_params().model_dump(by_alias=True)
    values |= {"task": "localise-lungs", "sources": {"covid": COVID.model_dump()}}
    values["assemble"]["official_test"] = []
    values["train"] |= {"model": "unet"} | train
    values["gate"]["rules"] = [{"metric": "dice", "slice": "test", "comparison": ">=", "limit": 0.3}]
    return Params.model_validate(values)


def assembled(folder: Path, ingested: Path, p: Params) -> Path:
    shutil.copytree(ingested, folder / "images/covid")
    assemble(
        TASKS[p.task], p.assemble, p.sources, p.seed, folder / "images", Path("data/reviewed_pairs.csv"),
        folder / "manifest.parquet", folder / "assembly.json", folder / "duplicates",
    )  # fmt: skip
    return folder / "manifest.parquet"
