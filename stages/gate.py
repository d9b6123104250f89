"""Hold the measures to the rules of params.yaml; a failed rule stops the pipeline before anything is packaged."""

import json
import operator
import re
import sys
from pathlib import Path

from cxr.errors import CxrError, plain_errors
from cxr.files import write_json
from cxr.params import GateRule, load_params

COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def gate(rules: list[GateRule], metrics_path: Path, verdict_path: Path) -> list[str]:
    """Write the verdict and return the sentences of the rules that fail."""
    slices = json.loads(metrics_path.read_text())["slices"]
    results = [judge(rule, slices) for rule in rules]
    passed = all(result["passed"] for result in results)
    write_json(verdict_path, {"passed": passed, "rules": results})
    for result in results:
        print("pass" if result["passed"] else "FAIL", result["sentence"])
    return [str(result["sentence"]) for result in results if not result["passed"]]


def judge(rule: GateRule, slices: dict) -> dict[str, object]:
    """One rule's verdict. A measure that the slice does not define fails. Raises CxrError for an unknown name."""
    if rule.slice not in slices:
        raise CxrError(f"gate: no slice {rule.slice!r}; there are {', '.join(slices)}")
    measures = slices[rule.slice]
    value = look_up(rule.metric, measures)
    passed = value is not None and COMPARISONS[rule.comparison](value, rule.limit)
    found = "undefined" if value is None else f"{value:.4f}"
    relation = rule.comparison if passed else f"not {rule.comparison}"
    sentence = f"{rule.metric} {found} {relation} {rule.limit:g} ({rule.slice}, {measures['n']} images)"
    return {**rule.model_dump(), "value": value, "passed": passed, "sentence": sentence}


def look_up(metric: str, measures: dict) -> float | None:
    """`accuracy`, or of one class `sensitivity[COVID-19]`."""
    of_class = re.fullmatch(r"(\w+)\[(.+)\]", metric)
    if of_class is None:
        table, name, known = measures, metric, [k for k in measures if k not in ("classes", "interval_95")]
    else:
        name, class_name = of_class.groups()
        table = measures["classes"].get(class_name)
        if table is None:
            raise CxrError(f"gate: no class {class_name!r} in {metric}; there are {', '.join(measures['classes'])}")
        known = list(table)
    if name not in known:
        raise CxrError(f"gate: no metric {name!r}; there are {', '.join(known)}")
    return table[name]


if __name__ == "__main__":
    with plain_errors():
        failures = gate(load_params().gate.rules, Path("reports/metrics.json"), Path("reports/gate.json"))
    if failures:
        sys.exit("error: gate: " + "; ".join(failures))
