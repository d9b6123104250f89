"""Pairs of records that show the same image: the same bytes, or near hashes confirmed on the pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr.params import DuplicateParams

Pairs = np.ndarray  # int64 (n, 2), positions in the table of records, first < second


@dataclass(frozen=True)
class Duplicates:
    """`same`: pairs that show one image. `unsure`: pairs for the review list, with `correlation` float32 (n,)."""

    same: Pairs
    unsure: Pairs
    correlation: np.ndarray


def find_duplicates(
    records: pd.DataFrame, params: DuplicateParams, thumbs_of: Callable[[pd.DataFrame], np.ndarray]
) -> Duplicates:
    """`thumbs_of` gives uint8 (n, 64, 64) for rows of `records` (sha256, phash)."""
    candidates = near_hashes(records, params.bits)
    r = correlations(candidates, records, thumbs_of)
    unsure = (r >= params.unsure) & (r < params.same)
    same = np.concatenate([same_bytes(records), candidates[r >= params.same]])
    return Duplicates(same, candidates[unsure], r[unsure])


def same_bytes(records: pd.DataFrame) -> Pairs:
    """Neighbours in each run of equal SHA-256: enough to connect the run."""
    order = np.argsort(records["sha256"].to_numpy().astype(str), kind="stable")
    digests = records["sha256"].to_numpy().astype(str)[order]
    equal = np.flatnonzero(digests[1:] == digests[:-1])
    return _as_pairs(order[equal], order[equal + 1])


def near_hashes(records: pd.DataFrame, bits: int, block: int = 512) -> Pairs:
    """All pairs whose 256-bit perceptual hashes differ in at most `bits` bits; memory grows with n * block."""
    hashes = np.frombuffer(b"".join(records["phash"]), np.uint64).reshape(len(records), 4)
    firsts, seconds = [], []
    for start in range(0, len(hashes), block):
        rows = hashes[start : start + block]
        distance = sum(np.bitwise_count(rows[:, None, k] ^ hashes[None, start:, k]).astype(np.uint16) for k in range(4))
        first, second = np.nonzero(distance <= bits)
        later = second > first
        firsts.append(first[later] + start)
        seconds.append(second[later] + start)
    return _as_pairs(np.concatenate(firsts), np.concatenate(seconds))


def correlations(pairs: Pairs, records: pd.DataFrame, thumbs_of: Callable[[pd.DataFrame], np.ndarray]) -> np.ndarray:
    """Pearson's r of the thumbs of each pair, float32 (n,)."""
    if len(pairs) == 0:
        return np.empty(0, np.float32)
    involved, index = np.unique(pairs, return_inverse=True)
    values = thumbs_of(records.iloc[involved]).reshape(len(involved), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    first, second = index.reshape(pairs.shape).T
    return np.einsum("ij,ij->i", values[first], values[second])


def _as_pairs(first: np.ndarray, second: np.ndarray) -> Pairs:
    return np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1).astype(np.int64)
