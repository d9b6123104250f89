"""One reader per layout: what a source says of each of its images, in the source's own words."""

from collections.abc import Callable, Iterator
from typing import Any

from cxr.raw.archives import Tree
from cxr.sources import covid, covid19_pneumonia_normal, dicom, folders, kermany, nih, rsna, table
from cxr.sources.reading import Found, SetAside

# reader -> its function of the source's files and of its own class of SourceParams
READERS: dict[str, Callable[[Tree, Any], Iterator[Found | SetAside]]] = {
    "kermany": kermany.read,
    "nih": nih.read,
    "covid": covid.read,
    "rsna": rsna.read,
    "covid19-pneumonia-normal": covid19_pneumonia_normal.read,
    "folders": folders.read,
    "table": table.read,
    "dicom": dicom.read,
}

__all__ = ["READERS", "Found", "SetAside"]
