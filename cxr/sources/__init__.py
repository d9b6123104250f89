"""One reader per source: what the source says of each of its images, in the source's own words."""

from collections.abc import Callable, Iterator
from pathlib import Path

from cxr.sources import covid, kermany, nih
from cxr.sources.reading import Found, SetAside

READERS: dict[str, Callable[[Path], Iterator[Found | SetAside]]] = {
    "kermany": kermany.read,
    "nih": nih.read,
    "covid": covid.read,
}

__all__ = ["READERS", "Found", "SetAside"]
