"""How masks overlap: the measures, the gate and the card."""

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation import metrics
from cxr.evaluation.model_card import card, to_markdown
from cxr.params import GateRule
from cxr.release.model import Release
from stages.gate import judge
from tests.release_fixture import build_region_release


def squares(*corners: tuple[int, int, int, int]) -> np.ndarray:
    masks = np.zeros((len(corners), 8, 8), bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


TRUE = squares((0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 0, 0), (0, 0, 0, 0))
FOUND = squares((0, 0, 4, 4), (0, 0, 4, 2), (4, 4, 8, 8), (0, 0, 0, 0), (0, 0, 1, 1))


def test_overlaps_by_hand():
    found = metrics.overlaps(TRUE, FOUND)
    assert found["dice"].tolist() == pytest.approx([1, 16 / 24, 0, 1, 0])
    assert found["iou"].tolist() == pytest.approx([1, 8 / 16, 0, 1, 0])


def test_measures_of_regions_are_means_over_images_and_intervals_over_patients():
    measured = metrics.overlaps(TRUE, FOUND)
    y_true = np.array([1, 1, 1, 0, 0])
    found = metrics.measure_overlaps(measured, y_true, ("Background", "Opacity"))
    assert (found["n"], found["dice"], found["mean_iou"]) == (5, 0.5333, 0.5)
    assert found["classes"]["Opacity"] == {"n": 3, "dice": 0.5556, "mean_iou": 0.5}
    nobody = metrics.measure_overlaps(measured[:3], y_true[:3], ("Background", "Opacity"))
    assert nobody["classes"]["Background"] == {"n": 0, "dice": None, "mean_iou": None}
    one_patient = metrics.overlap_intervals(measured, np.zeros(5), 100, 0)
    assert one_patient == {"dice": [0.5333, 0.5333], "mean_iou": [0.5, 0.5]}
    low, high = metrics.overlap_intervals(measured, np.arange(5), 1000, 0)["dice"]
    assert low < 0.5333 < high


@pytest.mark.parametrize(
    ("metric", "limit", "passed"),
    [("dice", 0.5333, True), ("dice", 0.5334, False), ("mean_iou", 0.5, True), ("dice[Opacity]", 0.6, False)],
)
def test_the_gate_judges_overlaps(metric, limit, passed):
    y_true = np.array([1, 1, 1, 0, 0])
    slices = {"test": metrics.measure_overlaps(metrics.overlaps(TRUE, FOUND), y_true, ("Background", "Opacity"))}
    rule = GateRule(metric=metric, slice="test", comparison=">=", limit=limit)
    assert judge(rule, slices)["passed"] is passed


def test_a_rule_of_classifiers_is_one_sentence_for_a_region():
    slices = {"test": metrics.measure_overlaps(metrics.overlaps(TRUE, FOUND), np.ones(5, int), ("Background", "Lungs"))}
    rule = GateRule(metric="auroc_macro", slice="test", comparison=">=", limit=0.5)
    with pytest.raises(CxrError, match=r"gate: no metric 'auroc_macro'; there are n, dice, mean_iou"):
        judge(rule, slices)


def test_the_card_tells_overlaps(tmp_path):
    facts = Release.load(build_region_release(tmp_path)).facts
    measured = metrics.measure_overlaps(metrics.overlaps(TRUE, FOUND), np.ones(5, int), facts.classes)
    measured["interval_95"] = {"dice": [0.4, 0.6], "mean_iou": [0.3, 0.7]}
    training = {"model": "unet", "parameters": 1, "epochs_run": 1, "seed": 0, "balance": "none"}
    used = {split: {"Background": 0, "Lungs": 5} for split in ("train", "val", "test")}
    assembly = {"sources": {"covid": {"used": used}}}
    text = to_markdown(card(facts, training, assembly, [], {"slices": {"test": measured}}, {"rules": []}))
    assert "| test | 5 | 0.533 (0.400 to 0.600) | 0.500 (0.300 to 0.700) |" in text
    assert "Operating points (of a pixel): Background ≥ 0.500, Lungs ≥ 0.500" in text
    assert "AUROC" not in text
    assert "measures neither volume nor severity" in text
