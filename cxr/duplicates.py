"""Pairs of records that show the same image: the same bytes, or near hashes confirmed on the pixels."""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from cxr.images import Squaring, content_box

Pairs = np.ndarray  # int64 (n, 2), positions in the table of records, first < second


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


def confirm(
    pairs: Pairs,
    records: pd.DataFrame,
    images_of: Callable[[pd.DataFrame], np.ndarray],
    square: Squaring,
    correlation: float,
) -> Pairs:
    """Those `pairs` whose pixels, bars removed and brought to 64 x 64, correlate at least to `correlation`.

    `images_of` gives uint8 (n, size, size) for rows of `records`.
    """
    if len(pairs) == 0:
        return pairs
    involved, index = np.unique(pairs, return_inverse=True)
    rows = records.iloc[involved]
    contents = np.stack(
        [
            _standardised(image, width, height, square)
            for image, width, height in zip(images_of(rows), rows["width"], rows["height"], strict=True)
        ]
    )
    first, second = index.reshape(pairs.shape).T
    return pairs[np.einsum("ij,ij->i", contents[first], contents[second]) >= correlation]


def _standardised(image: np.ndarray, width: int, height: int, square: Squaring) -> np.ndarray:
    """The image's content as a float32 vector of mean 0 and length 1, so that a dot product is Pearson's r."""
    if square == "letterbox":
        left, top, right, bottom = content_box(width, height, image.shape[0])
        image = image[top:bottom, left:right]
    values = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def _as_pairs(first: np.ndarray, second: np.ndarray) -> Pairs:
    return np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1).astype(np.int64)
