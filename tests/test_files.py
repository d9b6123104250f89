"""A file is whole or as it was before."""

import ast
import json
from collections.abc import Iterator
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


# What writes otherwise, and why it may.
OTHERWISE = {
    "cxr/demo/layouts.py": "into a folder that gets its name when all of it is drawn",
    "cxr/raw/download.py": "what a download goes on with, whole or not",
    "flows/lock.py": "into the very file that is locked",
    "stages/package.py": "the log of another process",
}


def written_plainly(path: Path) -> Iterator[str]:
    """Where a file is written under its own name, as far as a call tells it."""
    tree = ast.parse(path.read_text())
    temporary = {
        item.optional_vars.id
        for block in ast.walk(tree)
        if isinstance(block, ast.With)
        for item in block.items
        if isinstance(item.optional_vars, ast.Name) and ast.unparse(item.context_expr).startswith("writing(")
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = [ast.unparse(argument) for argument in call.args]
        if isinstance(call.func, ast.Name):
            plain = call.func.id == "open" and any(mode.strip("'")[:1] in ("w", "x") for mode in given[1:2])
        elif isinstance(call.func, ast.Attribute):
            of = ast.unparse(call.func.value)
            plain = of not in temporary and (
                call.func.attr in ("write_text", "write_bytes")
                or (call.func.attr in ("to_csv", "to_parquet", "savefig") and bool(given))
                or (call.func.attr == "dump" and of in ("json", "yaml"))
                or (call.func.attr == "open" and any(mode.strip("'")[:1] in ("w", "x") for mode in given[:1]))
            )
        else:
            plain = False
        if plain and given[:1] not in [[name] for name in temporary]:
            yield f"{path}:{call.lineno}"


def test_every_file_is_written_whole():
    rooms = ("checks", "cxr", "flows", "server", "stages", "study")
    files = [Path("service.py"), *(path for room in rooms for path in Path(room).rglob("*.py"))]
    found = [where for path in files if str(path) not in OTHERWISE for where in written_plainly(path)]
    assert not found, "use the writers of cxr/files.py"


def test_a_plain_write_is_found(tmp_path):
    lines = [
        "path.write_text('')", "open(path, 'w')", "path.open('wb')", "table.to_csv(path, index=False)",
        "figure.savefig(path)", "json.dump({}, file)",
    ]  # fmt: skip
    allowed = ["with writing(path) as part:", "    table.to_parquet(part)", "    part.write_text('')", "open(path)"]
    (tmp_path / "a.py").write_text("\n".join([*lines, *allowed, "write_text(path, table.to_csv(index=False))"]))
    assert len(list(written_plainly(tmp_path / "a.py"))) == len(lines)
