"""Masks: which pixels of an image's square show a region, from a mask's file or from boxes.

Both are read at the places of the published file that the square's pixels show. So a mask always fits its image,
whatever was cut off and however the image was fitted.
"""

import json

import numpy as np

from cxr.errors import ImageError
from cxr.pixels.radiograph import Radiograph
from cxr.pixels.raster import load_raster

INSIDE = 128  # grey level of a mask's file from which on a pixel shows the region; some files hold 127 for `hidden`


def mask_from_file(data: bytes, radiograph: Radiograph, max_megapixels: float) -> np.ndarray:
    """The square's mask, uint8 (size, size), 0 or 255, from a PNG or JPEG: white where the region is.

    A file smaller or larger than its image is read at the same place of the whole. Raises ImageError for what cannot
    be decoded, for another aspect ratio than the image's, and where nothing is black or white.
    """
    pixels = load_raster(data, max_megapixels)
    height, width = pixels.shape
    if abs(width * radiograph.height - height * radiograph.width) > (radiograph.width + radiograph.height) / 2:
        raise ImageError(
            f"the mask has {width}x{height} pixels, its image {radiograph.width}x{radiograph.height}: the shapes "
            "differ; draw the mask on the image itself"
        )
    if 0 < pixels.max() < INSIDE:
        raise ImageError(f"the mask's brightest grey level is {pixels.max()}; 0 outside and 255 inside are expected")
    scales = height / radiograph.height, width / radiograph.width
    rows, columns = (place * scale for place, scale in zip(radiograph.places, scales, strict=True))
    shown = np.outer(~np.isnan(rows), ~np.isnan(columns))
    nearest = pixels[np.ix_(np.nan_to_num(rows).astype(int), np.nan_to_num(columns).astype(int))]
    return np.uint8(255) * (shown & (nearest >= INSIDE))


def mask_from_boxes(boxes: str, radiograph: Radiograph) -> np.ndarray:
    """The square's mask, uint8 (size, size), 0 or 255: the pixels whose centre lies in a box.

    `boxes`: JSON [[x, y, width, height], ...] in pixels of the published file, none for an empty mask.
    """
    rows, columns = radiograph.places
    inside = np.zeros((len(rows), len(columns)), bool)
    for x, y, width, height in json.loads(boxes):
        inside |= np.outer((rows >= y) & (rows < y + height), (columns >= x) & (columns < x + width))
    return np.uint8(255) * inside
