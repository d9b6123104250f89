"""Kermany et al. 2018, "Chest X-Ray Images (Pneumonia)", as on Kaggle (paultimothymooney/chest-xray-pneumonia).

5,856 paediatric (1 to 5 years) AP radiographs of Guangzhou Women and Children's Medical Center; labels read by
physicians, test labels by three. Type (bacterial or viral) stands in the file name. CC BY 4.0.
Known faults: patient numbers restart for bacteria and for virus, so a patient is number and type; `IM-` and
`NORMAL2-IM-` are two series as well; byte-identical files under different patients; the published zip holds the whole
set twice (`chest_xray/chest_xray/`).
Cite: Kermany D et al., Cell 172 (2018) 1122-1131.
"""

import re
from collections.abc import Iterator

from cxr.params import PublishedSource
from cxr.raw.archives import Tree
from cxr.sources.reading import Found, SetAside, is_image, not_an_image

PLACE = re.compile(r"(?:^|/)(?P<split>train|val|test)/(?P<finding>[^/]+)/[^/]+$")
NAMES = (
    re.compile(r"^(?P<number>person\d+)_(?P<type>bacteria|virus)_"),
    re.compile(r"^(?P<number>NORMAL2-IM-\d+)-"),
    re.compile(r"^(?P<number>IM-\d+)-"),
)


def read(tree: Tree, params: PublishedSource) -> Iterator[Found | SetAside]:
    for member in tree.walk():
        if not is_image(member.path):
            yield not_an_image(member.path)
            continue
        place = PLACE.search(member.path)
        name = member.path.rpartition("/")[2]
        match = next((m for pattern in NAMES if (m := pattern.match(name))), None)
        if place is None:
            yield SetAside(member.path, "outside the published folders", "expected {train,val,test}/<finding>/<file>")
        elif match is None:
            yield SetAside(member.path, "no patient in the file name", "expected personN_type_N, IM-N or NORMAL2-IM-N")
        else:
            words = match.groupdict()
            type_ = words.get("type")
            yield Found(
                path=member.path,
                member=member,
                patient_id=f"{words['number']}-{type_}" if type_ else words["number"],
                findings=f"{place['finding']}|{type_}" if type_ else place["finding"],
                view_position="AP",
                published_split=place["split"],
                licence="CC BY 4.0",
            )
