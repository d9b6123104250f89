"""From bytes to the square image."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from cxr.dataset.manifest import DESCRIPTORS
from cxr.errors import ImageError
from cxr.params import load_params
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import load_radiograph
from cxr.pixels.thumbs import perceptual_hash, to_thumb
from tests.tiny_sources import encode, picture


def load(data: bytes, size: int = 64, **changes):
    params = load_params().ingest.pixels.model_copy(update={"size": size, "max_megapixels": 1} | changes)
    return load_radiograph(data, params)


def pillow_bytes(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_a_square_of_the_right_size_passes_unchanged():
    image = picture(1, 0.5, 64, 64)
    assert (load(encode(image, ".png")).image == image).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_every_png_mode_gives_the_same_grey_image(mode):
    grey = Image.fromarray(picture(2, 0.5))
    changed = grey.quantize(256) if mode == "P" else grey.convert(mode)
    found = load(pillow_bytes(changed)).image
    assert np.abs(found.astype(int) - load(pillow_bytes(grey)).image).max() <= (4 if mode == "P" else 1)


def test_sixteen_bits_are_stretched_by_their_own_range():
    grey = picture(3, 1.0)
    twelve_bit = (grey.astype(np.uint16) - grey.min()) * 16
    found = load(encode(twelve_bit, ".png"))
    assert found.bits == 16
    assert found.image[10:50].max() >= 250


def test_the_scaled_jpeg_decoder_is_close_to_full_decoding():
    large = cv2.resize(picture(4, 1.0), (1920, 1600), interpolation=cv2.INTER_CUBIC)
    scaled = load(encode(large, ".jpg"), max_megapixels=4).image
    full = load(encode(large, ".png"), max_megapixels=4).image
    assert np.abs(scaled.astype(int) - full).mean() < 1.5


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a PNG, JPEG or DICOM file"),
        (b"GIF89a" + bytes(100), "not a PNG, JPEG or DICOM file"),
        (encode(picture(5, 0), ".jpg")[:-300], "truncated at"),
        (encode(picture(5, 0), ".png")[:-300], "truncated at"),
        (encode(np.zeros((1200, 1200), np.uint8), ".png"), "more than 1 megapixels"),
    ],
)
def test_what_is_no_readable_image_is_refused_with_a_reason(data, sentence):
    with pytest.raises(ImageError, match=sentence):
        load(data)


def test_a_hash_survives_rescaling_and_tells_pictures_apart():
    def distance(a, b):
        return np.unpackbits(
            np.frombuffer(perceptual_hash(to_thumb(a)), np.uint8)
            ^ np.frombuffer(perceptual_hash(to_thumb(b)), np.uint8)
        ).sum()

    image = picture(6, 0.5)
    assert distance(image, cv2.resize(image, (200, 150), interpolation=cv2.INTER_CUBIC)) <= 24
    assert distance(image, picture(7, 0.5)) > 48


def test_descriptors_are_finite_and_right_on_a_known_image():
    image = np.zeros((64, 64), np.uint8)
    image[:, :32] = 100
    found = describe(load(encode(image, ".png")))
    assert tuple(found) == DESCRIPTORS
    assert all(np.isfinite(v) for v in found.values())
    assert [found[k] for k in ("mean", "contrast", "asymmetry", "border")] == pytest.approx([50, 50, 100, 50])
    assert found["entropy"] == pytest.approx(1)
