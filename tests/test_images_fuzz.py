"""Whatever the bytes are, `load_radiograph` gives a square or an ImageError, and nothing else."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from cxr.errors import ImageError
from cxr.params import load_params
from cxr.pixels.descriptors import describe
from cxr.pixels.radiograph import Radiograph, load_radiograph
from tests.hostile_files import (
    PNG_START,
    black_png,
    chunk,
    interlaced_png,
    pillow_bytes,
    png_of,
    progressive_jpeg,
    zeros,
    zip_of,
)
from tests.image_files import dicom, draw, jpeg, png

# pydicom and Pillow warn of what they read, at length
pytestmark = [pytest.mark.filterwarnings(f"ignore::UserWarning:{module}") for module in ("pydicom", "PIL")]

PYTHON = re.compile(r"\w(Error|Exception|Warning)\b")  # a class of Python's, which tells nobody what to do
SIZE = 48
PARAMS = load_params().ingest.pixels.model_copy(update={"size": SIZE, "max_megapixels": 1})
PIXELS = draw(60, 80)
EXIF = Image.Exif()
EXIF[274], EXIF[270], EXIF[306] = 6, "Chest", "2020:01:01 00:00:00"
FILES = {
    "png": png(PIXELS),
    "png16": png(PIXELS.astype(np.uint16) * 257),
    "jpeg": jpeg(PIXELS),
    "progressive": cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "exif": pillow_bytes(Image.fromarray(PIXELS), "JPEG", exif=EXIF),
    "dicom": dicom(PIXELS),
    "dicom16": dicom(PIXELS.astype(np.uint16) * 16),
    "bare dicom": dicom(PIXELS, syntax=uid.ImplicitVRLittleEndian, meta=False),
    "bare explicit dicom": dicom(PIXELS, meta=False),
    "dicom in three colours": dicom(np.dstack([PIXELS] * 3)),
}
MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0" * 128 + b"DICM", b"\x08\0\x05\0CS\0\0\x08\0"]
bounded = settings(
    max_examples=60, deadline=timedelta(seconds=2), derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def load_or_refuse(data: bytes) -> Radiograph | None:
    radiograph, sentence = None, ""
    try:
        radiograph = load_radiograph(data, PARAMS)
    except ImageError as error:
        sentence = str(error)
    assert not PYTHON.search(sentence)
    if radiograph is None:
        return None
    assert radiograph.image.shape == (SIZE, SIZE)
    assert radiograph.image.dtype == np.uint8
    assert all(np.isfinite(value) for value in describe(radiograph).values())
    return radiograph


@pytest.mark.parametrize("name", FILES)
def test_whole_files_load(name: str) -> None:
    assert load_or_refuse(FILES[name])


@bounded
@given(st.binary(max_size=400), st.sampled_from(MAGIC))
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


@bounded
@given(flips=st.lists(st.tuples(st.integers(0, len(EXIF.tobytes())), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits_of_exif(flips: list[tuple[int, int]]) -> None:
    """The only part of a JPEG that is parsed by Python before the decoder checks anything."""
    start = FILES["exif"].find(b"Exif")
    load_or_refuse(_flip(FILES["exif"], [(start + place, bit) for place, bit in flips]))


def test_an_orientation_that_is_no_number_turns_nothing() -> None:
    data = FILES["exif"].replace(b"\x01\x12\0\3", b"\x01\x12\0\7")  # tag 274 as undefined bytes
    assert data != FILES["exif"]
    radiograph = load_radiograph(data, PARAMS)
    assert (radiograph.width, radiograph.height) == (80, 60)


KINDS = {
    "an empty file": (b"", "it starts with nothing"),
    "a GIF": (pillow_bytes(Image.fromarray(PIXELS), "GIF"), "but GIF"),
    "a BMP": (pillow_bytes(Image.fromarray(PIXELS), "BMP"), "but BMP"),
    "a TIFF": (pillow_bytes(Image.fromarray(PIXELS), "TIFF"), "but TIFF"),
    "a WebP": (pillow_bytes(Image.fromarray(PIXELS), "WEBP"), "but WebP"),
    "a JPEG 2000": (pillow_bytes(Image.fromarray(PIXELS), "JPEG2000"), "but JPEG 2000"),
    "a PDF": (b"%PDF-1.7", "but PDF"),
    "a HEIC": (b"\0\0\0\x18ftypheic", "but HEIC"),
    "an SVG": (b'\n<?xml version="1.0"?><svg/>', "but a web page, SVG or other XML"),
    "a zip": (zip_of({"x.png": b""}), "but a zip archive"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "but a Git LFS pointer"),
    "noise": (bytes(range(200, 256)), r"it starts with c8 c9 ca cb cc cd ce cf\)"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_file_is_instead_is_told(name: str) -> None:
    data, sentence = KINDS[name]
    with pytest.raises(ImageError, match=f"not a PNG, JPEG or DICOM file.*{sentence}"):
        load_radiograph(data, PARAMS)


def test_what_a_file_is_decides_and_not_its_name() -> None:
    """PNGs named .jpg and the like are common; no name comes this far."""
    grey = load_radiograph(FILES["png"], PARAMS).image.astype(int)
    colour = np.dstack([PIXELS] * 3 + [np.full_like(PIXELS, 255)])
    for data in (interlaced_png(PIXELS), png(colour)):
        assert np.abs(load_radiograph(data, PARAMS).image - grey).max() <= 2
    deep, deep_colour = (
        load_radiograph(data, PARAMS) for data in (FILES["png16"], png(colour.astype(np.uint16) * 257))
    )
    assert deep.bits == deep_colour.bits == 16
    assert np.abs(deep_colour.image.astype(int) - deep.image).max() <= 2
    for mode in ("CMYK", "RGB", "L"):
        data = pillow_bytes(Image.fromarray(PIXELS).convert("RGB").convert(mode), "JPEG", quality=95)
        assert np.abs(load_radiograph(data, PARAMS).image - grey).mean() < 2, mode


SMALL = 64
BOMBS = {
    "30,000 x 30,000": (black_png(30_000, 30_000, pixels=b""), "30000x30000 pixels: more than 1 megapixels"),
    "1 x 1": (black_png(1, 1), "1x1 pixels: a side of less than 32"),
    "0 x 0": (black_png(0, 0), "0x0 pixels"),
    "a line": (black_png(31, 30_000), "31x30000 pixels: a side of less than 32"),
    "excess": (black_png(SMALL, SMALL, pixels=zeros(3000)), "inflates to more than its 64x64 pixels"),
    "excess in parts": (
        black_png(SMALL, SMALL, pixels=zeros(1500), after=chunk(b"IDAT", zeros(1500))), "inflates to more",
    ),
    "text": (black_png(SMALL, SMALL, *[chunk(b"zTXt", b"a\0\0" + zeros(1))] * 2500), "of packed text and profiles"),
    "one text": (black_png(SMALL, SMALL, chunk(b"zTXt", b"a\0\0" + zeros(1500))), ""),
    "profile": (black_png(SMALL, SMALL, chunk(b"iCCP", b"a\0\0" + zeros(1500))), ""),
    "chunks": (black_png(SMALL, SMALL, *[chunk(b"tEXt")] * 200_000), "more than 100000 chunks"),
    "2 GB in a chunk": (
        PNG_START + black_png(SMALL, SMALL)[8:33] + b"\x7f\xff\xff\xffIDAT" + bytes(1000), "the PNG file is truncated",
    ),
    "animation": (black_png(SMALL, SMALL, chunk(b"acTL", b"\x40\0\0\0\0\0\0\0")), "is an animation"),
    "scans": (progressive_jpeg(900, 2000), "more than 100 scans"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_or_harmless(name: str) -> None:
    data, sentence = BOMBS[name]
    if sentence:
        with pytest.raises(ImageError, match=sentence):
            load_radiograph(data, PARAMS)
    else:
        assert load_radiograph(data, PARAMS).image.max() == 0


BOMB_CHILD = """
import sys, time
from pathlib import Path
from cxr.errors import ImageError
from cxr.pixels.radiograph import load_radiograph
from cxr.params import load_params
params = load_params().ingest.pixels
load_radiograph(Path(sys.argv[1]).read_bytes(), params)
for path in sys.argv[1:]:
    data, before = Path(path).read_bytes(), time.process_time()
    try:
        load_radiograph(data, params)
    except ImageError:
        pass
    print(time.process_time() - before)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.heavy
def test_bombs_take_little_time_and_memory(tmp_path: Path) -> None:
    """With the shipped limit on pixels, of which the largest image that it lets pass takes some bytes each."""
    side = int((load_params().ingest.pixels.max_megapixels * 1e6) ** 0.5)
    pixels = chunk(b"IDAT", zeros((side * (2 * side + 1) >> 20) + 1))
    largest = [png_of(side, side, 16, 0, pixels), progressive_jpeg(side, 20)]
    files = [FILES["png"], *(data for data, _ in BOMBS.values()), *largest]
    for n, data in enumerate(files):
        (tmp_path / f"{n:02d}").write_bytes(data)
    command = [sys.executable, "-c", BOMB_CHILD, *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *seconds, peak_kb = map(float, done.stdout.split())
    assert len(seconds) == len(files)
    assert max(seconds) < 10
    assert peak_kb < 500_000


def test_more_pixels_than_the_header_says_are_refused() -> None:
    data = dicom(draw(120, 80)).replace(b"\x28\x00\x10\x00US\x02\x00\x78", b"\x28\x00\x10\x00US\x02\x00\x28")
    with pytest.raises(ImageError, match="40 rows of 80 columns take 3200 bytes, the pixel data holds 9600"):
        load_radiograph(data, PARAMS)
