"""Radiographs of one's own in folders that tell the findings: a folder per class, or a group of an expression.

Who made the labels and how, whom the images show and under which licence is for the owner to say, in params.yaml and
in a note of one's own. A patient is what `patient` finds in the image's path; without it, an image is set aside, for
images of one patient in two splits make every figure too good. The finding is what its group `finding` finds, or
without one the folder that holds the image. Files that an expression of `masks` finds are masks.
Known fault of such sets: views other than frontal lie among the rest, see `ingest.min_content_score`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cxr.params import FoldersSource
from cxr.raw.archives import Member, Tree
from cxr.sources.reading import SPLITS, Found, SetAside, is_image, not_an_image, stated_view, view_fault
from cxr.tasks import Region
from cxr.words import plain_word, shown, view_of

Key = tuple[str, ...]  # what the groups found that the expressions of images and of masks share


@dataclass(frozen=True)
class Masks:
    """`region`: what they show. `key_of`: of a mask's path. `images`: paths of images by key."""

    region: Region | None
    key_of: dict[str, Key]
    members: dict[Key, Member]
    images: dict[Key, list[str]]

    def of(self, key: Key) -> Member | None:
        return self.members.get(key) if len(self.images.get(key, ())) == 1 else None


def read(tree: Tree, params: FoldersSource) -> Iterator[Found | SetAside]:
    pattern = re.compile(params.patient)
    shared, masks = _find_masks(tree, pattern, params)
    for member in tree.walk():
        if not is_image(member.path):
            yield not_an_image(member.path)
        elif member.path in masks.key_of:
            if fault := _unused(member.path, masks):
                yield fault
        else:
            match = pattern.search(member.path)
            mask = masks.of(_key(match, shared)) if match else None
            yield _read_image(member, match, params, masks.region, mask)


def _find_masks(tree: Tree, pattern: re.Pattern[str], params: FoldersSource) -> tuple[list[str], Masks]:
    """The groups that tell which image a mask is of, and the masks."""
    if not params.masks:
        return [], Masks(None, {}, {}, {})
    ((region, expression),) = params.masks.items()
    mask_pattern = re.compile(expression)
    shared = sorted(set(pattern.groupindex) & set(mask_pattern.groupindex))
    masks = Masks(region, {}, {}, {})
    for member in tree.walk():
        if not is_image(member.path):
            continue
        if match := mask_pattern.search(member.path):
            masks.key_of[member.path] = key = _key(match, shared)
            masks.members.setdefault(key, tree.anytime(member))
        elif match := pattern.search(member.path):
            masks.images.setdefault(_key(match, shared), []).append(member.path)
    return shared, masks


def _key(match: re.Match[str], shared: list[str]) -> Key:
    return tuple((match[group] or "").casefold() for group in shared)


def _unused(path: str, masks: Masks) -> SetAside | None:
    """Why the mask at `path` is of no image; None where it is of one."""
    key = masks.key_of[path]
    of = masks.images.get(key, [])
    if not of:
        return SetAside(path, "mask without an image")
    if len(of) > 1:
        return SetAside(path, "mask fits several images", f"{of[0]}, {of[1]}")
    used = masks.members[key].path
    return SetAside(path, "another mask", used) if used != path else None


def _read_image(
    member: Member, match: re.Match[str] | None, params: FoldersSource, region: Region | None, mask: Member | None
) -> Found | SetAside:
    if not PurePosixPath(member.path).parent.name:
        return SetAside(member.path, "outside a folder of a class")
    if match is None or not match["patient"]:
        return SetAside(member.path, "no patient in the path", f"expected {params.patient}")
    groups = match.groupdict(default="")
    finding = groups["finding"] if "finding" in groups else PurePosixPath(member.path).parent.name
    if not finding:
        return SetAside(member.path, "no finding stated", f"expected {params.patient}")
    split = groups.get("split", "")
    if split and split.casefold() not in SPLITS:
        return SetAside(member.path, "unknown published split", f"{shown(split)} is not one of train, val, test")
    view = params.view_position
    if "view" in groups:
        meaning = view_of(groups["view"], {plain_word(word): known for word, known in params.view_words.items()})
        if fault := view_fault(member.path, meaning, groups["view"]):
            return fault
        view = stated_view(meaning)
    return Found(
        path=member.path,
        member=member,
        patient_id=groups["patient"],
        findings=finding,
        view_position=view,
        published_split=SPLITS.get(split.casefold()),
        licence=params.licence,
        region=region if mask else None,
        mask=mask,
    )
