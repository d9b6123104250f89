# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false
"""`python -m stages.validate.folder FOLDER`: the third door for a folder of images, before they become a source."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from checks.incoming import hold_incoming
from checks.page import Gallery, refused_images, write_page
from checks.suites import Result, failures, print_results
from cxr.errors import CxrError, ImageError, plain_errors
from cxr.params import ValidateParams, load_params
from cxr.pixels.examine import examine
from cxr.pixels.stated import NO_FRONTAL_FILM
from cxr.raw.archives import Tree
from cxr.release.model import Release
from cxr.sources.reading import is_image

REFUSED_COLUMNS = ["image_id", "reason", "detail", "source", "score", "shard", "row"]


@dataclass(frozen=True)
class Answered:
    """What the release says of a folder.

    `rows`: as in the prediction log, named by their path. `squares`: their pixels, uint8 (n, size, size). `refused`: as
    in `rejected.csv`; of what was decoded, `shard` is "refused" and `row` its place in `refused_squares`. `notes`: code
    and path of what must be known beside an answer.
    """

    rows: list[dict]
    squares: np.ndarray
    refused: pd.DataFrame
    refused_squares: np.ndarray
    notes: list[tuple[str, str]]


def answer_folder(folder: Path, release: Release) -> Answered:
    """Answer every image below `folder`, archives looked through, as the service does.

    Raises CxrError where no image is answered.
    """
    facts = release.facts
    rows, squares, refused, refused_squares, notes = [], [], [], [], []
    for member in Tree(folder).walk():
        if not is_image(member.path):
            continue
        try:
            film = examine(member.read(), facts.pixels)
        except ImageError as error:
            refused.append((member.path, "unreadable image", str(error), folder.name, "", "", ""))
            continue
        if why := film.refusal(facts.min_content_score):
            place = ("refused", len(refused_squares))
            refused.append((member.path, NO_FRONTAL_FILM, why, folder.name, round(film.content.score, 4), *place))
            refused_squares.append(film.radiograph.image)
            continue
        answer = release.answer(film)
        rows.append(
            {
                "request_id": member.path,
                "model_version": facts.version,
                "predicted": answer.predicted,
                "probabilities": answer.probabilities,
                "descriptors": film.descriptors,
            }
        )
        squares.append(film.radiograph.image)
        notes += [(note.code, member.path) for note in answer.notes]
    table = pd.DataFrame(refused, columns=REFUSED_COLUMNS)
    if not rows:
        reasons = "".join(f", {n} refused ({reason})" for reason, n in table["reason"].value_counts().items())
        raise CxrError(f"{folder}: no image in it can be answered; {len(table)} files look like one{reasons}")
    return Answered(rows, np.stack(squares), table, np.array(refused_squares), notes)


def validate_folder(
    folder: Path, release: Release, reference: pd.DataFrame, params: ValidateParams, min_images: int, docs: Path
) -> list[Result]:
    """Judge the images below `folder` as the monitor judges what the service was sent; write the Data Docs."""
    facts = release.facts
    answered = answer_folder(folder, release)
    results = hold_incoming(answered.rows, facts.classes, facts.version, reference, params, min_images, docs)
    images = pd.DataFrame([{"image_id": row["request_id"], "predicted": row["predicted"]} for row in answered.rows])
    by = {"images": "image_id", "answers": "image_id"}
    gallery = Gallery(images, by, ["predicted"], lambda rows: answered.squares[rows.index])
    refused = refused_images(answered.refused, lambda rows: answered.refused_squares[rows["row"]])
    write_page(docs, "incoming", results, gallery, refused)
    print_what_was_said(answered)
    return results


def print_what_was_said(answered: Answered) -> None:
    """How many images were answered, how many refused and why, and what must be known of how many."""
    print(f"images answered: {len(answered.rows)}, refused: {len(answered.refused)}")
    refused = answered.refused
    for why, n in (refused["reason"] + ": " + refused["detail"]).value_counts().items():
        print(f"  {why}: {n}")
    for code, n in Counter(code for code, _ in answered.notes).items():
        print(f"  {code}: {n} of the answered")


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
