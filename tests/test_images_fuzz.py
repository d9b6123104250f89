"""Whatever the bytes are, `load_radiograph` gives a square or an ImageError, and nothing else."""

import resource
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr.errors import ImageError
from cxr.images import Radiograph, describe, load_radiograph
from cxr.params import load_params
from tests.image_files import aborting_dicom, dicom, draw, jpeg, lossless_jpeg_dicom, png

# pydicom warns of what it reads, at length
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SIZE = 48
PARAMS = load_params().ingest.pixels.model_copy(update={"size": SIZE, "max_megapixels": 1})
PIXELS = draw(60, 80)
FILES = {
    "png": png(PIXELS),
    "png16": png(PIXELS.astype(np.uint16) * 257),
    "jpeg": jpeg(PIXELS),
    "dicom": dicom(PIXELS),
    "dicom16": dicom(PIXELS.astype(np.uint16) * 16),
}
MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0" * 128 + b"DICM"]
bounded = settings(
    max_examples=60, deadline=timedelta(seconds=2), derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def load_or_refuse(data: bytes) -> Radiograph | None:
    try:
        radiograph = load_radiograph(data, PARAMS)
    except ImageError:
        return None
    assert radiograph.image.shape == (SIZE, SIZE)
    assert radiograph.image.dtype == np.uint8
    assert len(radiograph.phash) == 32
    assert all(np.isfinite(value) for value in describe(radiograph).values())
    return radiograph


@pytest.mark.parametrize("name", FILES)
def test_whole_files_load(name: str) -> None:
    assert load_or_refuse(FILES[name])


@bounded
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0" * 128 + b"DICM"])
)
def test_random_bytes(data: bytes, magic: bytes) -> None:
    load_or_refuse(magic + data)


@pytest.mark.parametrize("name", FILES)
@bounded
@given(share=st.floats(0, 0.98))
def test_truncated_files_are_refused(name: str, share: float) -> None:
    data = FILES[name]
    assert load_or_refuse(data[: int(len(data) * share)]) is None


@pytest.mark.parametrize("name", FILES)
@bounded
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits(name: str, flips: list[tuple[float, int]]) -> None:
    load_or_refuse(_flip(FILES[name], [(int(share * len(FILES[name])), bit) for share, bit in flips]))


@pytest.mark.parametrize("name", FILES)
@bounded
@given(flips=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_header_bits(name: str, flips: list[tuple[int, int]]) -> None:
    """Most of a file is pixels; the headers, where sizes and types stand, get their own share of faults."""
    load_or_refuse(_flip(FILES[name], flips))


def _flip(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, bit in flips:
        changed[place % len(changed)] ^= 1 << bit
    return bytes(changed)


def test_a_png_chunk_that_claims_2_gb_takes_no_memory() -> None:
    data = bytearray(FILES["png"])
    data[data.find(b"IDAT") - 4] = 0x7F
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="truncated"):
        load_radiograph(bytes(data), PARAMS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_lossless_jpeg_in_dicom_loses_nothing(tmp_path: Path) -> None:
    plain = load_radiograph(dicom(PIXELS), PARAMS)
    compressed = load_radiograph(lossless_jpeg_dicom(PIXELS, tmp_path), PARAMS)
    np.testing.assert_array_equal(compressed.image, plain.image)


def test_a_file_that_ends_the_decoders_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="the decoder stopped with status -"):
        load_radiograph(aborting_dicom(tmp_path), PARAMS)


def test_more_pixels_than_the_header_says_are_refused() -> None:
    data = dicom(PIXELS).replace(b"\x28\x00\x10\x00US\x02\x00\x3c", b"\x28\x00\x10\x00US\x02\x00\x0a")
    with pytest.raises(ImageError, match="not one grey image"):
        load_radiograph(data, PARAMS)
