"""Measures on cases small enough to check by hand, the degenerate ones, and the gate that judges them."""

import json

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation.metrics import bootstrap_interval, calibration_error, measure, operating_points
from cxr.params import GateRule
from stages.gate import gate, judge

CLASSES = ("Normal", "Pneumonia")


def scores(positive: list[float]) -> np.ndarray:
    return np.stack([1 - np.array(positive), positive], axis=1)


def test_measures_by_hand():
    y_true = np.array([0, 0, 0, 1, 1])
    found = measure(y_true, scores([0.1, 0.4, 0.7, 0.6, 0.9]), [0.5, 0.8], CLASSES)
    assert found["accuracy"] == 0.8
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
    pneumonia = found["classes"]["Pneumonia"]
    assert pneumonia["recall"] == 1  # of the most probable class
    assert pneumonia["sensitivity"] == 0.5  # at the operating point 0.8
    assert pneumonia["specificity"] == 1
    assert pneumonia["precision"] == pytest.approx(2 / 3, abs=1e-4)
    assert pneumonia["auroc"] == pytest.approx(5 / 6, abs=1e-4)
    assert found["auroc_macro"] == pytest.approx(5 / 6, abs=1e-4)


def test_one_class_leaves_measures_undefined_not_guessed():
    found = measure(np.zeros(4, int), scores([0.1, 0.2, 0.3, 0.6]), [0.5, 0.5], CLASSES)
    assert found["accuracy"] == 0.75
    assert found["auroc_macro"] is None
    assert found["classes"]["Pneumonia"]["recall"] is None
    assert found["classes"]["Pneumonia"]["sensitivity"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_calibration_error_of_perfect_and_of_overconfident_scores():
    y_true = np.array([0, 1] * 50)
    assert calibration_error(y_true, scores(y_true.astype(float).tolist())) == 0
    assert calibration_error(y_true, scores([1.0] * 100)) == pytest.approx(0.5)


def test_an_operating_point_separates_what_can_be_separated():
    y_true = np.array([0, 0, 0, 1, 1])
    point = operating_points(y_true, scores([0.1, 0.2, 0.3, 0.35, 0.9]))[1]
    assert 0.3 < point <= 0.35
    assert operating_points(np.zeros(3, int), scores([0.1, 0.2, 0.3])) == [0.5, 0.5]


def test_intervals_hold_the_measure_and_draw_patients():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, 200)
    y_score = scores(np.clip(y_true * 0.3 + rng.uniform(0, 0.7, 200), 0, 1).tolist())
    accuracy = float((y_score.argmax(1) == y_true).mean())
    by_image = bootstrap_interval(y_true, y_score, np.arange(200), CLASSES, 60, 0)["accuracy"]
    by_patient = bootstrap_interval(y_true, y_score, np.arange(200) // 20, CLASSES, 60, 0)["accuracy"]
    assert by_image[0] < accuracy < by_image[1]
    assert by_image == bootstrap_interval(y_true, y_score, np.arange(200), CLASSES, 60, 0)["accuracy"]
    assert by_patient != by_image


SLICES = {"test": {"n": 10, "accuracy": 0.8, "auroc_macro": None, "classes": {"COVID-19": {"sensitivity": 0.7}}}}


@pytest.mark.parametrize(
    ("metric", "comparison", "limit", "passed"),
    [
        ("accuracy", ">=", 0.8, True),  # exactly at the limit
        ("accuracy", ">", 0.8, False),
        ("accuracy", "<=", 0.8, True),
        ("accuracy", "<", 0.8, False),
        ("sensitivity[COVID-19]", ">=", 0.71, False),
        ("auroc_macro", ">=", 0.0, False),  # undefined is never good enough
    ],
)
def test_a_rule_is_judged(metric, comparison, limit, passed):
    result = judge(GateRule(metric=metric, slice="test", comparison=comparison, limit=limit), SLICES)
    assert result["passed"] is passed
    assert str(limit) in str(result["sentence"]) or f"{limit:g}" in str(result["sentence"])


@pytest.mark.parametrize(
    ("metric", "slice_", "sentence"),
    [
        ("acuracy", "test", "no metric 'acuracy'; there are n, accuracy"),
        ("accuracy", "test/rsna", "no slice 'test/rsna'; there are test"),
        ("sensitivity[Flu]", "test", "no class 'Flu'"),
    ],
)
def test_an_unknown_name_in_a_rule_is_an_error(metric, slice_, sentence):
    with pytest.raises(CxrError, match=sentence):
        judge(GateRule(metric=metric, slice=slice_, comparison=">=", limit=0.5), SLICES)


def test_the_verdict_is_written_whether_it_passes_or_not(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"slices": SLICES}))
    rules = [
        GateRule(metric="accuracy", slice="test", comparison=">=", limit=0.5),
        GateRule(metric="accuracy", slice="test", comparison=">=", limit=0.9),
    ]
    failures = gate(rules, tmp_path / "metrics.json", tmp_path / "gate.json")
    assert failures == ["accuracy 0.8000 not >= 0.9 (test, 10 images)"]
    verdict = json.loads((tmp_path / "gate.json").read_text())
    assert verdict["passed"] is False
    assert [rule["passed"] for rule in verdict["rules"]] == [True, False]
