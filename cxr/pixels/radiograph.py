"""From the bytes of one radiograph to the square uint8 image that the model reads."""

from dataclasses import dataclass

import numpy as np

from cxr.params import PixelParams
from cxr.pixels.canonical import cut_off, places, render
from cxr.pixels.dicom import decode_dicom
from cxr.pixels.header import accepted_header
from cxr.pixels.raster import decode_raster
from cxr.pixels.resize import halve
from cxr.pixels.stated import NOTHING, Stated
from cxr.pixels.thumbs import to_thumb


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph, bone bright.

    `image`: the canonical square, uint8 (size, size). `thumb`: the whole image before any standardisation, stretched to
    uint8 (64, 64). `width`, `height`, `bits`: of the file. `places`: the file's row and column, in its pixels, at the
    centre of each row and each column of the square, see `cxr.pixels.canonical.places`. `stated`: what its header says.
    """

    image: np.ndarray
    thumb: np.ndarray
    width: int
    height: int
    bits: int
    places: tuple[np.ndarray, np.ndarray]
    stated: Stated = NOTHING


def load_radiograph(data: bytes, params: PixelParams) -> Radiograph:
    """Read one PNG, JPEG or single-frame DICOM file into the canonical square.

    Raises ImageError for anything else, for a truncated file, for less than MIN_SIDE and for more than
    `params.max_megapixels`. Memory stays within a few bytes a pixel, whatever the file claims.
    """
    header = accepted_header(data, params.max_megapixels)
    if header.dicom is not None:
        pixels, (top, left) = decode_dicom(header.dicom)
        height, width = pixels.shape
    else:
        pixels, (top, left) = decode_raster(data, header, params.size), (0, 0)
        height, width = header.height, header.width
    pixels = halve(pixels, 2 * params.size, 2 * params.size)  # as the JPEG decoder does; the rest is cheaper so
    frame = cut_off(pixels, params)
    rows, columns = places(pixels.shape, frame, params)
    return Radiograph(
        image=render(pixels, frame, params),
        thumb=to_thumb(pixels),
        width=header.width,
        height=header.height,
        bits=header.bits,
        places=(top + rows * height / pixels.shape[0], left + columns * width / pixels.shape[1]),
        stated=header.stated,
    )
