"""Radiographs of one's own, a folder per class: the folder that holds an image is its finding.

Who made the labels and how, whom the images show and under which licence is for the owner to say, in params.yaml and
in a note of one's own. A patient is what `patient` finds in the image's path; without it, an image is set aside, for
images of one patient in two splits make every figure too good.
Known fault of such sets: views other than frontal lie among the rest, see `ingest.min_content_score`.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from cxr.params import FoldersSource
from cxr.raw.archives import Tree
from cxr.sources.reading import Found, SetAside, is_image, not_an_image


def read(tree: Tree, params: FoldersSource) -> Iterator[Found | SetAside]:
    pattern = re.compile(params.patient)
    for member in tree.walk():
        folder = PurePosixPath(member.path).parent.name
        match = pattern.search(member.path)
        if not is_image(member.path):
            yield not_an_image(member.path)
        elif not folder:
            yield SetAside(member.path, "outside a folder of a class")
        elif match is None or not match["patient"]:
            yield SetAside(member.path, "no patient in the path", f"expected {params.patient}")
        else:
            yield Found(
                path=member.path,
                member=member,
                patient_id=match["patient"],
                findings=folder,
                view_position=params.view_position,
                licence=params.licence,
            )
