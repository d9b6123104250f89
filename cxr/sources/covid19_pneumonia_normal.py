"""Covid19-Pneumonia-Normal Chest X-Ray Images (Kumar 2022), as on Kaggle (sachinkumar413).

5,228 frontal radiographs as PNG of 256 x 256, gathered from other public sets: 1,626 COVID, 1,802 NORMAL, 1,800
PNEUMONIA, told by the folder alone. Views, ages and the sets' own licences are not stated.
Known faults: no patient is named, so each file counts as a patient of its own and only the search for duplicates keeps
two copies of one image together; most images are in other sources too, in larger size. Mendeley's archive holds a
second archive: unpack it once. The set of a similar name with folders in lower case (Asraf 2021) holds rotated and
mirrored copies and is not read.
Cite: Kumar S, Mendeley Data V1 (2022), doi:10.17632/dvntn9yhd2.1.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from cxr.params import PublishedSource
from cxr.raw.archives import Tree
from cxr.sources.reading import Found, SetAside, is_image, not_an_image

FOLDERS = ("COVID", "NORMAL", "PNEUMONIA")


def read(tree: Tree, params: PublishedSource) -> Iterator[Found | SetAside]:
    for member in tree.walk():
        path = PurePosixPath(member.path)
        if not is_image(member.path):
            yield not_an_image(member.path)
        elif path.parent.name not in FOLDERS:
            yield SetAside(member.path, "outside the published folders", f"expected {', '.join(FOLDERS)}")
        else:
            yield Found(
                path=member.path,
                member=member,
                patient_id=f"{path.parent.name}/{path.name}",
                findings=path.parent.name,
            )
