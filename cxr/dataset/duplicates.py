# The types of pandas answer Series or DataFrame where it is known which.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
"""Pairs of records that show the same image: the same bytes, or close codes confirmed on the pixels."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from cxr.dataset.hashes import close_pairs, flatten, rank_by_end, view_codes
from cxr.dataset.splits import connect
from cxr.params import DuplicateParams
from cxr.pixels.thumbs import THUMB_SIZE

Pairs = np.ndarray  # int64 (n, 2), positions in the table of records, first < second
ThumbsOf = Callable[[pd.DataFrame], np.ndarray]  # uint8 (n, 64, 64) for n rows of records

BLOCK = 2048  # records or pairs whose thumbs are in memory at a time
SAMPLE = 4096  # thumbs that codes are whitened by
ROUNDS = (0, 1), (1, 4), (4, np.inf)  # candidates by rank; what an earlier round has joined is not compared again
ITERATIONS = cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-4
CLEAR = 0.98  # above, laying them on each other would change nothing
PATCH = 8  # pixels a side of the patches of a thumb that are compared one by one
MIN_PATCHES = (THUMB_SIZE // PATCH) ** 2 // 4  # fewer with something to see: nothing can be said
MIN_VARIANCE = 0.02  # of a levelled patch; below there is nothing to see in it
MAX_SCALE, MAX_SHIFT = 0.25, 0.15  # that registration may find between two copies, fractions of a side


@dataclass(frozen=True)
class Duplicates:
    """Pairs that show one image or may do, and those that a person says are of one patient.

    `correlation`: float32 (n,), of the thumbs; 1 where the bytes are the same, NaN where only a person said so.
    `verdict`: object (n,): `same`, `unsure` (for the review list), or a person's `same-patient` and `different`.
    """

    pairs: Pairs
    correlation: np.ndarray
    verdict: np.ndarray

    @property
    def same(self) -> Pairs:
        return self.pairs[self.verdict == "same"]

    @property
    def unsure(self) -> Pairs:
        return self.pairs[self.verdict == "unsure"]

    @property
    def one_split(self) -> Pairs:
        """Those that must not be divided between splits."""
        return self.pairs[self.verdict != "different"]


def find_duplicates(records: pd.DataFrame, params: DuplicateParams, thumbs_of: ThumbsOf) -> Duplicates:
    """Compare all `records` (sha256, phash) with each other; time grows with n log n, memory with n."""
    exact = same_bytes(records)
    candidates, distance = candidate_pairs(records, params.bits, thumbs_of)
    rank = rank_by_end(candidates, distance)
    pairs, correlation = [exact], [np.ones(len(exact), np.float32)]
    joined = exact
    for low, high in ROUNDS:
        image = connect(len(records), joined)
        asked = candidates[(low <= rank) & (rank < high) & (image[candidates[:, 0]] != image[candidates[:, 1]])]
        r = correlations(asked, records, thumbs_of)
        pairs.append(asked[r >= params.unsure])
        correlation.append(r[r >= params.unsure])
        joined = np.concatenate([joined, asked[r >= params.same]])
    r = np.concatenate(correlation)
    verdict = np.where(r >= params.same, "same", "unsure").astype(object)
    return Duplicates(np.concatenate(pairs), r, verdict)


def same_bytes(records: pd.DataFrame) -> Pairs:
    """Neighbours in each run of equal SHA-256: enough to connect the run."""
    digests = pd.factorize(records["sha256"])[0]
    order = np.argsort(digests, kind="stable")
    equal = np.flatnonzero(np.diff(digests[order]) == 0)
    return np.stack([order[equal], order[equal + 1]], axis=1).astype(np.int64)


def candidate_pairs(records: pd.DataFrame, bits: int, thumbs_of: ThumbsOf) -> tuple[Pairs, np.ndarray]:
    """Pairs that are close by perceptual hash (other grey levels) or by the codes of their views (cut or turned).

    Also returns how many bits differ, by the closer of the two.
    """
    if len(records) < 2:
        return np.empty((0, 2), np.int64), np.empty(0, np.uint16)
    hashes = np.frombuffer(b"".join(records["phash"]), np.uint64).reshape(len(records), 1, -1)
    sample = thumbs_of(records.iloc[:: -(-len(records) // SAMPLE)])
    codes = view_codes((thumbs_of(records.iloc[block]) for block in _blocks(len(records))), sample)
    found = close_pairs(hashes, bits), close_pairs(codes, bits)
    pairs, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((distance, pairs[:, 1], pairs[:, 0]))
    pairs, distance = pairs[order], distance[order]
    new = np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(pairs)]
    return pairs[new], distance[new]


def correlations(pairs: Pairs, records: pd.DataFrame, thumbs_of: ThumbsOf) -> np.ndarray:
    """How alike the thumbs of each pair are once laid on each other, float32 (n,), see `correlation`."""
    found = [np.empty(0, np.float32)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # OpenCV lets go of the interpreter
        for block in _blocks(len(pairs)):
            involved, index = np.unique(pairs[block], return_inverse=True)
            thumbs = flatten(thumbs_of(records.iloc[involved]))
            first, second = index.reshape(-1, 2).T
            found.append(np.array(list(threads.map(correlation, thumbs[first], thumbs[second])), np.float32))
    return np.concatenate(found)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two levelled thumbs, float32 (64, 64), are once an affine map has laid `b` on `a`; 0 where none does.

    The map is found by ECC (Evangelidis and Psarakis 2008).
    """
    straight = agreement(a, b, np.ones_like(a))
    if straight >= CLEAR:
        return straight
    try:
        affine = cv2.findTransformECC(a, b, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, ITERATIONS, None, 3)[1]
    except cv2.error:  # it did not converge
        return max(straight, 0.0)
    linear, centre = affine[:, :2], (THUMB_SIZE - 1) / 2
    shift = linear.sum(axis=1) * centre + affine[:, 2] - centre
    if np.abs(linear - np.eye(2)).max() > MAX_SCALE or np.abs(shift).max() > MAX_SHIFT * THUMB_SIZE:
        return max(straight, 0.0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid, inside = (cv2.warpAffine(image, affine, a.shape, flags=flags) for image in (b, np.ones_like(b)))
    return max(straight, agreement(a, laid, inside), 0.0)


def agreement(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    """Pearson's r of patches of 8 x 8 pixels, the mean without the worst quarter: a burned-in letter is not the image.

    Patches that lie outside, or that are flat in one of the two (clipped, collimated), say nothing; 0 where too few do.
    """
    first, second = _patches(a), _patches(b)
    first, second = (patches - patches.mean(axis=1, keepdims=True) for patches in (first, second))
    variances = (first**2).mean(axis=1), (second**2).mean(axis=1)
    telling = (_patches(inside).min(axis=1) > 0.99) & (np.minimum(*variances) > MIN_VARIANCE)
    if telling.sum() < MIN_PATCHES:
        return 0.0
    r = (first * second).mean(axis=1)[telling] / np.sqrt(variances[0][telling] * variances[1][telling])
    return float(np.sort(r)[len(r) // 4 :].mean())


def patient_faults(records: pd.DataFrame, same: Pairs, examples: int = 5) -> dict[str, dict]:
    """By source: images that stand under several patient ids, how many ids these are, and the first pairs of image ids.

    `records`: image_id, source, patient_id. A fault of the source: whatever splits by its patient ids leaks.
    """
    table = records[["image_id", "source", "patient_id"]].assign(image=connect(len(records), same))
    table = table[table["image"].duplicated(keep=False)].sort_values(["source", "image", "image_id"])
    ids = table.groupby(["source", "image"])["patient_id"].transform("nunique")
    faults = {}
    for source, rows in table[ids > 1].groupby("source"):
        other = (rows["image"] == rows["image"].shift(-1)) & (rows["patient_id"] != rows["patient_id"].shift(-1))
        pairs = zip(rows["image_id"][other], rows["image_id"].shift(-1)[other], strict=True)
        faults[str(source)] = {
            "images": len(rows),
            "patient_ids": int(rows["patient_id"].nunique()),
            "examples": [list(pair) for pair in sorted(pairs)[:examples]],
        }
    return faults


def _patches(image: np.ndarray) -> np.ndarray:
    """(64, 64) as (patches, pixels)."""
    n = THUMB_SIZE // PATCH
    return image.reshape(n, PATCH, n, PATCH).swapaxes(1, 2).reshape(n * n, PATCH**2)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, n, BLOCK))
