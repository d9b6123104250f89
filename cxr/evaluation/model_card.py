"""The model card: what was trained on what, how well it does where, and what it is not for, in Markdown and JSON.

Mitchell M et al., Model Cards for Model Reporting, FAT* 2019.
"""

from cxr.pixels.canonical import in_words
from cxr.release.facts import ReleaseFacts
from cxr.tasks import TASKS

LIMITS = (
    "Research use only: no medical device, not for diagnosis.",
    "Upright frontal (PA or AP) chest radiographs only. Pictures recognised as anything else are refused; one that "
    "slips through gets an answer that means nothing.",
    "If a file states an age outside those of training, the answer has a warning. PNG and JPEG state no age.",
)
LIMITS_OF_CLASSES = (
    "If a class comes from one source only, the model may recognise the source instead of the disease. Look at the "
    "measures of each source before you believe the overall ones.",
    "Probabilities hold for the class shares of the test split. Where a class is rarer, they are too high for it.",
)
LIMIT_OF_PATIENTS = (
    "In {source} every image has a patient of its own. Unless the source has one film per patient, two films of one "
    "patient may be in train and test, and every measure on this source is then too good."
)
LIMITS_OF_REGIONS = (
    "A mask is as good as those it was trained on, and follows their convention: whether the heart's shadow belongs to "
    "the lungs, or how wide a box around an opacity is.",
    "The share is a share of the square that the model reads. It measures neither volume nor severity.",
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
        "min_content_score": facts.min_content_score,
        "train_ages": facts.train_ages.model_dump(),
        "training": training,
        "data": {source: part["used"] for source, part in assembly["sources"].items()},
        "data_warnings": [e["sentence"] for v in validations for e in v["expectations"] if not e["success"]],
        "metrics": metrics["slices"],
        "gate": [rule["sentence"] for rule in gate["rules"]],
        "limits": [
            *LIMITS,
            *(LIMITS_OF_REGIONS if TASKS[facts.task].localises else LIMITS_OF_CLASSES),
            *(LIMIT_OF_PATIENTS.format(source=source) for source in _without_patients(validations)),
        ],
    }


def _without_patients(validations: list[dict]) -> list[str]:
    """The sources in which every image has a patient of its own, as `validate@records` found them."""
    judged = [e for v in validations for e in v["expectations"] if e["column"] == "images_per_patient"]
    return [source for e in judged if not e["success"] for source in e["failing_rows"]]


def to_markdown(values: dict) -> str:
    """The card for a person."""
    classes = values["classes"]
    regions = TASKS[values["task"]].localises
    lines = [
        f"# Model card: {values['name']} {values['version']}",
        "",
        f"Task `{values['task']}`: {', '.join(classes)}. **Not for diagnosis.**",
        "",
        f"- Input: {values['input']}",
        f"- Outputs: {', '.join(values['outputs'])}",
        f"- Network: {values['training']['model']}, {values['training']['parameters']:,} parameters, "
        f"{values['training']['epochs_run']} epochs, seed {values['training']['seed']}",
        f"- Operating points ({'of a pixel' if regions else 'chosen on val'}): "
        + ", ".join(f"{name} ≥ {threshold:.3f}" for name, threshold in values["operating_points"].items()),
        f"- Ages in training: {_ages(**values['train_ages'])}",
        f"- Refused as no upright frontal chest film: content score below {values['min_content_score']:g}, or by the "
        "header's word",
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
        *(_measures_of_regions(values["metrics"]) if regions else _measures_of_classes(values["metrics"])),
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


def _ages(images: int, stated: int, youngest: float | None, oldest: float | None) -> str:
    if not stated:
        return f"none of {images:,} images states one"
    return f"{youngest:.3g} to {oldest:.3g} years, stated by {stated:,} of {images:,} images"


def _measures_of_classes(slices: dict) -> list[str]:
    shown = ("precision", "recall", "f1", "sensitivity", "specificity", "auroc", "auprc")
    return [
        "| slice | images | accuracy | balanced accuracy | AUROC | ECE |",
        "| --- | ---: | --- | --- | --- | ---: |",
        *(
            f"{_row(name, measured, ('accuracy', 'balanced_accuracy', 'auroc_macro'))} {_text(measured['ece'])} |"
            for name, measured in slices.items()
        ),
        "",
        "| class (test) | images | precision | recall | F1 | sensitivity | specificity | AUROC | AUPRC |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {c['n']} | {' | '.join(_text(c[k]) for k in shown)} |"
            for name, c in slices["test"]["classes"].items()
        ),
        "",
        "Precision, recall and F1 are of the most probable class, sensitivity and specificity at the operating point.",
    ]


def _measures_of_regions(slices: dict) -> list[str]:
    return [
        "| slice | images | Dice | mean IoU |",
        "| --- | ---: | --- | --- |",
        *(_row(name, measured, ("dice", "mean_iou")) for name, measured in slices.items()),
        "",
        "| images of (test) | images | Dice | mean IoU |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {c['n']} | {_text(c['dice'])} | {_text(c['mean_iou'])} |"
            for name, c in slices["test"]["classes"].items()
        ),
        "",
        "Means over images; where nothing is to be found and nothing is found, both are 1.",
    ]


def _row(name: str, measured: dict, shown: tuple[str, ...]) -> str:
    def with_interval(key: str) -> str:
        interval = measured["interval_95"].get(key)
        return _text(measured[key]) + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")

    return f"| {name} | {measured['n']} | {' | '.join(map(with_interval, shown))} |"


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
