"""Which file a cell of a table means: letter case, extension and folders above do not count, and nothing is guessed."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from cxr.sources.reading import IMAGE_SUFFIXES

SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff", ".bmp", ".dic")  # a table may name the files from which images were made


class Names:
    """Files by every name that one of `cells` may use: the whole path or its end, with or without extension.

    A cell may also begin above the source, if it ends in the whole path of a file that is in a folder.
    """

    def __init__(self, paths: Iterable[str], cells: Iterable[str]) -> None:
        depths = {len(_key(cell)) for cell in cells}  # only these are kept: there are several for each file
        self._paths = set()
        self._endings: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._whole: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for path in paths:
            key = _key(path)
            self._paths.add(path)
            self._whole[key].append(path)
            for depth in depths:
                if depth <= len(key):
                    self._endings[key[-depth:]].append(path)
        self._whole_depths = sorted({len(key) for key in self._whole if len(key) > 1}, reverse=True)

    def fitting(self, cell: str) -> list[str]:
        """The files that `cell` can mean, none or several perhaps.

        The whole path is believed before an ending, and the same letters before others.
        """
        if cell in self._paths:
            return [cell]
        key = _key(cell)
        found = self._endings.get(key)
        if not found:
            above = (self._whole.get(key[-depth:]) for depth in self._whole_depths if depth < len(key))
            found = next(filter(None, above), [])
        for same in (_spelt, _spelt_without_suffix, _folded):
            meant = same(cell)
            if nearer := [path for path in found if same(path)[-len(meant) :] == meant[-len(same(path)) :]]:
                return nearer
        return found


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/").strip("/")).parts


def _spelt(name: str) -> tuple[str, ...]:
    return _parts(name)


def _spelt_without_suffix(name: str) -> tuple[str, ...]:
    *folders, last = _parts(name) or ("",)
    return (*folders, _stem(last))


def _folded(name: str) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", part.casefold()) for part in _parts(name))


def _key(name: str) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", part.casefold()) for part in _spelt_without_suffix(name))


def _stem(name: str) -> str:
    pure = PurePosixPath(name)
    return pure.stem if pure.suffix.lower() in SUFFIXES else name
