"""Drawn radiographs that the content check takes for frontal chest films, and what it does not."""

from functools import cache
from itertools import islice

import numpy as np

from cxr.demo.cases import CASES
from cxr.demo.draw import draw_case
from cxr.demo.other_views import draw_ct_slice, draw_lateral
from cxr.params import load_params

SEED = load_params().seed


@cache
def chest_film(n: int = 0) -> np.ndarray:
    """uint8 (height, width): the n-th film of the demo's NIH; read it, never change it."""
    return draw_case(SEED, next(islice(CASES["nih"](SEED), n, None)))


def not_frontal() -> dict[str, np.ndarray]:
    """Pictures by the words that the content check has for them."""
    rng, film = np.random.default_rng(5), chest_film()
    return {
        "a lateral view": draw_lateral(rng),
        "a CT slice": draw_ct_slice(rng),
        "inverted, bone dark": 255 - film,
        "upside down": np.ascontiguousarray(film[::-1, ::-1]),
        "on its side": np.ascontiguousarray(np.rot90(film)),
        "blank": np.full((300, 300), 90, np.uint8),
    }
