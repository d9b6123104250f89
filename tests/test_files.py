"""A file is whole or as it was before."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.files import write_csv, write_json, write_text, write_whole, writing


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    write_whole(path, b"old")
    path.with_name("report.json.part").write_bytes(b"of a run that was killed")
    with pytest.raises(FileNotFoundError), writing(path) as part:
        part.write_bytes(Path(tmp_path, "absent").read_bytes())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "report.json"
    with writing(path) as part:
        part.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_people_read_is_written_alike_everywhere(tmp_path):
    write_text(tmp_path / "page.html", "é\r\nß\n")
    assert (tmp_path / "page.html").read_bytes() == "é\r\nß\n".encode()
    write_json(tmp_path / "facts.json", {"n": 1, "name": "é", "list": [1.5, None]})
    text = (tmp_path / "facts.json").read_text()
    assert json.loads(text) == {"n": 1, "name": "é", "list": [1.5, None]}
    assert text.startswith('{\n  "n": 1,\n')
    assert text.endswith("}\n")
    table = pd.DataFrame({"name": ["é, è", None], "value": [1 / 3, np.nan]}, index=[7, 8])
    write_csv(tmp_path / "table.csv", table, float_format="%.4f")
    assert (tmp_path / "table.csv").read_bytes() == 'name,value\n"é, è",0.3333\n,\n'.encode()
    assert not list(tmp_path.glob("*.part"))
