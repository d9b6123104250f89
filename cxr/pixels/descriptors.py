"""The numbers that describe one radiograph; drift is told by them, and shortcuts are."""

import cv2
import numpy as np

from cxr.pixels.radiograph import Radiograph

LEVELS = np.arange(256)
IMMERKAER = np.array([1, -2, 1], np.float32)  # along rows and columns; blind to what is flat or slopes


def describe(radiograph: Radiograph) -> dict[str, float]:
    """The numbers in `cxr.dataset.manifest.DESCRIPTORS` of one radiograph, measured on its square image.

    `mean`, `contrast` (standard deviation), `p05`, `p95`, `border` (mean of the outer sixteenth) and `asymmetry`
    (left half minus right half) are in grey levels, `entropy` in bits, `sharpness` is log10 of the Laplacian's
    variance, `noise` the standard deviation by Immerkaer (1996), `aspect` width over height of the file.
    """
    image = radiograph.image
    size = image.shape[0]
    histogram = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel().astype(np.float64) / image.size
    cumulative = np.cumsum(histogram)
    mean = float(histogram @ LEVELS)
    used = histogram[histogram > 0]
    ring = size // 16
    inner = cv2.mean(image[ring:-ring, ring:-ring])[0]
    inner_share = (size - 2 * ring) ** 2 / size**2
    residual = cv2.sepFilter2D(image, cv2.CV_16S, IMMERKAER, IMMERKAER)[1:-1, 1:-1]
    edges = cv2.Laplacian(image, cv2.CV_16S)
    variance = cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2
    half = size // 2
    return {
        "aspect": radiograph.width / radiograph.height,
        "mean": mean,
        "contrast": float(np.sqrt(histogram @ (LEVELS - mean) ** 2)),
        "p05": float(np.searchsorted(cumulative, 0.05)),
        "p95": float(np.searchsorted(cumulative, 0.95)),
        "entropy": float(-(used * np.log2(used)).sum()),
        "sharpness": float(np.log10(variance + 1)),
        "noise": float(np.sqrt(np.pi / 2) / 6 * cv2.norm(residual, cv2.NORM_L1) / residual.size),
        "border": (mean - inner * inner_share) / (1 - inner_share),
        "asymmetry": cv2.mean(image[:, :half])[0] - cv2.mean(image[:, half:])[0],
    }
