"""Every page that a person opens: one look, no network, and no script but the page's own.

A page is a template beside this file. Whatever a value holds is escaped, and a name that a template does not know is an
error. A page's script is a file beside its template; the page's Content-Security-Policy allows it by its hash alone.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cxr.files import write_whole

HERE = Path(__file__).parent


def render(template: str, values: Mapping[str, object]) -> str:
    """The page that `template`, a file of this folder, makes of `values`.

    Raises jinja2.UndefinedError where the template uses a name that `values` lacks.
    """
    return _environment().get_template(template).render(values)


def write_page(path: Path, template: str, values: Mapping[str, object]) -> None:
    """Render `template` and write it to `path`, whole or not at all."""
    write_whole(path, render(template, values).encode())


def head() -> str:
    """The policy and the stylesheet for the <head> of a page that another tool wrote: it then runs no script at all."""
    return render("head.html", {"script": ""})


def png_uri(pixels: np.ndarray) -> str:
    """A data URI of `pixels`, uint8 (height, width)."""
    return f"data:image/png;base64,{base64.b64encode(cv2.imencode('.png', pixels)[1].tobytes()).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["png"] = png_uri
    environment.globals |= {"inline": _inline, "hash_of": _hash_of}
    return environment


def _inline(name: str) -> Markup:
    """A file of this folder as it stands; it is the project's own and needs no escaping."""
    return Markup((HERE / name).read_text())  # noqa: S704


def _hash_of(name: str) -> str:
    """A file of this folder as a Content-Security-Policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256((HERE / name).read_bytes()).digest()).decode()}"
