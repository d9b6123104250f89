"""What a file's header says of its film, beyond the pixels: whether it can be a frontal chest film, and of whom.

Only words that the DICOM standard defines are kept and quoted, never free text, which may name a patient. What a header
leaves out says nothing and refuses nothing; what contradicts itself is refused or becomes a note.
"""

import re
from dataclasses import dataclass
from datetime import date

from pydicom import Dataset

from cxr.pixels.dicom import shape_against_photometric, text_of
from cxr.words import OLDEST, age_of, parts_of, view_of

STATED_TAGS = [
    "Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "PatientOrientation", "PatientAge",
    "PatientBirthDate", "PatientSex", "StudyDate", "AcquisitionDate", "ContentDate", "BurnedInAnnotation",
    "PresentationLUTShape", "PhotometricInterpretation",
]  # fmt: skip

NO_FRONTAL_FILM = "not a frontal chest radiograph"  # as a reason in rejected.csv

RADIOGRAPHY = ("CR", "DX", "RG")
OTHER_MODALITIES = {
    "CT": "computed tomography", "MR": "magnetic resonance", "US": "ultrasound", "NM": "nuclear medicine",
    "PT": "positron emission tomography", "MG": "mammography", "XA": "angiography", "RF": "fluoroscopy",
    "PX": "a panoramic film", "IO": "a dental film", "BMD": "a bone density scan", "ES": "endoscopy",
    "OP": "ophthalmic photography", "OPT": "ophthalmic tomography", "ECG": "an electrocardiogram",
    "SM": "slide microscopy", "GM": "microscopy", "XC": "a photograph", "DOC": "a document", "SR": "a report",
    "PR": "a presentation state", "SEG": "a segmentation", "IVUS": "intravascular ultrasound",
    "RTIMAGE": "radiotherapy", "RTDOSE": "radiotherapy", "DG": "diaphanography", "TG": "thermography",
    "LS": "a surface scan",
}  # fmt: skip

FRONTAL = ("PA", "AP")
OTHER_VIEWS = {
    "LL": "a left lateral view", "RL": "a right lateral view", "L": "a lateral view", "LAT": "a lateral view",
    "LATERAL": "a lateral view", "LLD": "a left lateral decubitus view", "RLD": "a right lateral decubitus view",
    "LLO": "a left lateral oblique view", "RLO": "a right lateral oblique view", "OBLIQUE": "an oblique view",
    "LAO": "a left anterior oblique view", "RAO": "a right anterior oblique view",
    "LPO": "a left posterior oblique view", "RPO": "a right posterior oblique view",
    "CC": "a view of the breast", "MLO": "a view of the breast", "ML": "a view of the breast",
    "LM": "a view of the breast", "AX": "an axial view", "AXIAL": "an axial view",
}  # fmt: skip
OTHER = "OTHER"  # a word of other languages for such a view
# codes of PS3.16 CID 4010, in SNOMED CT and in the older form that most devices still write
VIEW_CODES = {
    "272479007": "PA", "R-10214": "PA", "R-40888": "PA", "399348003": "AP", "R-10206": "AP",
    "399173006": "LL", "R-10236": "LL", "399198007": "RL", "R-10232": "RL", "399067008": "LATERAL",
    "R-102CD": "LATERAL", "399135007": "LAO", "399356000": "RAO", "399006002": "LPO", "399038007": "RPO",
    "399182000": "OBLIQUE", "R-102C1": "OBLIQUE", "399061009": "AXIAL", "R-10241": "AXIAL",
}  # fmt: skip

# words of PS3.16 annex L for parts of the body whose films show no whole chest
OTHER_BODY_PARTS = {
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BLADDER", "BRAIN", "BREAST", "BUTTOCK", "CALCANEUS", "CALF",
    "CAROTID", "CEREBELLUM", "CLAVICLE", "COCCYX", "COLON", "CSPINE", "EAR", "ELBOW", "EXTREMITY", "EYE", "FACE",
    "FEMUR", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HIP", "HUMERUS", "ILEUM",
    "ILIUM", "JAW", "JEJUNUM", "KIDNEY", "KNEE", "LARYNX", "LEG", "LIVER", "LOWERLEG", "LSPINE", "LSSPINE",
    "MANDIBLE", "MAXILLA", "NECK", "NOSE", "ORBIT", "OVARY", "PANCREAS", "PATELLA", "PELVIS", "PHARYNX", "PROSTATE",
    "RADIUS", "RADIUSULNA", "RECTUM", "SACRUM", "SCALP", "SCAPULA", "SHOULDER", "SIJOINT", "SINUS", "SKULL",
    "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TESTIS", "THIGH", "THUMB", "THYROID", "TIBIA",
    "TIBIAFIBULA", "TLSPINE", "TMJ", "TOE", "TONGUE", "TSPINE", "ULNA", "UPPERARM", "UTERUS", "WRIST", "ZYGOMA",
}  # fmt: skip
CHEST = ("CHEST", "THORAX", "LUNG")

OLDEST_YEARS = 90  # stands for all ages above 89, as HIPAA's Safe Harbor has it


@dataclass(frozen=True)
class Note:
    """What a person must know beside an answer. `code`: for programs, as in `burned_in_text`; `sentence`: for them."""

    code: str
    sentence: str


@dataclass(frozen=True)
class Stated:
    """What a file's header says of the film; None where it does not say. PNG and JPEG say nothing.

    `modality`, `body_part`, `view_position` (PA, AP, LL): known words of DICOM alone. `age_years`: 90 stands for all
    ages above 89. `sex`: M, F or O. `burned_in`: whether letters are part of the pixels. `not_frontal`: what in it says
    that this is no frontal chest film, in words that end a sentence. `notes`: what in it must not go unsaid.
    """

    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    age_years: float | None = None
    sex: str | None = None
    burned_in: bool | None = None
    not_frontal: str | None = None
    notes: tuple[Note, ...] = ()


NOTHING = Stated()


def read_stated(header: Dataset) -> Stated:
    """What the elements STATED_TAGS of a header say."""
    modality = _word(header, "Modality", {*RADIOGRAPHY, *OTHER_MODALITIES})
    body_part = _body_part(text_of(header, "BodyPartExamined"))
    view, faults, notes = _view(header)
    if modality in OTHER_MODALITIES:
        faults.insert(0, f"Modality is {modality}, {OTHER_MODALITIES[modality]}")
    if body_part in OTHER_BODY_PARTS:
        faults.append(f"BodyPartExamined is {body_part}, not the chest")
    sideways, turned = _orientation(text_of(header, "PatientOrientation"), view)
    years, doubts = _age(header)
    burned_in = {"YES": True, "NO": False}.get(text_of(header, "BurnedInAnnotation").upper())
    if burned_in:
        notes.append(Note("burned_in_text", "BurnedInAnnotation is YES: letters are part of the picture"))
    if against := shape_against_photometric(header):
        notes.append(Note("presentation_lut_shape", against))
    return Stated(
        modality=modality,
        body_part=body_part,
        view_position=view,
        age_years=None if years is None else min(years, OLDEST_YEARS),
        sex=_word(header, "PatientSex", {"M", "F", "O"}),
        burned_in=burned_in,
        not_frontal="; ".join(faults + sideways) or None,
        notes=(*notes, *turned, *doubts),
    )


def _word(header: Dataset, tag: str, known: set[str]) -> str | None:
    word = text_of(header, tag).upper()
    return word if word in known else None


def _body_part(text: str) -> str | None:
    """A known word; devices write `PORT CHEST`, `CHEST_PA` or `T-SPINE`."""
    letters = re.sub("[^A-Z]", "", text.upper())
    part = next((part for part in CHEST if part in letters), letters.removesuffix("S"))
    return part if part in (*CHEST, *OTHER_BODY_PARTS) else letters if letters in OTHER_BODY_PARTS else None


def view_word(text: str) -> str | None:
    """PA, AP, one of OTHER_VIEWS, or OTHER, in the text of a ViewPosition; None where it tells no view."""
    parts = [part.upper() for part in parts_of(text)]
    known = [part for part in parts if part in OTHER_VIEWS and (len(part) > 1 or len(parts) == 1)]
    if known:
        return known[0]
    meaning = view_of(text)
    return OTHER if meaning == "other" else meaning if meaning in FRONTAL else None


def _view(header: Dataset) -> tuple[str | None, list[str], list[Note]]:
    """The view, what says that it is no frontal one, and what is to be noted of it."""
    text, code = text_of(header, "ViewPosition"), _view_code(header)
    position = view_word(text)
    said = [(tag, view) for tag, view in (("ViewPosition", position), ("ViewCodeSequence", code)) if view]
    faults = [f"{tag} is {view}, {OTHER_VIEWS[view]}" for tag, view in said if view in OTHER_VIEWS]
    if position == OTHER:
        faults.insert(0, "ViewPosition is a view that is not frontal")
    notes = []
    if text and view_of(text) is None and not position:
        notes.append(Note("view_not_understood", "ViewPosition holds none of DICOM's words for a view of the chest"))
    elif position in FRONTAL and code in FRONTAL and position != code:
        notes.append(Note("view_contradicts", f"ViewPosition is {position} while ViewCodeSequence says {code}"))
    return position or code, faults, notes


def _view_code(header: Dataset) -> str | None:
    try:
        return VIEW_CODES.get(text_of(header.ViewCodeSequence[0], "CodeValue"))
    except (AttributeError, IndexError, TypeError):  # absent, empty, or no sequence
        return None


def _orientation(text: str, view: str | None) -> tuple[list[str], list[Note]]:
    r"""What PatientOrientation, as `L\F`, has against an upright frontal film, and what is to be noted of it.

    The first letter is the side of the patient at the right of the picture, the second the one at its lower edge.
    """
    ends = re.fullmatch(r"\W*([LRAPHF])[LRAPHF]{0,2}\W+([LRAPHF])[LRAPHF]{0,2}\W*", text.upper())
    if ends is None:
        return [], []
    across, down = ends.groups()
    said = f"PatientOrientation is {across}\\{down}"
    while_frontal = f" while the view is {view}" if view in FRONTAL else ""
    if across in "AP" or down in "AP":
        return [f"{said}, not a frontal view{while_frontal}"], []
    if across in "HF":
        return [f"{said}, a film that lies on its side"], []
    if down == "H":
        return [f"{said}, a film upside down"], []
    if across == "R":
        return [], [Note("mirrored", f"{said}: the picture is mirrored, the patient's right side is at its right")]
    return [], []


def _age(header: Dataset) -> tuple[float | None, list[Note]]:
    """Years from PatientAge, or else from the date of birth, and what the two have against each other."""
    text = text_of(header, "PatientAge").upper()
    told = age_of(text)
    years = told if isinstance(told, float) else None
    months, doubts = _months_since_birth(header), []
    if told is None and re.fullmatch(r"\d{1,4}[YMWD]?", text):
        doubts.append(Note("age_impossible", f"PatientAge is {text}, which no person has"))
    elif re.fullmatch("0+Y?", text):  # below two years, DICOM counts months, weeks or days
        doubts.append(Note("age_unclear", "PatientAge is 0 years, which devices also write when the age is unknown"))
        years = None
    if months is None or months > 12 * OLDEST:  # 1900 stands for no date of birth
        return years, doubts
    if months < 0:
        doubts.append(Note("age_contradicts_birth", "the date of birth is later than that of the film"))
    elif years is None:
        # as PatientAge is written: an exact age would give the date of birth away
        years = float(months // 12) if months >= 24 else months / 12
    elif abs(years + 0.5 - months / 12) > 1.5:
        doubts.append(Note("age_contradicts_birth", "PatientAge and the date of birth disagree"))
    return years, doubts


def _months_since_birth(header: Dataset) -> int | None:
    """Whole months from the date of birth to that of the film."""
    dates = (text_of(header, tag) for tag in ("StudyDate", "AcquisitionDate", "ContentDate"))
    try:
        born = date.fromisoformat(text_of(header, "PatientBirthDate"))
        taken = date.fromisoformat(next(filter(None, dates), ""))
    except ValueError:  # absent, or no date
        return None
    return 12 * (taken.year - born.year) + taken.month - born.month - (taken.day < born.day)
