"""reports/study: one table of every published system beside ours, and the pictures of the runs."""

import base64
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
from PIL import Image

from cxr.files import write_csv, write_text
from cxr.pages import write_page
from study.presets import DataGroup, Preset, Published
from study.runs import RECORDS, Record

REPORT = Path("reports/study")
METRICS = {"accuracy": "accuracy", "auroc_macro": "AUROC", "dice": "Dice"}
FIGURES = {  # those that a run has
    "confusion.png": "Confusion matrices on test, by slice",
    "curves.png": "ROC, precision-recall and calibration on test",
    "dice.png": "Dice coefficients on test",
    "learning.png": "Learning curves",
    "features.png": "Feature maps of one test image: the first nine and the last three layers that have places, "
    "of each the channels that vary most",
    "heatmaps.png": "Class activation: the exact heatmap of the class that was called, for the surest and the least "
    "sure test images of each class",
    "overlays.png": "The region that was found, and the true one",
}
HOW_TO_READ = (
    "Published figures are as their authors give them. A star says that their data group is not known.",
    "Ours are of the slice named: the mean and the standard deviation over seeds. A seed draws the val split, the "
    "training, and the demo where it is used.",
    "A dash stands for a figure that was not published, is not known or was not measured. The seconds of an epoch are "
    "missing where DVC's cache had the trained model.",
    "Latency is the median of one image at a time in OpenVINO, on the machine that trained.",
    "The data groups: raw is neither augmented nor balanced, augmented is not balanced, balanced is both.",
)


@dataclass(frozen=True)
class Row:
    """One preset in one data group. `records`: its runs of the same settings, one a seed; none where it was not run."""

    name: str
    preset: Preset
    data: DataGroup
    records: Sequence[Record]

    @property
    def published(self) -> list[Published]:
        return [figure for figure in self.preset.published if figure.data in (None, self.data)]

    def ours(self, metric: str) -> list[float]:
        """One value a seed, of the slice that stands beside the published one; undefined ones are left out."""
        found = [record.measures[self.preset.slice].get(metric) for record in self.records]
        return [value for value in found if value is not None]

    @property
    def is_trial(self) -> bool:
        return any(record.trial_epochs is not None for record in self.records)


def rows_of(presets: Mapping[str, Preset], records: Sequence[Record]) -> list[Row]:
    """Every preset in every group that it lists or was run in; runs of different settings are different rows."""
    rows = []
    for name, preset in presets.items():
        own = [record for record in records if record.preset == name]
        for data in ("raw", "augmented", "balanced"):
            of_group = [record for record in own if record.data == data]
            for digest in dict.fromkeys(record.digest for record in of_group):
                rows.append(Row(name, preset, data, [record for record in of_group if record.digest == digest]))
            if not of_group and data in preset.data:
                rows.append(Row(name, preset, data, []))
    return rows


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """A row each, numbers as numbers and NaN where there is none."""
    return pd.DataFrame([cells(row) for row in rows])


def cells(row: Row) -> dict[str, object]:
    found: dict[str, object] = {
        "preset": row.name,
        "title": row.preset.title,
        "task": row.preset.task,
        "data": row.data,
    }
    for metric in METRICS:
        published = next((figure.value for figure in row.published if figure.metric == metric), None)
        values = row.ours(metric)
        found |= {
            f"{metric}_published": published,
            metric: mean(values) if values else None,
            f"{metric}_sd": stdev(values) if len(values) > 1 else None,
        }
    first = row.records[0] if row.records else None
    seconds = [record.seconds_per_epoch for record in row.records if record.seconds_per_epoch is not None]
    return found | {
        "published_split": ", ".join(dict.fromkeys(map(split_words, row.published))) or None,
        "slice": row.preset.slice,
        "images": first and first.measures[row.preset.slice]["n"],
        "seeds": len(row.records),
        "model": first and first.values["train"]["model"],
        "weights": first and weights_words(first),
        "pixels": first and first.values["ingest"]["pixels"]["size"],
        "parameters": first and first.parameters,
        "epochs_run": mean(record.epochs_run for record in row.records) if row.records else None,
        "trial": row.is_trial,
        "seconds_per_epoch": mean(seconds) if seconds else None,
        "latency_ms": mean(record.latency_ms for record in row.records) if row.records else None,
        "origins": first and origins_words(first),
    }  # fmt: skip


def split_words(figure: Published) -> str:
    return figure.split + (f", {figure.n} images" if figure.n else "") + ("" if figure.data else "*")


def weights_words(record: Record) -> str:
    weights = record.values["train"]["weights"]
    return weights if weights in ("none", "imagenet") else Path(weights).name


def is_demo(record: Record) -> bool:
    return any(source["origin"] == "demo" for source in record.values["sources"].values())


def origins_words(record: Record) -> str:
    """Where the images came from, source by source."""
    return "; ".join(f"{name}: {source['origin']}" for name, source in record.values["sources"].items())


HEADINGS = (
    "preset", "data", "published", "on", "ours", "ours on", "seeds", "weights", "parameters", "pixels", "epochs",
    "s/epoch", "latency, ms",
)  # fmt: skip
NUMBERS = ("seeds", "parameters", "pixels", "epochs", "s/epoch", "latency, ms")


def shown(row: Row) -> list[str]:
    """One line of the table for a reader, under HEADINGS."""
    of = cells(row)
    published = [f"{METRICS[figure.metric]} {figure.value:g}" for figure in row.published]
    line = [row.name, row.data, ", ".join(published) or "–", of["published_split"] or "–"]
    if not row.records:
        return [*line, "not run", row.preset.slice, *["–"] * 7]
    seconds = of["seconds_per_epoch"]
    return [
        *line,
        ours_words(row) + (", a trial" if row.is_trial else ""),
        f"{of['slice']}, {of['images']} images{' of the demo' if is_demo(row.records[0]) else ''}",
        str(of["seeds"]),
        str(of["weights"]),
        f"{of['parameters']:,}",
        str(of["pixels"]),
        f"{of['epochs_run']:g}",
        "–" if seconds is None else f"{seconds:.1f}",
        f"{of['latency_ms']:.1f}",
    ]


def ours_words(row: Row) -> str:
    found = []
    for metric, name in METRICS.items():
        if values := row.ours(metric):
            spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
            found.append(f"{name} {mean(values):.4f}{spread}")
    return ", ".join(found)


def warnings(rows: Sequence[Row]) -> list[str]:
    """What must be known before a figure is believed."""
    records = [record for row in rows for record in row.records]
    found = []
    if any(map(is_demo, records)):
        found.append("Runs on the demo's synthetic cartoons say that the study works, and nothing about medicine.")
    if trials := sorted({record.trial_epochs for record in records if record.trial_epochs is not None}):
        found.append(f"Runs marked as a trial were cut short, by --epochs {' and '.join(map(str, trials))}.")
    if any(
        record.values["train"]["weights"] == "none" for row in rows for record in row.records if wants_imagenet(row)
    ):
        found.append("Some networks that were published with ImageNet weights ran from scratch here: see weights.")
    return found


def wants_imagenet(row: Row) -> bool:
    return row.preset.params.get("train", {}).get("weights") == "imagenet"


def write_report(root: Path, presets: Mapping[str, Preset], records: Sequence[Record]) -> None:
    """Write table.csv, table.md, published.png and index.html, which needs no other file and no network."""
    rows = rows_of(presets, records)
    part = root / REPORT / "report.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_csv(part / "table.csv", table(rows), "%.5g")
    write_text(part / "table.md", markdown(rows))
    draw_published(rows, part / "published.png")
    write_page(part / "index.html", "study.html", page_values(root, part, rows))
    for path in part.iterdir():
        path.replace(root / REPORT / path.name)
    part.rmdir()


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---:" if name in NUMBERS else "---" for name in HEADINGS], *map(shown, rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *warnings(rows)]) + "\n"


def draw_published(rows: Sequence[Row], path: Path) -> None:
    """Accuracy, or the Dice coefficient of what localises, published and ours: a line for each row that has one, those
    of a task together."""
    from cxr.evaluation import plots

    rows = sorted((row for row in rows if row.published or row.records), key=lambda row: row.preset.task)
    figure, axes = plots.panels(1, 1, 9, 1.2 + 0.28 * len(rows))
    axis = axes[0, 0]
    for y, row in enumerate(rows):
        if y == 0 or rows[y - 1].preset.task != row.preset.task:
            axis.axhline(y - 0.5, color="0.8", linewidth=0.8)
            axis.text(0.01, y - 0.35, row.preset.task, va="top", fontsize=8, color="0.4")
        metric = "dice" if row.preset.task.startswith("localise") else "accuracy"
        published = [found.value for found in row.published if found.metric == metric]
        axis.plot(published, [y] * len(published), "o", mfc="white", color=plots.COLOURS[1], label="published")
        if values := row.ours(metric):
            spread = stdev(values) if len(values) > 1 else 0
            axis.errorbar(mean(values), y, xerr=spread, fmt="o", color=plots.COLOURS[0], label="ours, ± sd over seeds")
    names = [f"{row.name}, {row.data}{', a trial' if row.is_trial else ''}" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy; Dice of what localises")
    axis.grid(axis="x", color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # one for each label
    axis.legend(handles.values(), handles.keys(), frameon=False, fontsize=8, loc="lower left")
    plots.save(figure, path)


def page_values(root: Path, part: Path, rows: Sequence[Row]) -> dict:
    """What the template `study.html` shows: the whole report in one file."""
    ran = [row for row in rows if row.records]
    return {
        "title": "Published systems beside ours",
        "ran": len(ran),
        "warnings": warnings(rows),
        "heads": HEADINGS,
        "numbers": NUMBERS,
        "rows": [(bool(row.records), list(zip(HEADINGS, shown(row), strict=True))) for row in rows],
        "how_to_read": HOW_TO_READ,
        "published": picture(part / "published.png"),
        "runs": [details(root, row) for row in ran],
        "presets": {row.name: row.preset for row in rows},
    }


def details(root: Path, row: Row) -> dict:
    """The first seed's pictures; the other seeds' lie in their folders."""
    first = row.records[0]
    folder = root / RECORDS / first.name
    return {
        "name": row.name,
        "data": row.data,
        "ours": ours_words(row),
        "experiment": first.name,
        "commit": first.experiment[:7],
        "origins": origins_words(first),
        "others": ", ".join(record.name for record in row.records[1:]),
        "records": RECORDS.as_posix(),
        "pictures": [(title, picture(folder / name)) for name, title in FIGURES.items() if (folder / name).exists()],
    }


def picture(path: Path) -> str:
    """A data URI, as WebP, a fifth of the PNG: the page holds the pictures of every row."""
    small = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(small, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
