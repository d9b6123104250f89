"""The model card: what was trained on what, how well it does where, and what it is not for, in Markdown and JSON.

Mitchell M et al., Model Cards for Model Reporting, FAT* 2019.
"""

from cxr.canonical import in_words
from cxr.inference import ReleaseFacts

LIMITS = (
    "Research use only: no medical device, not for diagnosis.",
    "Frontal (PA or AP) chest radiographs only; a lateral view or another body part gets an answer that means nothing.",
    "A class that comes from one source can be told by that source's look; compare the measures by source before "
    "believing the overall ones.",
    "Probabilities hold for the class shares of the test split; where a class is rarer, they are too high for it.",
)


def card(
    facts: ReleaseFacts, training: dict, assembly: dict, validations: list[dict], metrics: dict, gate: dict
) -> dict:
    """The card as plain values, from the facts of the release and the reports of the stages before it."""
    size = facts.pixels.size
    return {
        "name": "chest-xray",
        "version": facts.version,
        "task": facts.task,
        "classes": facts.classes,
        "input": f"one uint8 image (n, {size}, {size}, 1), bone bright: {in_words(facts.pixels)}",
        "outputs": ["probabilities", "embedding", "heatmap"],
        "operating_points": facts.operating_points,
        "training": training,
        "data": {source: part["used"] for source, part in assembly["sources"].items()},
        "data_warnings": [e["sentence"] for v in validations for e in v["expectations"] if not e["success"]],
        "metrics": metrics["slices"],
        "gate": [rule["sentence"] for rule in gate["rules"]],
        "limits": list(LIMITS),
    }


def to_markdown(values: dict) -> str:
    """The card for a person."""
    classes = values["classes"]
    lines = [
        f"# Model card: {values['name']} {values['version']}",
        "",
        f"Task `{values['task']}`: {', '.join(classes)}. **Not for diagnosis.**",
        "",
        f"- Input: {values['input']}",
        f"- Outputs: {', '.join(values['outputs'])}",
        f"- Network: {values['training']['model']}, {values['training']['parameters']:,} parameters, "
        f"{values['training']['epochs_run']} epochs, seed {values['training']['seed']}",
        "- Operating points (chosen on val): "
        + ", ".join(f"{name} ≥ {threshold:.3f}" for name, threshold in values["operating_points"].items()),
        "",
        "## Data",
        "",
        "| source | split | " + " | ".join(classes) + " |",
        "| --- | --- |" + " ---: |" * len(classes),
        *(
            f"| {source} | {split} | " + " | ".join(str(counts[name]) for name in classes) + " |"
            for source, splits in values["data"].items()
            for split, counts in splits.items()
        ),
        "",
        *(f"- Warning: {sentence}" for sentence in values["data_warnings"]),
        "",
        "## Measures on the test split",
        "",
        "Intervals are 95 %, by bootstrap over patients.",
        "",
        "| slice | images | accuracy | balanced accuracy | AUROC | ECE |",
        "| --- | ---: | --- | --- | --- | ---: |",
        *(_row(name, measured) for name, measured in values["metrics"].items()),
        "",
        "| class (test) | images | precision | recall | F1 | sensitivity | specificity | AUROC | AUPRC |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {c['n']} | "
            + " | ".join(
                _text(c[k]) for k in ("precision", "recall", "f1", "sensitivity", "specificity", "auroc", "auprc")
            )
            + " |"
            for name, c in values["metrics"]["test"]["classes"].items()
        ),
        "",
        "Precision, recall and F1 are of the most probable class, sensitivity and specificity at the operating point.",
        "",
        "## Gate",
        "",
        *(f"- {sentence}" for sentence in values["gate"]),
        "",
        "## Limits",
        "",
        *(f"- {sentence}" for sentence in values["limits"]),
        "",
    ]
    return "\n".join(lines)


def _row(name: str, measured: dict) -> str:
    def with_interval(key: str) -> str:
        interval = measured["interval_95"].get(key)
        return _text(measured[key]) + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")

    shown = " | ".join(with_interval(key) for key in ("accuracy", "balanced_accuracy", "auroc_macro"))
    return f"| {name} | {measured['n']} | {shown} | {_text(measured['ece'])} |"


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
