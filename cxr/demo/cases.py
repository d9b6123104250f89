"""Who is drawn: endless sequences of cases, one per source, told by the seed alone.

The first n cases are the same however many are asked for, so one source can hold a copy of another's image without
knowing how large that source is. Findings, follow-ups and published splits come in fixed cycles, so that small demos
hold every class too.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from cxr.params import SourceName

Encoding = Literal["grey", "rgb", "rgba", "palette", "16-bit"]


@dataclass(frozen=True)
class Case:
    """One image to draw. `name` is its path within the source, `finding` the source's own words.

    `patient_id` is unique within the source. `view` is PA or AP. `split` is train, val or test as published, or empty.
    """

    source: SourceName
    name: str
    patient_id: str
    follow_up: int
    finding: str
    sex: str
    age_years: int
    view: str
    split: str = ""
    encoding: Encoding = "grey"


def stream(seed: int, *names: object) -> np.random.Generator:
    """An independent random stream for whatever is named."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def find_case(seed: int, source: SourceName, name: str) -> Case:
    """The case of that name, which must be among the first few hundred."""
    return next(case for case, _ in zip(CASES[source](seed), range(500), strict=False) if case.name == name)


# Kermany: normal, bacterial and viral patients; 31 % of patients give 27 % of images, as normals have fewer films
KERMANY_PATIENTS = "NBVBNBVNBBVNBVBN"
KERMANY_VAL = (
    5,
    11,
    17,
    23,
)  # the n-th normal and the n-th pneumonia patient: four images a class, as tiny as the real


def kermany_cases(seed: int) -> Iterator[Case]:
    """`chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`; numbers restart for each type, as published."""
    patients = {"N": 0, "B": 0, "V": 0}
    images = {"B": 0, "V": 0}
    for index in count():
        kind = KERMANY_PATIENTS[index % len(KERMANY_PATIENTS)]
        normal = kind == "N"
        ordinal = patients["N"] if normal else patients["B"] + patients["V"]
        split = "val" if ordinal in KERMANY_VAL else "test" if ordinal % (4 if normal else 6) == 2 else "train"
        films = (
            1 if split == "val" else (1, 1, 1, 2, 1)[ordinal % 5] if normal else (1, 1, 2, 1, 3, 1, 1, 2)[ordinal % 8]
        )
        for follow_up in range(films):
            if normal:
                patient = f"{'NORMAL2-IM' if ordinal % 2 else 'IM'}-{115 + ordinal // 2 * 2:04d}"
                name = f"NORMAL/{patient}-0001" + (f"-{follow_up + 1:04d}" if films > 1 else "")
            else:
                type_ = "bacteria" if kind == "B" else "virus"
                patient = f"person{patients[kind] + 1}_{type_}"
                images[kind] += 1
                name = f"PNEUMONIA/{patient}_{images[kind]}"
            rng = stream(seed, "kermany", name, "record")
            yield Case(
                source="kermany",
                name=f"chest_xray/{split}/{name}.jpeg",
                patient_id=patient,
                follow_up=follow_up,
                finding="NORMAL" if normal else f"PNEUMONIA|{patient.rpartition('_')[2]}",
                sex="MF"[rng.integers(2)],
                age_years=int(rng.integers(1, 6)),
                view="AP",
                split=split,
                encoding="rgb" if rng.random() < 0.05 else "grey",
            )
        patients[kind] += 1


NIH_COURSES = (
    ("No Finding",),
    ("No Finding", "No Finding"),
    ("Pneumonia", "Infiltration|Pneumonia", "No Finding"),
    ("No Finding",),
    ("Effusion",),
    ("No Finding", "No Finding", "No Finding"),
    ("Infiltration|Pneumonia",),
    ("No Finding", "Nodule", "No Finding"),
    ("Pneumonia",),
    ("No Finding", "No Finding"),
    ("No Finding",),
    ("Cardiomegaly", "Cardiomegaly|Effusion"),
    ("No Finding", "No Finding", "Pneumonia", "No Finding"),
    ("No Finding",),
    ("Atelectasis",),
    ("Pneumonia", "No Finding"),
    ("No Finding", "No Finding"),
    ("No Finding",),
)


def nih_cases(seed: int) -> Iterator[Case]:
    """`images/<patient>_<follow-up>.png`; the name here is the file's alone, as in the table."""
    for index in count():
        number = 3 * index + 1
        rng = stream(seed, "nih", number, "record")
        sex, age = "MF"[rng.integers(2)], int(rng.integers(18, 86))
        for follow_up, finding in enumerate(NIH_COURSES[index % len(NIH_COURSES)]):
            yield Case(
                source="nih",
                name=f"{number:08d}_{follow_up:03d}.png",
                patient_id=str(number),
                follow_up=follow_up,
                finding=finding,
                sex=sex,
                age_years=age + follow_up // 2,
                view="AP" if rng.random() < (0.25 if finding == "No Finding" else 0.45) else "PA",
                split="test" if index % 5 == 4 else "train",
            )


COVID_COURSES = (
    ("COVID-19", 3), ("No Finding", 1), ("COVID-19", 2), ("Streptococcus", 1), ("COVID-19", 1), ("No Finding", 2),
    ("COVID-19, ARDS", 1), ("SARS", 2), ("COVID-19", 2), ("Pneumocystis", 1), ("COVID-19", 1), ("No Finding", 1),
    ("Klebsiella", 1), ("COVID-19", 3), ("Varicella", 1), ("COVID-19", 2), ("No Finding", 1), ("Influenza", 1),
    ("COVID-19", 2), ("Legionella", 1), ("COVID-19", 1), ("No Finding", 2), ("COVID-19", 2),
    ("Mycoplasma Bacterial Pneumonia", 1),
)  # fmt: skip
COVID_VIEWS = ("PA", "AP", "AP Supine")


def covid_cases(seed: int) -> Iterator[Case]:
    """`images/*.{jpg,jpeg,png}`, named as publications name their figures; the name here is the file's alone."""
    for index in count():
        patient = str(2 + index)
        finding, films = COVID_COURSES[index % len(COVID_COURSES)]
        rng = stream(seed, "covid", patient, "record")
        sex, age = "MF"[rng.integers(2)], int(rng.integers(22, 88))
        style = rng.integers(3)
        suffix = ("jpg", "jpg", "jpg", "jpeg", "jpeg", "png", "png")[rng.integers(7)]
        for follow_up in range(films):
            stem = (
                f"16{600 + index:04d}_{follow_up + 1}_1",
                f"1-s2.0-S{2214250920300000 + 706 * index}-gr{follow_up + 1}_lrg",
                f"{zlib.crc32(f'{index} {follow_up}'.encode()):08x}",
            )[style]
            yield Case(
                source="covid",
                name=f"{stem}.{suffix}",
                patient_id=patient,
                follow_up=follow_up,
                finding=finding,
                sex=sex,
                age_years=age,
                view=COVID_VIEWS[rng.choice(3, p=(0.5, 0.25, 0.25))],
                encoding="rgb" if rng.random() < 0.4 else "grey",
            )


CASES = {"kermany": kermany_cases, "nih": nih_cases, "covid": covid_cases}
