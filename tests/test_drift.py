"""The verdict's arithmetic, by hand and in its degenerate cases."""

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from cxr.dataset.manifest import DESCRIPTORS
from cxr.release.drift import (
    NAMED_COLUMNS,
    ColumnDrift,
    DriftVerdict,
    comparable_columns,
    drift_columns,
    drift_table,
    drift_verdict,
    log_table,
    standardised_shift,
)
from cxr.release.drift_report import first_seen, headline, pictures, what_changed

CLASSES = ["Normal", "Pneumonia"]


def judge_ks(current: pd.DataFrame, reference: pd.DataFrame, alpha: float = 0.05) -> DriftVerdict:
    p_values = {column: ks_2samp(current[column], reference[column]).pvalue for column in current}
    return drift_verdict(p_values, current, reference, alpha, min_images=1, window_hours=24)


def log_row(values: np.ndarray, probabilities: list[float], version: str = "v1") -> dict:
    return {
        "model_version": version,
        "descriptors": dict(zip(DESCRIPTORS, map(float, values), strict=True)),
        "probabilities": dict(zip(CLASSES, probabilities, strict=True)),
    }


def test_verdict_by_hand() -> None:
    reference = pd.DataFrame({"mean": [0.0, 2.0, 4.0], "noise": [1.0, 2.0, 3.0]})
    current = pd.DataFrame({"mean": [8.0, 8.0], "noise": [2.0, 2.0]})
    verdict = drift_verdict({"noise": 0.03, "mean": 0.02}, current, reference, 0.05, 2, 24)
    assert [column.column for column in verdict.columns] == ["mean", "noise"]
    assert verdict.threshold == 0.025
    assert [column.drifted for column in verdict.columns] == [True, False]
    assert [column.shift_sd for column in verdict.columns] == [3.0, 0.0]  # (8 - 2) / sd 2
    assert verdict.drift
    assert verdict.sentence() == "drift: mean (p 0.02, +3.0 sd); 2 images in the last 24 h against 3 in the reference"
    assert json.loads(json.dumps(verdict.to_dict()))["columns"][0]["n_current"] == 2


@pytest.mark.parametrize(("p", "drifted"), [(0.025, True), (np.nextafter(0.025, 1), False)])
def test_threshold_is_alpha_shared_by_all_columns(p: float, drifted: bool) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    assert drift_verdict({"a": p, "b": 1.0}, table, table, 0.05, 1, 24).drift is drifted


def test_no_drift_names_the_least_p() -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    sentence = drift_verdict({"a": 0.5, "b": 0.4}, table, table, 0.05, 1, 1.5).sentence()
    expected = (
        "2 images in the last 1.5 h against 2 in the reference (2 columns; the least p is 0.4, the threshold 0.025)"
    )
    assert sentence == f"no drift: {expected}"


def test_no_column_gives_no_verdict() -> None:
    verdict = drift_verdict({}, pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": [1.0] * 9}), 0.05, 30, 24)
    assert not verdict.enough
    assert not verdict.drift
    assert verdict.sentence() == "no verdict: 1 image in the last 24 h, 30 needed"


def test_long_verdicts_are_cut() -> None:
    table = pd.DataFrame({f"c{i}": [1.0, 2.0] for i in range(NAMED_COLUMNS + 2)})
    sentence = drift_verdict(dict.fromkeys(table, 1e-9), table, table, 0.05, 1, 24).sentence()
    assert "c5 (p 1e-09, +0.0 sd) and 2 more;" in sentence


def test_constant_columns() -> None:
    constant, other = pd.Series([5.0] * 4), pd.Series([6.0] * 4)
    assert standardised_shift(constant, constant) == 0.0
    assert standardised_shift(other, constant) is None
    verdict = judge_ks(pd.DataFrame({"a": constant, "b": other}), pd.DataFrame({"a": [5.0] * 40, "b": [5.0] * 40}))
    assert {column.column: column.drifted for column in verdict.columns} == {"a": False, "b": True}
    assert "b (p 1e-05, constant in the reference)" in verdict.sentence()


def test_reference_and_log_hold_the_same_numbers() -> None:
    """The manifest keeps float32, the log float64 as JSON: a column of equal images must not differ by rounding."""
    rng = np.random.default_rng(0)
    values, probabilities = rng.normal(100, 10, (50, len(DESCRIPTORS))), rng.dirichlet([1, 1], 50)
    manifest = pd.DataFrame(values, columns=list(DESCRIPTORS)).astype(np.float32)
    reference = drift_table(manifest, probabilities, CLASSES)
    # another engine's scores differ in the last digits
    rows = [log_row(v, [p[0] + 1e-6, p[1] - 1e-6]) for v, p in zip(values, probabilities, strict=True)]
    current = log_table(json.loads(json.dumps(rows)), CLASSES, "v1")
    assert list(reference) == list(current) == drift_columns(CLASSES)
    pd.testing.assert_frame_equal(reference[list(DESCRIPTORS)], current[list(DESCRIPTORS)])
    assert all(ks_2samp(current[column], reference[column]).pvalue > 0.99 for column in reference)


def test_scores_of_another_version_are_left_out() -> None:
    values = np.ones(len(DESCRIPTORS))
    rows = [log_row(values, [0.2, 0.8]), log_row(values, [0.9, 0.1], "v0")]
    table = log_table(rows, CLASSES, "v1")
    assert table["mean"].count() == 2
    assert table["score_Normal"].tolist() == pytest.approx([0.2, np.nan], nan_ok=True)
    assert comparable_columns(table, 2) == list(DESCRIPTORS)
    assert comparable_columns(table, 1) == drift_columns(CLASSES)
    assert drift_verdict({"score_Normal": 1.0}, table, table, 0.05, 1, 24).columns[0].n_current == 1


def test_empty_log() -> None:
    table = log_table([], CLASSES, "v1")
    assert list(table) == drift_columns(CLASSES)
    assert len(table) == 0
    assert comparable_columns(table, 1) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0, 2))
def test_order_of_images_changes_nothing(seed: int, n: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    reference = pd.DataFrame(rng.normal(size=(60, 3)), columns=list("abc"))
    current = pd.DataFrame(rng.normal(shift, 1, (n, 3)), columns=list("abc"))
    first = judge_ks(current, reference)
    second = judge_ks(current.sample(frac=1, random_state=seed), reference.sample(frac=1, random_state=seed))
    assert [(c.column, c.p, c.drifted) for c in first.columns] == [(c.column, c.p, c.drifted) for c in second.columns]
    assert [c.shift_sd for c in first.columns] == pytest.approx([c.shift_sd for c in second.columns])


@pytest.mark.heavy
def test_false_alarms_stay_within_alpha() -> None:
    """400 windows without drift, correlated columns; 0.05 + 3 standard errors is 0.083."""
    rng = np.random.default_rng(7)
    mixing = rng.normal(size=(13, 13))
    images = pd.DataFrame(rng.normal(size=(4000, 13)) @ mixing)
    alarms = 0
    for _ in range(400):
        rows = rng.permutation(4000)
        alarms += judge_ks(images.iloc[rows[:50]], images.iloc[rows[50:350]]).drift
    assert 0 < alarms <= 33


def test_a_shift_of_one_sd_in_one_column_is_found() -> None:
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(50):
        current = pd.DataFrame(rng.normal(size=(100, 13)))
        current[4] -= 1.0
        verdict = judge_ks(current, pd.DataFrame(rng.normal(size=(300, 13))))
        found += verdict.drift and verdict.columns[0].column == 4 and (verdict.columns[0].shift_sd or 0) < -0.5
    assert found >= 49


# ---- the report ----------------------------------------------------------------------------------------------------


def drifted(name: str, mean: float, reference: float, shift: float | None) -> ColumnDrift:
    return ColumnDrift(name, 0.001, mean, reference, shift, 50, drifted=True)


def test_what_changed_is_said_in_words_and_sizes_the_largest_first() -> None:
    columns = [
        drifted("mean", 112, 131, -0.9), drifted("score_Normal", 0.8, 0.5, 1.5), drifted("noise", 3, 3.01, -0.02),
        drifted("aspect", 1.5, 1.333333, None), ColumnDrift("border", 0.5, 9, 8, 0.1, 50, drifted=False),
    ]  # fmt: skip
    assert what_changed(columns, {"mean": datetime(2026, 2, 28, 7, 5, tzinfo=UTC)}) == [
        "The value is new: width divided by height 1.5, in the reference 1.33 for every image. This is new.",
        "The model scores Normal higher: mean score of Normal 0.8, in the reference 0.5 (1.5 standard deviations "
        "higher). This is new.",
        "The images are darker: mean grey level 112, in the reference 131 (0.9 standard deviations lower). "
        "Every report since 28 February 2026, 07:05 UTC says so.",
        "The values are spread in another way, and their mean is nearly the same: noise in grey levels 3, "
        "in the reference 3.01. This is new.",
    ]


def test_a_change_began_at_the_first_report_without_a_break() -> None:
    def report(hour: int, *names: str, enough: bool = True, version: str | None = "v1") -> tuple[datetime, dict]:
        columns = [{"column": name, "drifted": name in names} for name in ("mean", "noise", "border")]
        verdict = {"enough": enough, "columns": columns if enough else [], "version": version}
        return datetime(2026, 1, 1, hour, tzinfo=UTC), verdict

    earlier = [
        report(9, "mean", "noise"), report(8, enough=False), report(7, "mean"), report(6), report(5, "mean", "noise"),
    ]  # fmt: skip
    seen = first_seen(["mean", "noise", "border"], earlier, "v1")
    assert {name: time.hour for name, time in seen.items()} == {"mean": 7, "noise": 9}
    assert first_seen(["mean"], [], "v1") == {}
    of_another = [report(9, "mean"), report(8, "mean", version="v0"), report(7, "mean")]
    assert first_seen(["mean"], of_another, "v1")["mean"].hour == 9
    assert first_seen(["mean"], [report(9), None], "v1") == {}  # it does not read on


def test_the_headline_is_the_gravest_thing() -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    few = drift_verdict({}, table, table, 0.05, 30, 24)
    calm, alarm = (drift_verdict({"a": p, "b": 1.0}, table, table, 0.05, 1, 24) for p in (0.5, 0.001))
    assert [headline(verdict, 0)[1] for verdict in (few, calm, alarm)] == ["warning", "", "warning"]
    assert headline(alarm, 2) == ("2 checks fail: mend this before you read on.", "critical")
    assert headline(alarm, 0)[0] == "The images have changed: 1 of 2 measures differ."


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=30))
def test_the_bars_of_a_picture_hold_every_image(values: list[float]) -> None:
    current, reference = pd.DataFrame({"mean": values}), pd.DataFrame({"mean": values[::-1] * 2})
    verdict = drift_verdict({"mean": 1.0}, current, reference, 0.05, 1, 24)
    [picture] = pictures(verdict, current, reference)
    assert picture["current"] == picture["reference"]  # shares, whatever the number of images
    assert max(height for _, _, height in picture["current"]) == 72
    assert all(0 <= x < 240 and y + height == pytest.approx(72, abs=0.11) for x, y, height in picture["current"])
