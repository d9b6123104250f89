"""What the worker processes of ingest do: decode files into squares, thumbs and facts.

Little is imported here, for every worker waits for it.
"""

import ctypes
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cxr.content import judge
from cxr.dicom import silence
from cxr.errors import ImageError
from cxr.images import Radiograph, describe, load_radiograph
from cxr.params import PixelParams
from cxr.thumbs import perceptual_hash

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 32 << 20  # the most that glibc takes


class Decoded(NamedTuple):
    """What decoding gave: the digest alone where the bytes were known, no image where they cannot be read.

    `facts`: values of FACT_COLUMNS, of an unreadable file a `fault` alone. `image`, `thumb`: see `cxr.images`.
    """

    sha256: str
    facts: dict | None = None
    image: np.ndarray | None = None
    thumb: np.ndarray | None = None


@dataclass(frozen=True)
class Job:
    """One file to decode, given as its path or its bytes, unless its SHA-256 turns out to be `known`.

    `entry`: its place in the account.
    """

    entry: int
    file: Path | bytes
    known: str | None
    pixels: PixelParams

    def read(self) -> bytes:
        return self.file if isinstance(self.file, bytes) else self.file.read_bytes()


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
    return [examine(sha256, it) if isinstance(it, Radiograph) else Decoded(sha256, it) for sha256, it in loaded]


def load(job: Job) -> tuple[str, Radiograph | dict | None]:
    """The file's SHA-256 with its radiograph, its fault as a fact, or None where its bytes are known."""
    data = job.read()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == job.known:
        return sha256, None
    try:
        return sha256, load_radiograph(data, job.pixels)
    except ImageError as error:
        return sha256, {"fault": str(error)}


def examine(sha256: str, radiograph: Radiograph) -> Decoded:
    content = judge(radiograph.thumb)
    facts = {
        "width": radiograph.width,
        "height": radiograph.height,
        "bits": radiograph.bits,
        "phash": perceptual_hash(radiograph.thumb),
        "content_score": content.score,
        "content_reason": content.reason or None,
        **describe(radiograph),
    }
    return Decoded(sha256, facts, radiograph.image, radiograph.thumb)


def gave_up(job: Job) -> Decoded:
    """What is said of a file on which a worker process died twice."""
    return Decoded(hashlib.sha256(job.read()).hexdigest(), {"fault": "decoding it ended the worker process twice"})
