"""The mask of one image goes the way of its image."""

import json

import cv2
import numpy as np
import pytest

from cxr.errors import ImageError
from cxr.params import load_params
from cxr.pixels.masks import mask_from_boxes, mask_from_file
from cxr.pixels.radiograph import load_radiograph
from tests.image_files import dicom, jpeg, png
from tests.masked_source import film

SHIPPED = load_params()


def pixel_params(**changes):
    return SHIPPED.ingest.pixels.model_copy(update={"size": 64} | changes)


def bright_box(height: int, width: int) -> tuple[np.ndarray, list[int]]:
    """A grey film with a frame of black around it and one white box: the image shows its own mask."""
    pixels = np.full((height, width), 90, np.uint8)
    pixels[:, ::2] += 4  # no row is of one grey but those of the frame
    frame = height // 12
    pixels[:frame], pixels[-frame:], pixels[:, :frame], pixels[:, -frame:] = 0, 0, 0, 0
    x, y, w, h = width // 4, height // 3, width // 3, height // 4
    pixels[y : y + h, x : x + w] = 255
    return pixels, [x, y, w, h]


def padded_dicom(pixels: np.ndarray) -> bytes:
    """With unequal borders of padding, which decoding cuts off."""
    whole = np.pad(pixels.astype(np.uint16) + 1, ((30, 10), (44, 0)), constant_values=0)
    return dicom(whole, PixelPaddingValue=0)


@pytest.mark.parametrize("square", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("cut", [{}, {"crop": "border"}, {"margin": 0.1}, {"crop": "border", "margin": 0.05}])
@pytest.mark.parametrize("kind", ["png", "large jpeg", "dicom"])
def test_a_mask_goes_the_way_of_its_image(square, cut, kind):
    height, width = (1250, 1600) if kind == "large jpeg" else (150, 190)  # the large one is decoded at a quarter
    pixels, (x, y, w, h) = bright_box(height, width)
    drawn = np.zeros_like(pixels)
    drawn[y : y + h, x : x + w] = 255
    data = {"png": png, "large jpeg": jpeg, "dicom": padded_dicom}[kind](pixels)
    if kind == "dicom":
        x, y, drawn = x + 44, y + 30, np.pad(drawn, ((30, 10), (44, 0)))
    params = pixel_params(square=square, **cut)
    radiograph = load_radiograph(data, params)
    shown = radiograph.image > 172  # half-way between the box and what surrounds it
    assert shown.any()
    of_file = mask_from_file(png(drawn), radiograph, 64) > 0
    of_boxes = mask_from_boxes(json.dumps([[x, y, w, h]]), radiograph) > 0
    edge = cv2.morphologyEx(shown.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    for found in (of_file, of_boxes):
        assert not (found ^ shown)[~edge].any()
        assert np.abs(np.argwhere(found).mean(axis=0) - np.argwhere(shown).mean(axis=0)).max() < 0.6  # pixels
        assert not found[np.isnan(radiograph.places[0])].any()
        assert not found[:, np.isnan(radiograph.places[1])].any()


def test_places_count_the_pixels_of_the_published_file():
    radiograph = load_radiograph(png(film(0, 64, 128)[0]), pixel_params(square="letterbox"))
    rows, columns = radiograph.places
    assert columns.tolist() == (2 * np.arange(64) + 1).tolist()
    assert np.isnan(rows[:16]).all()
    assert rows[16:48].tolist() == (2 * np.arange(32) + 1).tolist()


def test_a_mask_of_another_size_is_read_at_the_same_places():
    pixels, mask = film(3, 200, 240)
    radiograph = load_radiograph(png(pixels), pixel_params())
    whole = mask_from_file(png(mask), radiograph, 64)
    half = mask_from_file(png(cv2.resize(mask, (120, 100), interpolation=cv2.INTER_AREA)), radiograph, 64)
    assert whole.any()
    assert (whole != half).mean() < 0.01
    assert set(np.unique(whole)) == {0, 255}


def test_several_boxes_may_overlap_and_none_is_an_empty_mask():
    radiograph = load_radiograph(png(film(0, 64, 64)[0]), pixel_params())
    mask = mask_from_boxes("[[0, 0, 10, 4], [8, 2, 10, 4.0], [60, 60, 100, 100]]", radiograph)
    assert (mask > 0).sum() == 40 + 40 - 4 + 16
    assert not mask_from_boxes("[]", radiograph).any()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            png(np.full((100, 100), 255, np.uint8)),
            r"has 100x100 pixels, its image 120x100: the shapes differ",
        ),
        (png(film(0)[1] // 255), r"brightest grey level is 1; 0 outside and 255 inside are expected"),
        (png(film(0)[1])[:300], r"."),
        (dicom(film(0)[1]), r"a DICOM file; PNG or JPEG is expected"),
    ],
)
def test_a_mask_that_cannot_be_used_is_one_sentence(data, sentence):
    radiograph = load_radiograph(png(film(0)[0]), pixel_params())
    with pytest.raises(ImageError, match=sentence):
        mask_from_file(data, radiograph, 64)


def test_what_a_mask_calls_hidden_is_outside():
    pixels, mask = film(0)
    radiograph = load_radiograph(png(pixels), pixel_params())
    marked = mask.copy()
    marked[40:60, 20:40] = 127  # an arrow lies over the lung
    clean, hidden = (mask_from_file(png(m), radiograph, 64) for m in (mask, marked))
    assert not (hidden > clean).any()
    assert (hidden < clean).sum() > 20
