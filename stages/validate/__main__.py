"""`python -m stages.validate records` and `manifest`: a critical expectation that is not met stops the pipeline."""

import sys
from pathlib import Path

from checks.suites import failures, print_results
from cxr.errors import CxrError, plain_errors
from cxr.params import load_params
from stages.validate.manifest import validate_manifest
from stages.validate.records import validate_records

if __name__ == "__main__":
    with plain_errors():
        door = sys.argv[1]  # dvc.yaml names the doors
        p = load_params()
        report, docs = Path("reports/validation") / f"{door}.json", Path("reports/data-docs") / door
        images = Path("data/images")
        if door == "records":
            results = validate_records(p.sources, p.validate_, images, report, docs)
        else:
            results = validate_manifest(p.task, p.validate_, Path("data/manifest.parquet"), images, report, docs)
        print_results(results)
        if found := failures(results):
            raise CxrError(f"validate: {'; '.join(found)}")
