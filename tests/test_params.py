"""params.yaml and its schema."""

from pathlib import Path

import pytest
import yaml

from cxr.errors import ParamsError
from cxr.params import load_params
from cxr.tasks import TASKS

SHIPPED = Path("params.yaml")


def changed(tmp_path: Path, **changes: object) -> Path:
    """A copy of the shipped file with `section__key` set."""
    values = yaml.safe_load(SHIPPED.read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_shipped_file_fits_and_every_source_is_the_demo():
    params = load_params(SHIPPED)
    assert params.task in TASKS
    assert all(source.origin == "demo" for source in params.sources.values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train__epoch": 3}, r"train\.epoch: unknown key"),
        ({"train__epochs": "many"}, r"train\.epochs: found 'many'"),
        ({"task": "tuberculosis"}, r"task: found 'tuberculosis'"),
        ({"assemble__val_fraction": 0.8}, r"leave|nothing is left to train on"),
        ({"sources__rsna": {"origin": "demo"}}, r"sources\.rsna"),
        ({"gate__rules": []}, r"gate\.rules"),
        ({"assemble__label_priority": ["rsna"]}, r"assemble names rsna, which is not under sources"),
        ({"assemble__pneumonia_findings": ["Consolidation"]}, r"Pneumonia itself must be among them"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, change, sentence):
    with pytest.raises(ParamsError, match=sentence):
        load_params(changed(tmp_path, **change))


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path):
    assert load_params(changed(tmp_path, train__learning_rate="1e-4")).train.learning_rate == 1e-4


def test_a_missing_or_broken_file_is_one_sentence(tmp_path):
    with pytest.raises(ParamsError, match="not found"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
