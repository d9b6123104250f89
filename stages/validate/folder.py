"""`python -m stages.validate.folder FOLDER`: the third door for a folder of images, before they become a source."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from checks.incoming import hold_incoming
from checks.page import Gallery, refused_images, write_page
from checks.suites import Result, failures, print_results
from cxr.errors import CxrError, ImageError, plain_errors
from cxr.params import ValidateParams, load_params
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import load_radiograph
from cxr.raw.archives import Tree
from cxr.release.model import Release
from cxr.sources.reading import is_image


def answer_folder(folder: Path, release: Release) -> tuple[list[dict], np.ndarray, pd.DataFrame]:
    """Every image below `folder`, archives looked through, answered as the service does.

    Returns rows as in the prediction log, named by their path, their squares, uint8 (n, size, size), and what cannot
    be read, as in `rejected.csv`. Raises CxrError where no image can be read.
    """
    rows, squares, unreadable = [], [], []
    for member in Tree(folder).walk():
        if not is_image(member.path):
            continue
        try:
            radiograph = load_radiograph(member.read(), release.facts.pixels)
        except ImageError as error:
            unreadable.append((member.path, "unreadable image", str(error), folder.name, "", ""))
            continue
        prediction = release.model(radiograph.image[np.newaxis])
        rows.append(
            {
                "request_id": member.path,
                "model_version": release.facts.version,
                "predicted": release.predicted(prediction),
                "probabilities": dict(zip(release.facts.classes, prediction.probabilities[0].tolist(), strict=True)),
                "descriptors": describe(radiograph),
            }
        )
        squares.append(radiograph.image)
    if not rows:
        raise CxrError(f"{folder}: no image in it can be read; {len(unreadable)} files look like one")
    columns = ["image_id", "reason", "detail", "source", "score", "shard"]
    return rows, np.stack(squares), pd.DataFrame(unreadable, columns=columns)


def validate_folder(
    folder: Path, release: Release, reference: pd.DataFrame, params: ValidateParams, min_images: int, docs: Path
) -> list[Result]:
    """Judge the images below `folder` as the monitor judges what the service was sent; write the Data Docs."""
    facts = release.facts
    rows, squares, unreadable = answer_folder(folder, release)
    results = hold_incoming(rows, facts.classes, facts.version, reference, params, min_images, docs)
    images = pd.DataFrame([{"image_id": row["request_id"], "predicted": row["predicted"]} for row in rows])
    by = {"images": "image_id", "answers": "image_id"}
    gallery = Gallery(images, by, ["predicted"], lambda rows: squares[rows.index])
    write_page(docs, "incoming", results, gallery, refused_images(unreadable, gallery.read))
    return results


if __name__ == "__main__":
    with plain_errors():
        p, released, docs = load_params(), Path("models/release"), Path("reports/data-docs/incoming")
        results = validate_folder(
            Path(sys.argv[1]), Release.load(released), pd.read_parquet(released / "reference.parquet"), p.validate_,
            p.monitor.min_images, docs,
        )  # fmt: skip
        print_results(results)
        print(f"see {docs}/index.html")
        if found := failures(results):
            raise CxrError(f"incoming: {'; '.join(found)}")
