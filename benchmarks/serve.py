"""Latency and throughput of the running service: `python -m benchmarks.serve [http://127.0.0.1:3000]`.

One JPEG of 1500 x 1200 drawn in memory; 100 requests in turn, then 100 from 8 clients at once.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np

from cxr.demo.cases import CASES
from cxr.demo.draw import draw_case

SEED = 0
REQUESTS = 100
CLIENTS = 8


def draw_jpeg() -> bytes:
    """A film of the demo, since the service refuses what is none, uint8 (1200, 1500) with grain: 0.3 byte a pixel."""
    film = draw_case(SEED, next(CASES["nih"](SEED)))
    smooth = cv2.resize(film, (1500, 1200), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 4, smooth.shape)
    return cv2.imencode(".jpg", np.uint8(np.clip(smooth + grain, 0, 255)))[1].tobytes()


def post(client: httpx.Client, jpeg: bytes) -> float:
    """Seconds of one prediction. Raises httpx.HTTPStatusError unless it succeeds."""
    start = time.perf_counter()
    client.post("/v1/predict", files={"file": ("chest.jpg", jpeg)}).raise_for_status()
    return time.perf_counter() - start


def main(url: str) -> None:
    jpeg = draw_jpeg()
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        post(client, jpeg)
        in_turn = [post(client, jpeg) for _ in range(REQUESTS)]
        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as threads:
            at_once = list(threads.map(lambda _: post(client, jpeg), range(REQUESTS)))
        seconds = time.perf_counter() - start
    print(f"JPEG of 1500 x 1200, {len(jpeg) / 1e3:.0f} kB, {REQUESTS} requests each")
    for name, values in (("in turn", in_turn), (f"{CLIENTS} clients", at_once)):
        p50, p95 = np.percentile(values, [50, 95]) * 1e3
        print(f"{name:10} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms")
    print(f"{CLIENTS} clients  {REQUESTS / seconds:.1f} images/s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000")
