"""From decoded pixels to the canonical square: what is taken away, and that nothing else is."""

from pathlib import Path

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.extra.numpy import arrays

from cxr.dataset.manifest import RECORD_COLUMNS, read_table
from cxr.dataset.store import read_images
from cxr.params import PixelParams
from cxr.pixels.canonical import (
    EMPTY,
    SLOPES,
    content_box,
    cut_off,
    find_frame,
    in_words,
    inside,
    keeps_whole,
    standardise_grey,
    to_canonical,
    to_square,
)
from cxr.pixels.radiograph import load_radiograph
from cxr.raw.archives import Tree
from tests.tiny_repository import Repository, tiny_params
from tests.tiny_sources import WRITERS, picture

REAL = Path(__file__).resolve().parents[2] / "shared/real/covid"
EVERYTHING = {"crop": "collimation", "margin": 0.05, "grey": "percentile", "reencode": 90}


def pixel_params(**changes: object) -> PixelParams:
    plain = {"size": 64, "square": "letterbox", "crop": "none", "margin": 0.0, "grey": "none", "reencode": 0}
    return PixelParams.model_validate({"max_megapixels": 64} | plain | changes)


params_of_any_kind = st.builds(
    pixel_params,
    size=st.integers(32, 80),
    square=st.sampled_from(["letterbox", "stretch", "crop"]),
    crop=st.sampled_from(["none", "border", "collimation"]),
    margin=st.floats(0, 0.25),
    grey=st.sampled_from(["none", "percentile", "equalise", "clahe"]),
    reencode=st.integers(0, 100),
)
shapes = st.tuples(st.integers(1, 300), st.integers(1, 300))
seeds = st.integers(0, 2**32)
any_pixels = st.one_of(
    arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))),
    st.builds(np.full, shapes, st.integers(0, 255).map(np.uint8)),
    st.builds(lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape, np.uint8), shapes, seeds),
    st.builds(lambda shape: np.add.outer(*map(np.arange, shape)).astype(np.uint8), shapes),
    st.builds(lambda shape, k: np.uint8(np.add.outer(*map(np.arange, shape)) % k), shapes, st.integers(1, 40)),
)


@settings(max_examples=300, deadline=None)
@given(any_pixels, params_of_any_kind)
@example(np.zeros((1, 1), np.uint8), pixel_params(**EVERYTHING))
@example(np.full((3000, 1), 7, np.uint8), pixel_params(**EVERYTHING, square="crop"))
def test_any_pixels_become_a_square(pixels: np.ndarray, params: PixelParams) -> None:
    before = pixels.copy()
    square = to_canonical(pixels, params)
    assert square.shape == (params.size, params.size)
    assert square.dtype == np.uint8
    assert (pixels == before).all()
    assert (to_canonical(pixels, params) == square).all()


def test_ingest_stores_what_the_service_will_read(tmp_path: Path) -> None:
    pixels = pixel_params(**EVERYTHING)
    params = tiny_params()
    ingest = params.ingest.model_copy(update={"pixels": pixels, "workers": 1})
    repository = Repository(tmp_path)
    WRITERS["kermany"](tmp_path / "data/raw/kermany")
    repository.ingest("kermany", params.model_copy(update={"ingest": ingest}))
    records = read_table(repository.images / "kermany/records.parquet", RECORD_COLUMNS)
    images = dict(zip(records["image_id"], read_images(repository.images, records), strict=True))
    for member in Tree(tmp_path / "data/raw/kermany").walk():
        image = images.pop(f"kermany/{member.path}", None)
        assert image is None or (image == load_radiograph(member.read(), pixels).image).all()
    assert not images


# crop


def film(height: int = 150, width: int = 190, seed: int = 0) -> np.ndarray:
    """A picture whose edges are neither constant nor dark."""
    noise = np.random.default_rng(seed).normal(0, 12, (height, width))
    return np.clip(picture(seed, 0.8, width, height) + 40.0 + noise, 70, 250).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(0, 60)] * 4), st.tuples(*[st.sampled_from([0, 3, 130, 255])] * 4), st.integers(0, 5),
    st.sampled_from(["letterbox", "stretch", "crop"]), st.sampled_from(["border", "collimation"]),
)  # fmt: skip
def test_padding_is_taken_off_to_the_pixel(sides, levels, seed, square, crop) -> None:
    plain = padded = film(seed=seed)
    for side, (width, grey) in enumerate(zip(sides, levels, strict=True)):
        widths = [width if side == place else 0 for place in range(4)]
        padded = cv2.copyMakeBorder(padded, *widths, cv2.BORDER_CONSTANT, value=grey)
    params = pixel_params(square=square, crop=crop)
    assert (to_canonical(padded, params) == to_canonical(plain, params)).all()


def test_padding_is_found_below_letters_and_after_jpeg() -> None:
    plain = film(600, 700)
    padded = cv2.copyMakeBorder(plain, 0, 120, 100, 0, cv2.BORDER_CONSTANT, value=10)
    padded[660:680, 300:310] = 250
    decoded = cv2.imdecode(cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_GRAYSCALE)
    params = pixel_params(square="stretch", crop="border")
    difference = cv2.absdiff(to_canonical(decoded, params), to_canonical(plain, params))
    assert difference.mean() < 4


@pytest.mark.parametrize("crop", ["border", "collimation"])
def test_what_is_too_deep_for_a_frame_stays(crop: str) -> None:
    plain = film(100, 100)
    padded = cv2.copyMakeBorder(plain, 0, 60, 0, 0, cv2.BORDER_CONSTANT, value=0)
    assert not find_frame(padded, crop).any()
    assert not find_frame(np.zeros((100, 100), np.uint8), crop).any()


def shuttered(degrees: float, dark: int = 2, sides: str = "trbl") -> tuple[np.ndarray, np.ndarray]:
    """A film with dark shutters at `sides` (top, right, bottom, left), turned; and where the field is, bool."""
    height, width = 400, 360
    pixels = film(height, width)
    field = np.ones((height, width), np.uint8)
    edges = {"t": np.s_[:50], "r": np.s_[:, -40:], "b": np.s_[-45:], "l": np.s_[:, :35]}
    for side in sides:
        field[edges[side]] = 0
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    outside = cv2.BORDER_CONSTANT if len(sides) == 4 else cv2.BORDER_REPLICATE
    field = cv2.warpAffine(field, turn, (width, height), flags=cv2.INTER_NEAREST, borderMode=outside) > 0
    noise = np.random.default_rng(1).integers(0, 6, (height, width))
    return np.where(field, pixels, dark + noise).astype(np.uint8), field


@pytest.mark.parametrize("degrees", [0, 1, -2, 3.5])
@pytest.mark.parametrize("sides", ["trbl", "lr", "t", "bl"])
def test_shutters_are_taken_off_though_turned(degrees: float, sides: str) -> None:
    pixels, field = shuttered(degrees, sides=sides)
    pixels[180:200, 5:20] = 255  # a lead letter, on the left shutter where there is one
    kept = inside(field, find_frame(pixels, "collimation"))
    assert kept.mean() > 0.98  # a sliver stays where the border was flat first
    lost = 1 - kept.sum() / field.sum()
    assert lost < 0.02 + 4 * np.tan(np.radians(abs(degrees)))


def test_a_flank_beside_dark_air_is_no_shutter() -> None:
    y, x = np.mgrid[0:300, 0:300] / 300
    curved = film(300, 300).astype(float) * (x > 0.15 + 0.2 * (y - 0.5) ** 2)
    soft = film(300, 300) * np.clip((x - 0.1) / 0.08, 0, 1)
    steep = film(300, 300) * (x > 0.05 + 2 * SLOPES.max() * y)
    for pixels in (curved, soft, steep):
        top, right, bottom, left = find_frame(np.uint8(pixels), "collimation")
        assert left <= 0.16 * 300
        assert top == right == bottom == 0


@pytest.mark.parametrize("crop", ["border", "collimation"])
def test_no_crop_cuts_into_lungs(crop: str) -> None:
    masks = sorted((REAL / "lung-masks").glob("*")) if REAL.exists() else []
    if not masks:
        pytest.skip("no real radiographs with lung masks on this machine")
    for path in masks[::4]:
        pixels = cv2.imread(str(REAL / "covid-chestxray-dataset/images" / path.name), cv2.IMREAD_REDUCED_GRAYSCALE_2)
        lungs = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        lungs = cv2.resize(lungs, pixels.shape[::-1], interpolation=cv2.INTER_NEAREST) > 127
        assert inside(lungs, find_frame(pixels, crop)).sum() > 0.98 * lungs.sum(), path.name


def test_the_margin_is_a_share_of_the_shorter_side() -> None:
    assert cut_off(np.zeros((100, 200), np.uint8), pixel_params(margin=0.1)).tolist() == [10] * 4
    assert cut_off(np.zeros((1, 9), np.uint8), pixel_params(margin=0.25)).tolist() == [0] * 4


# square


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black() -> None:
    square = to_canonical(np.full((50, 100), 200, np.uint8), pixel_params())
    left, top, right, bottom = content_box(100, 50, 64)
    assert (left, top, right, bottom) == (0, 16, 64, 48)
    assert (square[top:bottom] == 200).all()
    assert square[:top].max() == square[bottom:].max() == 0


def test_crop_keeps_the_centre_of_the_longer_side() -> None:
    pixels = np.zeros((64, 192), np.uint8)
    pixels[:, 64:128] = film(64, 64)
    assert (to_canonical(pixels, pixel_params(square="crop")) == pixels[:, 64:128]).all()
    assert (to_canonical(pixels.T, pixel_params(square="crop")) == pixels[:, 64:128].T).all()


@pytest.mark.parametrize("height", [257, 300, 512, 1500])
def test_shrinking_by_halves_is_close_to_one_step(height: int) -> None:
    pixels = cv2.GaussianBlur(film(height, height + 40), (0, 0), height / 256)
    once = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
    assert cv2.absdiff(to_square(pixels, 64, "stretch"), once).mean() < 1.5


# grey levels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.floats(0.4, 1.0), st.floats(0, 1))
def test_grey_levels_no_longer_tell_brightness_and_contrast(seed: int, contrast: float, brightness: float) -> None:
    plain = film(seed=seed)
    changed = np.round(plain * contrast + brightness * 255 * (1 - contrast)).astype(np.uint8)
    for grey in ("percentile", "equalise"):
        difference = cv2.absdiff(standardise_grey(plain, grey), standardise_grey(changed, grey))
        assert difference.mean() < 3


@pytest.mark.parametrize("grey", ["percentile", "equalise"])
def test_percentiles_fill_the_grey_range_and_equalising_spreads_it(grey: str) -> None:
    found = standardise_grey(film() // 2 + 60, grey)[18:-18, 23:-23]
    assert np.percentile(found, 1) <= 3
    assert np.percentile(found, 99) >= 252
    if grey == "equalise":
        assert np.percentile(found, (25, 50, 75)) == pytest.approx([64, 128, 191], abs=6)


@pytest.mark.parametrize("grey", ["percentile", "equalise"])
def test_what_stands_at_the_edge_changes_no_grey_level_of_the_centre(grey: str) -> None:
    plain = film()
    marked = plain.copy()
    marked[:15], marked[:, -20:] = 0, 255
    assert (standardise_grey(plain, grey)[20:-20, 25:-25] == standardise_grey(marked, grey)[20:-20, 25:-25]).all()


@pytest.mark.parametrize("grey", ["percentile", "equalise", "clahe"])
def test_bars_enter_no_statistics_and_stay_black(grey: str) -> None:
    pixels = film(60, 120)
    square = to_canonical(pixels, pixel_params(grey=grey, reencode=50))
    assert square[:16].max() == square[48:].max() == 0
    alone = to_canonical(cv2.resize(pixels, (64, 32), interpolation=cv2.INTER_AREA), pixel_params(grey=grey))
    assert (to_canonical(pixels, pixel_params(grey=grey)) == alone).all()


@pytest.mark.parametrize("grey", ["percentile", "equalise"])
def test_an_empty_film_is_not_stretched_into_noise(grey: str) -> None:
    empty = np.random.default_rng(0).integers(100, 100 + EMPTY - 1, (64, 64), np.uint8)
    assert (standardise_grey(empty, grey) == empty).all()


# re-encoding


def test_reencoding_leaves_the_same_traces_in_all() -> None:
    """JPEG's own quantisation: what was encoded once at a quality hardly changes when encoded so again."""
    params = pixel_params(reencode=60)
    once = to_canonical(film(64, 64), params)
    assert 1 < cv2.absdiff(once, film(64, 64)).mean() < 12
    assert cv2.absdiff(to_canonical(once, params), once).mean() < 0.5


# in words


def test_the_image_path_in_words() -> None:
    assert in_words(pixel_params()) == "letterbox"
    assert in_words(pixel_params(square="stretch", **EVERYTHING)) == (
        "stretched, border and shutters cropped, 0.05 cut off every edge, percentile grey levels, re-encoded as JPEG 90"
    )


@pytest.mark.parametrize("change", [{"crop": "border"}, {"crop": "collimation"}, {"margin": 0.01}, {"square": "crop"}])
def test_a_cropped_file_does_not_lie_under_the_heatmap(change: dict) -> None:
    assert keeps_whole(pixel_params(grey="clahe", reencode=90, square="stretch"))
    assert not keeps_whole(pixel_params(**change))
