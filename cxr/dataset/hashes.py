"""256-bit codes of images, and a multi-index search for the close ones among them.

The perceptual hash of a record (`cxr.pixels.thumbs`) stays close under changes of the grey levels. A border cut off or
a small rotation changes it beyond recognition, so a second code is taken of every thumb through several views: the
whole, cut on each combination of sides, turned both ways. A cut copy is then close to one of the views of its
original.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from cxr.pixels.thumbs import THUMB_SIZE

COARSE = 32  # of the image that codes are taken of
NEAR = 3.0  # pixels, the standard deviation of what is local to `flatten`
BITS = 256
FREQUENCIES = (3, 10)  # half-waves across a view: fewer tell the body's outline alone, more do not survive a shift
CUT = 0.033  # of a side: between 0 and this view every cut up to 5 % is at most 1.7 % away
TURN = 2.0  # degrees
VIEWS = [(*cut, 0.0) for cut in product((0.0, CUT), repeat=4)] + [(0.0, 0.0, 0.0, 0.0, turn) for turn in (TURN, -TURN)]

TABLES = 64  # of the index: every fourth bit begins one
CROWD, SPOKES = 64, 8  # a key that more than CROWD share is answered with SPOKES of them
NEAREST = 16  # candidates kept of one image
BATCH = 1 << 22  # pairs compared at a time


def flatten(thumbs: np.ndarray, size: int = THUMB_SIZE) -> np.ndarray:
    """Thumbs with their local mean and contrast taken away, float32 (n, size, size) of about unit variance.

    Gamma, brightness, contrast and CLAHE hardly show in it.
    """
    block = THUMB_SIZE // size
    images = thumbs.reshape(len(thumbs), size, block, size, block).mean((2, 4), dtype=np.float32)
    distance = np.arange(size)[:, None] - np.arange(size)
    kernel = np.exp(-(distance**2) / (2 * NEAR**2)).astype(np.float32)
    kernel /= kernel.sum(axis=1, keepdims=True)
    images -= kernel @ (images @ kernel.T)
    return images / np.sqrt(kernel @ (images**2 @ kernel.T) + 8)  # 8 grey levels squared: noise stays small


def view_codes(blocks: Iterator[np.ndarray], sample: np.ndarray) -> np.ndarray:
    """Codes of thumbs, uint64 (n, views, 4); the first view is the whole.

    A code is the signs of 256 projections of a view's cosine coefficients (Charikar 2002), whitened by the second
    moment of `sample` (m, 64, 64): without that, what all chests share would decide most bits.
    """
    waves = _view_waves()
    views, coefficients = len(VIEWS), waves.shape[1] // len(VIEWS)
    whole = flatten(sample, COARSE).reshape(len(sample), -1) @ waves[:, :coefficients]
    values, vectors = np.linalg.eigh(whole.T.astype(np.float64) @ whole / len(sample))
    whitening = vectors / np.sqrt(np.maximum(values, 0) + 0.1) @ vectors.T
    rng = np.random.default_rng(0)
    turns = [np.linalg.qr(rng.normal(size=(coefficients,) * 2))[0] for _ in range(-(-BITS // coefficients))]
    projection = (whitening @ np.concatenate(turns, axis=1)[:, :BITS]).astype(np.float32)
    codes = []
    for thumbs in blocks:
        seen = flatten(thumbs, COARSE).reshape(len(thumbs), -1) @ waves
        signs = seen.reshape(-1, coefficients) @ projection > 0
        codes.append(np.packbits(signs, axis=1).view(np.uint64).reshape(-1, views, BITS // 64))
    return np.concatenate(codes)


def _view_waves() -> np.ndarray:
    """Cosine waves over each view of a COARSE square, float32 (pixels, views * waves), faded at the view's edge."""
    low, high = FREQUENCIES
    v, u = np.mgrid[: high + 1, : high + 1]
    band = (np.hypot(u, v) >= low) & (np.hypot(u, v) <= high)
    y, x = (np.mgrid[:COARSE, :COARSE] + 0.5) / COARSE
    waves = []
    for left, top, right, bottom, turn in VIEWS:
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        across = (0.5 + (x - 0.5) * cosine + (y - 0.5) * sine - left) / (1 - left - right)
        down = (0.5 - (x - 0.5) * sine + (y - 0.5) * cosine - top) / (1 - top - bottom)
        inside = [np.clip(np.minimum(place, 1 - place) / 0.05, 0, 1) for place in (across, down)]
        fade = (np.sin(np.pi / 2 * inside[0]) * np.sin(np.pi / 2 * inside[1])) ** 2
        each = [
            np.cos(np.pi * i * across) * np.cos(np.pi * j * down) * fade for i, j in zip(u[band], v[band], strict=True)
        ]
        waves.append(np.stack(each, axis=-1).reshape(COARSE**2, -1) / COARSE)
    return np.concatenate(waves, axis=1).astype(np.float32)


def close_pairs(codes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, int64 (m, 2), of which one's first code and any code of the other, uint64 (n, views, 4), differ in at most
    `bits` bits, and how many bits differ.

    Multi-index search (Norouzi et al. 2012): each of 64 tables is keyed by log2(n) + 3 consecutive bits, and two codes
    meet in every table where these agree. At 120,000 images (20 bits) all pairs within 11 bits meet, as these cannot
    spoil 12 keys that share no bit; at 24 bits 99.8 % do, at 32 bits 92 %, at 40 bits 70 %, and a copy is close to
    several views of its original. Of each image the nearest 16 are kept, and images with equal first codes are chained:
    however many look alike, pairs stay below 17 n.
    """
    _, first, same_code = np.unique(codes[:, 0], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(same_code, kind="stable")
    equal = np.flatnonzero(np.diff(same_code[order]) == 0)
    chains = np.stack([order[equal], order[equal + 1]], axis=1)
    found = _Nearest(len(first))
    asked = np.ascontiguousarray(codes[first].transpose(1, 0, 2)).reshape(-1, codes.shape[2])  # view by view
    width = int(np.clip(np.ceil(np.log2(max(len(first), 2))) + 3, 8, 24))
    rng = np.random.default_rng(0)
    for table in range(TABLES):
        keys = _window(asked, BITS // TABLES * table, width)
        shuffled = rng.permutation(len(first))  # a crowd is answered by others in every table
        members = shuffled[np.argsort(keys[: len(first)][shuffled], kind="stable")]
        count = np.bincount(keys[: len(first)], minlength=1 << width)
        start = np.cumsum(count) - count
        answers = np.where(count > CROWD, SPOKES, count)[keys]
        answered = np.flatnonzero(answers)
        answers = answers[answered]
        for a, b in _batches(answers):
            asker = np.repeat(answered[a:b], answers[a:b])
            place = np.arange(len(asker)) - np.repeat(np.cumsum(answers[a:b]) - answers[a:b], answers[a:b])
            member = members[start[keys[asker]] + place]
            other = member != asker % len(first)
            member, asker = member[other], asker[other]
            distance = np.bitwise_count(asked[member] ^ asked[asker]).sum(axis=1, dtype=np.uint16)
            close = distance <= bits
            found.add(member[close], asker[close] % len(first), distance[close])
    pairs, distance = found.pairs()
    pairs = np.concatenate([chains, first[pairs]])
    return np.sort(pairs, axis=1), np.concatenate([np.zeros(len(chains), np.uint16), distance])


def _window(codes: np.ndarray, begin: int, width: int) -> np.ndarray:
    """`width` bits of each code (m, 4) from bit `begin` on, around the end if need be, as int64."""
    word, shift = divmod(begin, 64)
    bits = codes[:, word] >> np.uint64(shift)
    if shift + width > 64:
        bits = bits | (codes[:, (word + 1) % codes.shape[1]] << np.uint64(64 - shift))
    return (bits & np.uint64((1 << width) - 1)).astype(np.int64)


def _batches(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs [a, b) of about BATCH in sum."""
    total = np.cumsum(sizes)
    cuts = np.searchsorted(total, np.arange(BATCH, total[-1] + BATCH, BATCH), side="right")
    edges = np.unique(np.concatenate([[0], cuts, [len(sizes)]]))
    return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


class _Nearest:
    """Pairs of n items, the NEAREST of each; memory grows with n alone."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.kept = np.empty(0, np.uint64)  # first * n + second, then 9 bits of distance
        self.new: list[np.ndarray] = []

    def add(self, a: np.ndarray, b: np.ndarray, distance: np.ndarray) -> None:
        key = np.minimum(a, b) * self.n + np.maximum(a, b)
        self.new.append(np.unique(key.astype(np.uint64) << np.uint64(9) | distance))
        if sum(map(len, self.new)) > NEAREST * self.n + BATCH:
            self._prune()

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        self._prune()
        key = (self.kept >> np.uint64(9)).astype(np.int64)
        return np.stack(np.divmod(key, self.n), axis=1), (self.kept & np.uint64(511)).astype(np.uint16)

    def _prune(self) -> None:
        packed = np.unique(np.concatenate([self.kept, *self.new]))
        self.new = []
        key = packed >> np.uint64(9)
        packed = packed[np.append(True, key[1:] != key[:-1])[: len(packed)]]  # the nearest of each pair stands first
        pairs = np.stack(np.divmod((packed >> np.uint64(9)).astype(np.int64), self.n), axis=1)
        self.kept = packed[rank_by_end(pairs, packed & np.uint64(511)) < NEAREST]


def rank_by_end(pairs: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The place of each pair (m, 2) among those of its one or its other end, whichever is lower; 0 is the nearest."""
    ends, pair = pairs.T.ravel(), np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((distance[pair], ends))
    place = np.empty(len(ends), np.int64)
    place[order] = np.arange(len(ends)) - np.searchsorted(ends[order], ends[order])
    return place.reshape(2, -1).min(axis=0)
