"""One case, from its patient to the bytes of its file."""

from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from cxr.demo import film, marks
from cxr.demo.anatomy import draw_adult, draw_child, reposition
from cxr.demo.cases import Case, Encoding, stream
from cxr.demo.disease import Pattern, draw_opacity
from cxr.demo.phantom import build_chest, expose

# what is drawn for each finding; where two patterns stand, one is drawn by lot
PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "NORMAL": ("clear",),
    "PNEUMONIA|bacteria": ("lobar",),
    "PNEUMONIA|virus": ("interstitial",),
    "No Finding": ("clear",),
    "Pneumonia": ("lobar", "lobar", "interstitial"),
    "Infiltration|Pneumonia": ("lobar", "interstitial"),
    "Effusion": ("effusion",),
    "Nodule": ("nodule",),
    "Atelectasis": ("bands",),
    "Cardiomegaly": ("clear",),  # the heart itself is drawn larger
    "Cardiomegaly|Effusion": ("effusion",),
    "COVID-19": ("peripheral",),
    "COVID-19, ARDS": ("peripheral",),
    "Streptococcus": ("lobar",),
    "Klebsiella": ("lobar",),
    "Legionella": ("lobar",),
    "Mycoplasma Bacterial Pneumonia": ("interstitial", "lobar"),
    "Pneumocystis": ("interstitial",),
    "SARS": ("interstitial",),
    "Influenza": ("interstitial",),
    "Varicella": ("nodules",),
    "todo": ("clear", "peripheral"),
}
LARGER_HEART = 1.35  # of cardiomegaly: takes the cardiothoracic ratio from 0.45 to 0.6


def draw_case(seed: int, case: Case) -> np.ndarray:
    """The picture as published, uint8 (height, width), marks and borders included."""
    patient = stream(seed, case.source, case.patient_id)
    rng = stream(seed, case.source, case.name)
    anatomy = draw_child(patient) if case.source == "kermany" else draw_adult(patient, case.sex)
    anatomy = reposition(anatomy, rng, 1.0)
    if "Cardiomegaly" in case.finding:
        anatomy = replace(anatomy, heart=anatomy.heart * LARGER_HEART)
    taken = _take_film(case, rng)
    patterns = PATTERNS[case.finding]
    chest = build_chest(anatomy)
    opacity = draw_opacity(patterns[rng.integers(len(patterns))], chest, anatomy, rng)
    picture = film.develop(expose(chest, opacity, taken.scatter), taken, rng)
    return _mark(picture, case, rng)


def _take_film(case: Case, rng: np.random.Generator) -> film.Film:
    if case.source == "kermany":
        return film.draw_child_film(rng)
    return film.draw_adult_film(rng, case.view) if case.source == "nih" else film.draw_collected_film(rng)


def _mark(picture: np.ndarray, case: Case, rng: np.random.Generator) -> np.ndarray:
    """Marks depend on the source, never on the finding."""
    if case.source == "kermany":
        if rng.random() < 0.7:
            marks.mark_side(picture, "R", rng)
        return picture
    if rng.random() < (0.8 if case.source == "nih" else 0.4):
        marks.mark_side(picture, "L" if case.source == "nih" or rng.random() < 0.5 else "R", rng)
    if case.view != "PA" and rng.random() < 0.5:
        marks.mark_portable(picture, rng)
    if case.source == "covid":
        if rng.random() < 0.15:
            marks.draw_arrows(picture, rng)
        if rng.random() < 0.25:
            marks.mark_panel(picture, rng)
        if rng.random() < 0.3:
            picture = marks.add_border(picture, rng)
    return picture


def encode(picture: np.ndarray, name: str, encoding: Encoding, quality: int = 90) -> bytes:
    """The bytes of a JPEG or PNG file, by the suffix of `name`."""
    if name.endswith(".png"):
        suffix, options = (
            ".png",
            [cv2.IMWRITE_PNG_COMPRESSION, 1],
        )  # noise does not compress; level 9 costs ten times more
    else:
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]
    if encoding == "palette":
        return _encode_palette(picture)
    if encoding == "rgb":
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    elif encoding == "rgba":
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA)
    elif encoding == "16-bit":
        picture = picture.astype(np.uint16) * 16  # 12 bits used, as detectors do
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def _encode_palette(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).convert("P").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
