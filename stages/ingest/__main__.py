"""`python -m stages.ingest SOURCE`"""

import sys
from pathlib import Path

from cxr.errors import plain_errors
from cxr.params import load_params
from stages.ingest.stream import ingest

if __name__ == "__main__":
    with plain_errors():
        p = load_params()
        name = sys.argv[1]  # dvc.yaml names the sources
        ingest(
            name, p.sources[name], p.ingest, Path("data/raw") / name / "files", Path("data/images") / name,
            Path("data/seen") / f"{name}.parquet",
        )  # fmt: skip
