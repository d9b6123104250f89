"""What the worker processes of ingest do: decode files into squares, masks, thumbs and facts.

Little is imported here, for every worker waits for it.
"""

import ctypes
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.params import PixelParams
from cxr.pixels.dicom import silence
from cxr.pixels.examine import look
from cxr.pixels.masks import mask_from_boxes, mask_from_file
from cxr.pixels.radiograph import Radiograph, load_radiograph
from cxr.pixels.thumbs import perceptual_hash

if TYPE_CHECKING:
    from cxr.dataset.store import Key  # with pandas, for which no worker has to wait

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 32 << 20  # the most that glibc takes


class Decoded(NamedTuple):
    """What decoding gave: the key alone where the bytes were known, no image where they cannot be read.

    `facts`: values of FACT_COLUMNS, of an unreadable file a `fault` alone. `image`, `thumb`: see
    `cxr.pixels.radiograph`. `mask`: see `cxr.pixels.masks`.
    """

    key: "Key"
    facts: dict | None = None
    image: np.ndarray | None = None
    thumb: np.ndarray | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Job:
    """One file to decode, given as its path or its bytes, unless its key turns out to be `known`.

    `entry`: its place in the account. `mask`: a file, given likewise, or boxes as text.
    """

    entry: int
    file: Path | bytes
    known: "Key | None"
    pixels: PixelParams
    mask: Path | bytes | str | None = None


def prepare_worker() -> None:
    """One thread a worker, no word of a file in its log, and the memory of one image kept for the next.

    glibc hands freed megabytes back and asks for them anew, a tenth of the time that a PNG takes; only it has mallopt.
    """
    cv2.setNumThreads(1)
    silence()
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2 * KEPT_BYTES)


def decode_batch(batch: list[Job]) -> list[Decoded]:
    """Runs in a worker."""
    loaded = [load(job) for job in batch]
    # after the last file of the batch: between decoders, which empty the processor's cache, it takes twice the time
    return [told(key, *it) if isinstance(it, tuple) else Decoded(key, it) for key, it in loaded]


def load(job: Job) -> "tuple[Key, tuple[Radiograph, np.ndarray | str | None] | dict | None]":
    """The file's key with its radiograph and mask, its fault as a fact, or None where its bytes are known.

    In the mask's place stands why it cannot be used, or None without one.
    """
    data, drawn = bytes_of(job.file), None if job.mask is None else bytes_of(job.mask)
    key = key_of(data, drawn)
    if key == job.known:
        return key, None
    try:
        radiograph = load_radiograph(data, job.pixels)
    except ImageError as error:
        return key, {"fault": str(error)}
    return key, (radiograph, None if drawn is None else load_mask(job, drawn, radiograph))


def load_mask(job: Job, drawn: bytes, radiograph: Radiograph) -> np.ndarray | str:
    if isinstance(job.mask, str):
        return mask_from_boxes(job.mask, radiograph)
    try:
        return mask_from_file(drawn, radiograph, job.pixels.max_megapixels)
    except ImageError as error:
        return str(error)


def bytes_of(file: Path | bytes | str) -> bytes:
    if isinstance(file, Path):
        return file.read_bytes()
    return file.encode() if isinstance(file, str) else file


def key_of(data: bytes, drawn: bytes | None) -> "Key":
    return hashlib.sha256(data).hexdigest(), None if drawn is None else hashlib.sha256(drawn).hexdigest()


def told(key: "Key", radiograph: Radiograph, mask: np.ndarray | str | None) -> Decoded:
    film = look(radiograph)
    stated = film.stated
    facts = {
        "width": radiograph.width,
        "height": radiograph.height,
        "bits": radiograph.bits,
        "phash": perceptual_hash(radiograph.thumb),
        "content_score": film.content.score,
        "content_reason": film.content.reason or None,
        "not_frontal": stated.not_frontal,
        "modality": stated.modality,
        "stated_view": stated.view_position,
        "stated_age_years": stated.age_years,
        "stated_sex": stated.sex,
        "burned_in": stated.burned_in,
        "notes": "|".join(note.code for note in film.notes) or None,
        **film.descriptors,
    }
    if isinstance(mask, str):
        return Decoded(key, facts | {"mask_fault": mask}, radiograph.image, radiograph.thumb)
    share = None if mask is None else float((mask > 0).mean())
    return Decoded(key, facts | {"mask_share": share}, radiograph.image, radiograph.thumb, mask)


def gave_up(job: Job) -> Decoded:
    """What is said of a file on which a worker process died twice."""
    drawn = None if job.mask is None else bytes_of(job.mask)
    return Decoded(key_of(bytes_of(job.file), drawn), {"fault": "decoding it ended the worker process twice"})
