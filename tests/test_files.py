"""A file is whole or as it was before."""

from pathlib import Path

import pytest

from cxr.files import write_whole, writing


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
