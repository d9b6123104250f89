"""The three sources as they are published: archives, folders, tables, and the faults of `cxr.demo.faults`."""

import csv
import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import cv2

from cxr.demo import faults
from cxr.demo.cases import COVID_VIEWS, Case, covid_cases, find_case, kermany_cases, nih_cases, stream
from cxr.demo.draw import draw_case, encode
from cxr.demo.other_views import draw_ct_slice, draw_lateral
from cxr.params import SourceName

ZIP_TIME = (2018, 3, 24, 0, 0, 0)  # fixed: the same seed gives the same bytes

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"  # its commas stand unquoted in the real header too
)
NIH_ORIGINALS = (("2048,2500", "0.168,0.168"), ("2500,2048", "0.171,0.171"), ("3056,2544", "0.139,0.139"))

COVID_HEADER = (
    "patientid,offset,sex,age,finding,survival,intubated,intubation_present,went_icu,in_icu,needed_supplemental_O2,"
    "extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,view,modality,date,location,"
    "folder,filename,doi,url,license,clinical_notes,other_notes,"  # the real header ends in a comma
)
COVID_LICENCES = ("CC BY 4.0", "CC BY-NC-SA 4.0", "CC BY 3.0", "CC BY-NC-SA", "")
# the words of covid-chestxray-dataset for what another source says of a picture
COVID_WORDS = {
    "NORMAL": "No Finding",
    "No Finding": "No Finding",
    "PNEUMONIA|bacteria": "Bacterial",
    "Pneumonia": "Pneumonia",
}


def draw_source(source: SourceName, out: Path, images: int, seed: int) -> None:
    """Write a source as published into the existing, empty directory `out`.

    `images` are drawn, the faults of `cxr.demo.faults` come on top. The same seed gives the same bytes, and pictures
    that one source shares with another depend on the seed alone.
    """
    {"kermany": _write_kermany, "nih": _write_nih, "covid": _write_covid}[source](out, images, seed)


def draw_files(cases: Iterable[Case], seed: int) -> dict[str, bytes]:
    """File bytes by name, drawn on all cores; OpenCV and NumPy let go of the interpreter while they work."""
    cases = list(cases)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip((case.name for case in cases), pool.map(partial(_draw_file, seed), cases), strict=True))


def _draw_file(seed: int, case: Case) -> bytes:
    return encode(draw_case(seed, case), case.name, case.encoding)


def _write_kermany(out: Path, images: int, seed: int) -> None:
    cases = list(islice(kermany_cases(seed), images))
    normal = next(case for case in cases if case.finding == "NORMAL")
    bacterial = next(case for case in cases if case.finding == "PNEUMONIA|bacteria")
    (normal_train, _), (bacterial_train, _) = faults.KERMANY_TWICE
    cases += [
        replace(normal, name=normal_train, patient_id="IM-0901"),
        replace(bacterial, name=bacterial_train, patient_id="person1903_bacteria"),
        replace(bacterial, name=faults.KERMANY_TRUNCATED, patient_id="person1901_bacteria"),
    ]
    files = draw_files(cases, seed)
    files |= {copy: files[original] for original, copy in faults.KERMANY_TWICE}
    files[faults.KERMANY_TRUNCATED] = _truncate(files[faults.KERMANY_TRUNCATED])
    files |= dict.fromkeys(faults.KERMANY_JUNK, b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")  # AppleDouble
    with zipfile.ZipFile(out / "chest-xray-pneumonia.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), files[name], zipfile.ZIP_DEFLATED)


def _write_nih(out: Path, images: int, seed: int) -> None:
    plan = nih_cases(seed)
    cases = list(islice(plan, images))
    truncated = _planted_nih(cases, faults.NIH_TRUNCATED)
    rgba = replace(_planted_nih(cases, faults.NIH_RGBA), encoding="rgba")
    last = cases[-1].patient_id
    later = (case for case in plan if case.patient_id != last)  # no patient is cut in two by the download's end
    missing = list(islice(later, faults.NIH_ROWS_WITHOUT_IMAGE))
    cases += [truncated, rgba]
    files = draw_files(cases, seed)
    files[truncated.name] = _truncate(files[truncated.name])
    names = sorted(files)
    half = len(names) // 2
    _write_tar(out / "images_001.tar.gz", {f"images/{name}": files[name] for name in names[:half]})
    _write_tar(out / "images_002.tar.gz", {f"images/{name}": files[name] for name in names[half:]})
    rows = sorted(cases + missing, key=lambda case: case.name)
    lines = [NIH_HEADER, *(_nih_row(case, seed) for case in rows)]
    (out / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    for split, list_name in (("train", "train_val_list.txt"), ("test", "test_list.txt")):
        (out / list_name).write_text("\n".join(case.name for case in rows if case.split == split))


def _planted_nih(cases: list[Case], name: str) -> Case:
    """One more patient, otherwise like the first."""
    return replace(cases[0], name=name, patient_id=str(int(name.partition("_")[0])))


def _nih_row(case: Case, seed: int) -> str:
    size, spacing = NIH_ORIGINALS[stream(seed, "nih", case.patient_id, "detector").integers(len(NIH_ORIGINALS))]
    return (
        f"{case.name},{case.finding},{case.follow_up},{case.patient_id},{case.age_years},{case.sex},{case.view},"
        f"{size},{spacing}"
    )


def _write_covid(out: Path, images: int, seed: int) -> None:
    cases = list(islice(covid_cases(seed), images))
    unusual, set_aside = _planted_covid(cases[0])
    files = draw_files([*cases, *unusual, *set_aside], seed)
    copies = [_copy(seed, name, *original) for name, original in faults.COVID_COPIES.items()]
    files |= {case.name: data for case, data in copies}
    rng = stream(seed, "covid", "other views")
    files |= {name: encode(draw_lateral(rng), name, "grey") for name in faults.COVID_LATERALS}
    files |= {name: encode(draw_ct_slice(rng), name, "grey") for name in faults.COVID_CT}
    files[faults.COVID_IMAGE_WITHOUT_ROW] = _draw_file(seed, replace(cases[0], name=faults.COVID_IMAGE_WITHOUT_ROW))
    files[faults.COVID_NOT_AN_IMAGE] = b"[.ShellClassInfo]\r\nIconResource=C:\\WINDOWS\\System32\\SHELL32.dll,3\r\n"
    folder = out / "covid-chestxray-dataset" / "images"
    folder.mkdir(parents=True)
    for name in sorted(files):
        (folder / name).write_bytes(files[name])
    rows = [_covid_row(case, seed) for case in [*cases, *unusual, *(case for case, _ in copies), *set_aside]]
    rows += _covid_rows_without_frontal(cases[0], seed)
    text = io.StringIO()
    text.write(COVID_HEADER + "\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    (folder.parent / "metadata.csv").write_text(text.getvalue())


def _planted_covid(like: Case) -> tuple[list[Case], list[Case]]:
    """Unusual files, and films whose finding or view is not stated; each of a patient of its own."""

    def planted(name: str, **changes) -> Case:
        return replace(like, name=name, patient_id=name.partition("_")[0], follow_up=0, **changes)

    unusual = [planted(name, encoding=encoding) for encoding, name in faults.COVID_ENCODINGS.items()]
    set_aside = [planted(name, finding="todo", encoding="grey") for name in faults.COVID_TODO]
    return unusual, [*set_aside, planted(faults.COVID_VIEW_UNKNOWN, view="?", encoding="grey")]


def _copy(seed: int, name: str, source: SourceName, original: str) -> tuple[Case, bytes]:
    """A picture of another source, shrunk and encoded anew, as a case of this one."""
    case = find_case(seed, source, original)
    picture = draw_case(seed, case)
    shrink = stream(seed, "covid", name).uniform(0.55, 0.8)
    small = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    here = replace(
        case, source="covid", name=name, patient_id=name.partition("_")[0], finding=COVID_WORDS[case.finding]
    )
    return here, encode(small, name, "grey", quality=75)


def _covid_rows_without_frontal(like: Case, seed: int) -> list[list[str]]:
    """Rows of laterals, CT slices, volumes and images that are not there."""

    def row(name: str, number: int, **cells: str) -> list[str]:
        case = replace(like, name=name, patient_id=str(900 + number), follow_up=0, finding="COVID-19")
        return _covid_row(case, seed, **cells)

    rows = [row(name, n, view="L") for n, name in enumerate(faults.COVID_LATERALS)]
    rows += [row(name, 10 + n, view="Axial", modality="CT") for n, name in enumerate(faults.COVID_CT)]
    rows += [
        row(name, 20 + n, view="Coronal", modality="CT", folder="volumes")
        for n, name in enumerate(faults.COVID_VOLUMES)
    ]
    rows += [row(name, 30 + n, view=COVID_VIEWS[n]) for n, name in enumerate(faults.COVID_ROWS_WITHOUT_IMAGE)]
    return rows


def _covid_row(case: Case, seed: int, **cells: str) -> list[str]:
    """A row in the order of COVID_HEADER; most columns of most rows are empty in the real table too."""
    rng = stream(seed, "covid", case.patient_id, "row")
    values = {
        "patientid": case.patient_id,
        "offset": str(3 * case.follow_up),
        "sex": case.sex,
        "age": str(case.age_years) if rng.random() < 0.85 else "",
        "finding": case.finding,
        "view": case.view,
        "modality": "X-ray",
        "date": "2020",
        "folder": "images",
        "filename": case.name,
        "license": COVID_LICENCES[rng.integers(len(COVID_LICENCES))],
        "clinical_notes": "Drawn, not taken: no patient, no findings.",
    } | cells
    return [values.get(column, "") for column in COVID_HEADER.split(",")]


def _truncate(data: bytes) -> bytes:
    return data[: len(data) * 3 // 5]


def _write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A .tar.gz whose bytes depend on names and contents alone."""
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name in sorted(files):
            info = tarfile.TarInfo(name)  # its time is 0
            info.size = len(files[name])
            archive.addfile(info, io.BytesIO(files[name]))
