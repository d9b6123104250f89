"""What nothing can beat: processes that read, decode and resize films, and keep nothing; `benchmarks.ingest` times it.

`python -m benchmarks.bare_loop SIZE < LIST`: each line of LIST is OpenCV's decoding flag and a path.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np


def bare_loop(work: list[str], size: int) -> None:
    cv2.setNumThreads(1)
    for line in work:
        flag, path = line.split(" ", 1)
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), int(flag))
        cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    work = sys.stdin.read().splitlines()
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(bare_loop, [work[k::workers] for k in range(workers)], [int(sys.argv[1])] * workers))
