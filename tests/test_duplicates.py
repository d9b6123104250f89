"""Near-duplicates: the search, the verdict of the pixels, and what a person decides on it."""

import re
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.duplicates import VARIANTS
from cxr.dataset.duplicates import Duplicates, find_duplicates, patient_faults, same_bytes
from cxr.dataset.hashes import close_pairs
from cxr.dataset.review import decide, read_reviewed, write_review
from cxr.dataset.splits import connect
from cxr.demo.anatomy import draw_adult
from cxr.demo.film import develop, draw_adult_film
from cxr.demo.phantom import SHAPE, build_chest, expose
from cxr.errors import CxrError
from cxr.params import Params
from cxr.pixels.radiograph import load_radiograph
from cxr.pixels.thumbs import perceptual_hash

CHESTS = 24
REAL = Path(__file__).parents[2] / "shared/real"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 20), min_size=1, max_size=20), st.integers(0, 60))
def test_the_search_finds_what_comparing_all_with_all_finds(seed, distances, bits):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, (40, 4), dtype=np.uint64)
    for i, distance in enumerate(distances):
        flipped = np.unpackbits(codes[i].view(np.uint8))
        flipped[rng.choice(256, distance, replace=False)] ^= 1
        codes[20 + i] = np.packbits(flipped).view(np.uint64)
    pairs, found = close_pairs(codes[:, None], bits)
    apart = {(i, j): int(np.bitwise_count(codes[i] ^ codes[j]).sum()) for i, j in combinations(range(40), 2)}
    assert dict(zip(map(tuple, pairs.tolist()), found.tolist(), strict=True)) == {
        pair: distance for pair, distance in apart.items() if distance <= bits
    }


@pytest.mark.heavy
def test_a_crowd_of_near_equal_codes_is_connected_with_few_pairs():
    rng = np.random.default_rng(0)
    n = 3000
    bits = np.tile(rng.integers(0, 2, 256, dtype=np.uint8), (n, 3, 1))
    bits ^= (rng.random(bits.shape) < 0.01).astype(np.uint8)
    bits[:500] = bits[0]
    pairs, _ = close_pairs(np.packbits(bits, axis=2).view(np.uint64), 30)
    assert len(pairs) < 17 * n
    assert len(np.unique(connect(n, pairs))) == 1


@pytest.fixture(scope="module")
def chests() -> list[np.ndarray]:
    """Chests of as many patients, uint8 (height, width)."""
    drawn = []
    for i in range(CHESTS):
        rng = np.random.default_rng([2026, i])
        chest = build_chest(draw_adult(rng, str(rng.choice(["F", "M"]))))
        drawn.append(develop(expose(chest, np.zeros(SHAPE, np.float32), 0.3), draw_adult_film(rng, "PA"), rng))
    return drawn


def ingested(files: list[bytes], params: Params) -> tuple[pd.DataFrame, np.ndarray]:
    """Records and thumbs of encoded images, as ingest would keep them."""
    read = [load_radiograph(data, params.ingest.pixels) for data in files]
    records = pd.DataFrame(
        {
            "image_id": [f"a/{i}.png" for i in range(len(files))],
            "source": "a",
            "patient_id": [f"a/{i}" for i in range(len(files))],
            "findings": "Normal",
            "label": "Normal",
            "reason": None,
            "split": "train",
            "width": [radiograph.width for radiograph in read],
            "height": [radiograph.height for radiograph in read],
            "sha256": [f"{hash(data):x}" for data in files],
            "phash": [perceptual_hash(radiograph.thumb) for radiograph in read],
        }
    )
    return records, np.stack([radiograph.thumb for radiograph in read])


def search(files: list[bytes], params: Params) -> tuple[pd.DataFrame, Duplicates]:
    records, thumbs = ingested(files, params)
    return records, find_duplicates(records, params.assemble.duplicates, lambda rows: thumbs[rows.index])


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def test_copies_are_found_and_patients_are_not_confused(chests, params):
    """Every chest with two copies, each made in another way."""
    rng = np.random.default_rng(1)
    ways = list(VARIANTS.values())
    copies = [ways[(2 * i + k) % len(ways)](chest, rng) for i, chest in enumerate(chests) for k in (0, 1)]
    _, duplicates = search([png(chest) for chest in chests] + copies, params)
    patient = np.concatenate([np.arange(CHESTS), np.repeat(np.arange(CHESTS), 2)])
    assert (patient[duplicates.same[:, 0]] == patient[duplicates.same[:, 1]]).all()
    image = connect(len(patient), duplicates.same)
    missed = [i for i in range(CHESTS, len(patient)) if image[i] != image[patient[i]]]
    assert len(missed) <= 2


@pytest.mark.skipif(not REAL.exists(), reason="no real radiographs here")
def test_real_radiographs_are_found_again(params):
    paths = sorted((REAL / "nih/images").glob("*.png"))[::10]
    films = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    patient = np.unique([path.name[:8] for path in paths], return_inverse=True)[1]
    rng = np.random.default_rng(1)
    ways = list(VARIANTS.values())
    copies = [ways[i % len(ways)](film, rng) for i, film in enumerate(films)]
    _, duplicates = search([png(film) for film in films] + copies, params)
    same = duplicates.same % len(films)
    assert (patient[same[:, 0]] == patient[same[:, 1]]).all()
    image = connect(2 * len(films), duplicates.same)
    assert np.mean(image[: len(films)] == image[len(films) :]) >= 0.95


def test_what_shows_nothing_is_no_copy(params):
    """Blank images look alike, and yet nothing tells that they are the same."""
    files = [png(np.full((200, 160), grey, np.uint8)) for grey in range(10, 90, 2)]
    _, duplicates = search(files, params)
    assert len(duplicates.pairs) == 0
    assert len(search(files[:1], params)[1].pairs) == 0


def test_the_same_bytes_are_the_same_image(params):
    records = pd.DataFrame({"sha256": ["a", "b", "a", "a"], "phash": [bytes(32)] * 4})
    assert same_bytes(records).tolist() == [[0, 2], [2, 3]]
    blank = np.zeros((4, 64, 64), np.uint8)
    duplicates = find_duplicates(records, params.assemble.duplicates, lambda rows: blank[rows.index])
    assert duplicates.same.tolist() == [[0, 2], [2, 3]]
    assert duplicates.correlation.tolist() == [1, 1]


def test_one_image_under_two_patients_is_a_fault_of_its_source():
    table = pd.DataFrame(
        [("a/1", "a", "a/p"), ("a/2", "a", "a/q"), ("a/3", "a", "a/q"), ("b/1", "b", "b/p"), ("a/4", "a", "a/r")],
        columns=["image_id", "source", "patient_id"],
    )
    assert patient_faults(table, np.array([[0, 3], [1, 3]])) == {
        "a": {"images": 2, "patient_ids": 2, "examples": [["a/1", "a/2"]]}
    }
    assert patient_faults(table, np.array([[1, 2], [0, 3]])) == {}


RECORDS = pd.DataFrame(
    {"image_id": ["a/1", "a/2", "a/3", "a/4"], "source": "a", "sha256": ["x", "y", "z", "z"]},
)


def reviewed(folder: Path, *lines: str) -> pd.DataFrame:
    path = folder / "reviewed_pairs.csv"
    path.write_text("\n".join(["image_a,image_b,verdict", *lines]) + "\n")
    return read_reviewed(path, RECORDS)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["a/1,a/2,perhaps"], "line 2: found 'a/1,a/2,perhaps', expected"),
        (["a/1,a/2"], "line 2: found"),
        (["", "a/1,a/9,same"], "line 3: a/9 is no image of these sources"),
        (["a/1,a/1,same"], "line 2: a/1 is paired with itself"),
        (["a/1,a/2,same", "a/2,a/1,different"], "line 3: says different, but .* line 2 says same"),
        (["a/3,a/4,different"], "line 2: a/3 and a/4 have the same bytes"),
        (["a/3,a/4,same-patient"], "line 2: a/3 and a/4 have the same bytes"),
        (["a/1,a/2,same", "a/2,a/3,same", "a/1,a/3,different"], "line 4: a/1 and a/3 .* both are joined to a/2"),
        (["a/1,a/2,same", "a/2,a/3,same", "a/1,a/3,same-patient"], "line 4: a/1 and a/3 .* both are joined to a/2"),
    ],
)
def test_a_decision_that_cannot_be_followed_is_refused(tmp_path, lines, sentence):
    nothing = Duplicates(np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, object))
    with pytest.raises(CxrError, match=sentence):
        decide(nothing, reviewed(tmp_path, *lines), RECORDS)


def test_a_decision_joins_and_parts(tmp_path):
    found = Duplicates(
        np.array([[0, 1], [1, 2]]), np.array([0.96, 0.9], np.float32), np.array(["same", "unsure"], object)
    )
    assert decide(found, reviewed(tmp_path), RECORDS).verdict.tolist() == ["same", "unsure"]
    decided = decide(found, reviewed(tmp_path, "a/2,a/1,different", "a/4,a/1,same", "b/1,b/2,same"), RECORDS)
    assert decided.same.tolist() == [[0, 3]]
    assert decided.unsure.tolist() == [[1, 2]]
    assert decided.verdict.tolist() == ["different", "unsure", "same"]
    decided = decide(found, reviewed(tmp_path, "a/1,a/2,same-patient", "a/3,a/2,different"), RECORDS)
    assert decided.same.tolist() == []
    assert decided.one_split.tolist() == [[0, 1]]


def test_the_review_page_shows_the_pairs_and_speaks_to_nobody(chests, params, tmp_path):
    records, thumbs = ingested([png(chest) for chest in chests[:4]], params)
    records.loc[0, ["image_id", "findings"]] = ["a/x, <y>.png", "<script>"]
    records.loc[3, "reason"] = "duplicate"
    duplicates = Duplicates(
        np.array([[0, 1], [1, 3], [0, 2]]),
        np.array([0.9, 0.97, np.nan], np.float32),
        np.array(["unsure", "same", "different"], object),
    )
    earlier = tmp_path / "reviewed.csv"
    earlier.write_text('image_a,image_b,verdict\nother/1,other/2,same\n"a/x, <y>.png",a/2.png,different\n')
    write_review(tmp_path, records, duplicates, lambda rows: thumbs[rows.index], earlier)
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert pairs["image_b"].tolist() == ["a/2.png", "a/3.png", "a/1.png"]
    assert pairs["verdict"].tolist() == ["different", "same", "unsure"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("<article") == 3
    assert page.count("data:image/png;base64,") == 6
    assert "<script>" not in page.replace('<script>"use strict";', "")  # none but the page's own
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
    assert "left out: duplicate" in page
    assert 'data-a="a/x, &lt;y&gt;.png" data-b="a/1.png"' in page
    assert page.index("To decide <small>1<") < page.index("Decided before <small>1<")
