"""What people write for a view, a sex and an age, in several languages; `view_words` and `sex_words` add to it.

Letter case, accents and punctuation never count. A word in no table is not understood, which is not the same as not
stated: readers count what they do not understand word by word, and guess nothing.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal, TypeVar

ViewMeaning = Literal["PA", "AP", "frontal", "other", "not stated"]  # frontal: PA or AP, which of them is not told
SexMeaning = Literal["M", "F", "O", "not stated"]
NOT_STATED = "not stated"


T = TypeVar("T")


def _each(meaning: T, words: str) -> dict[str, T]:
    return dict.fromkeys(words.split(), meaning)


NOTHING = _each(
    NOT_STATED,
    "na nan none null nil unknown unk undefined unspecified notstated notspecified notavailable missing unbekannt "
    "keineangabe inconnu nonprecise desconocido noconsta sconosciuto desconhecido onbekend",
)
VIEWS: dict[str, ViewMeaning] = {
    **_each(
        "PA",
        "pa posteroanterior posteroanteriore posteroanterieur posterioranterior posterioanterior dorsoventral dv "
        "pafrontal frontalpa achterwaartsvoorwaarts tylnoprzednia 后前位",
    ),
    **_each(
        "AP",
        "ap anteroposterior anteroposteriore anteroposterieur anteriorposterior anterioposterior ventrodorsal vd "
        "apfrontal frontalap voorwaartsachterwaarts przedniotylna 前后位",
    ),
    **_each("frontal", "frontal frontale frontaal face deface 正位"),
    **_each(
        "other",
        "l ll rl lat lateral laterale lateraal laterolateral laterolaterale llat rlat leftlateral rightlateral "
        "lateralleft lateralright llateral rlateral seitlich seite seitbild profil profile perfil deprofil zijdelings "
        "boczna 侧位 costal",
    ),
}
# a film with one of these words is no upright or supine frontal film, whatever stands beside it, as in `AP LLD`
NEVER_FRONTAL = _each(
    "other",
    "lld rld llo rlo rao lao rpo lpo oblique obliqua oblicua schrag schraeg decubitus axial lordotic apical swimmers "
    "xtable crosstable",
)
# how and where the film was taken, which says nothing of the view
BESIDE_THE_VIEW = _each(
    NOT_STATED,
    "erect upright standing sitting seated supine semi semierect semiupright recumbent portable mobile bedside "
    "horizontal vertical view projection position film chest thorax lung x ray xray cxr radiograph rontgen roentgen rx "
    "stehend stehen sitzend sitzen liegend liegen im bett bettlunge aufnahme strahlengang debout assis couche lit pie "
    "de en decubito supino sentado bipedestacion ortostatismo piedi supina clinostatismo leito staand liggend torax",
)
SEXES: dict[str, SexMeaning] = {
    **_each(
        "M",
        "m male man boy mannlich mann maennlich masculin homme h hombre masculino varon maschio uomo maschile homem "
        "mannelijk mezczyzna 男",
    ),
    **_each(
        "F",
        "f female woman girl weiblich frau w feminin femme mujer femenino femenina femmina donna femminile mulher "
        "feminino vrouw vrouwelijk kobieta 女",
    ),
    **_each("O", "o other d divers diverse nonbinary intersex autre otro altro outro anders"),
    "u": NOT_STATED,
}
UNITS: dict[str, float] = {  # in a year
    **_each(1, "y yr yrs year years j jahr jahre jahren an ans ano anos anni anno jaar"),
    **_each(12, "m mo mon mos month months monat monate monaten mois mes meses mesi mese maanden"),
    **_each(52.1775, "w wk wks week weeks woche wochen semaine semaines semana semanas weken"),
    **_each(365.2425, "d day days t tag tage tagen jour jours dia dias giorni giorno dagen"),
}
AGE = re.compile(r"(?P<number>\d{1,4}(?:[.,]\d{1,4})?)\s*(?P<unit>[^\W\d_]*)\.?\s*(?P<more>\+?)")
OLDEST = 120

SHOWN_LETTERS = 20  # of a word that a report may quote
SHOWN_PARTS = 3
SHOWN_WORD = re.compile(r"[^\W\d_]+(?:[.\-/_][^\W\d_]*)*")
SHOWN_NUMBER = re.compile(r"-?\d{1,4}(?:[.,]\d{1,2})?\s?[^\W\d_]{0,8}")


def plain_word(text: str) -> str:
    """`pa` of `P.A.`: two words are the same where only letter case, accents and punctuation tell them apart."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text).casefold()))


def label_value(cell: str | float) -> str | float:
    """A cell of a label column as it is compared: `1`, `1.0` and `1.00` are one number."""
    try:
        return float(cell)
    except ValueError:
        return str(cell).strip().casefold()


def parts_of(text: str) -> list[str]:
    """`ap`, `erect` of `AP-erect`: its runs of letters and digits in lower case, without accents."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"[^\W_]+", "".join(c for c in decomposed if not unicodedata.combining(c)))


def view_of(text: str, own: Mapping[str, ViewMeaning] | None = None) -> ViewMeaning | None:
    """What `text` says of the view: PA, AP, `frontal` for either, `other` or `not stated`; None: not understood.

    `own`: the source's own words, by `plain_word`; they are believed before the table.
    """
    whole = plain_word(text)
    if own and whole in own:
        return own[whole]
    if not whole or whole in NOTHING:
        return NOT_STATED
    if whole in VIEWS:
        return VIEWS[whole]
    parts = parts_of(text)
    if any(part in NEVER_FRONTAL for part in parts):
        return "other"
    return VIEWS.get("".join(part for part in parts if part not in BESIDE_THE_VIEW))


def sex_of(text: str, own: Mapping[str, SexMeaning] | None = None) -> SexMeaning | None:
    """M, F or O as in DICOM, or `not stated`; None: not understood. `own`: see `view_of`."""
    whole = plain_word(text)
    if own and whole in own:
        return own[whole]
    return NOT_STATED if not whole or whole in NOTHING else SEXES.get(whole)


def age_of(text: str) -> float | str | None:
    """Years from a cell such as `57`, `057Y`, `018M`, `3 Monate` or `50+`, or `not stated`; None: no person's age."""
    if plain_word(text) in {"", *NOTHING}:
        return NOT_STATED
    match = AGE.fullmatch(text.strip())
    unit = UNITS.get(plain_word(match["unit"]) or "y") if match else None
    if match is None or unit is None:
        return None
    years = float(match["number"].replace(",", ".")) / unit
    return years if years <= OLDEST else None


def shown(text: str) -> str:
    """`text` as a report may quote it. A cell can hold more than its column promises, perhaps a name.

    A report quotes one word of at most 20 letters, two or three such words if one of them is a word for a view, or a
    number below 10,000 with a unit. Of anything else it gives only the number of characters.
    """
    words = text.split()
    letters = all(SHOWN_WORD.fullmatch(word) for word in words)
    few = len(words) <= SHOWN_PARTS and all(len(word) <= SHOWN_LETTERS for word in words)
    of_views = any(part in VIEWS or part in NEVER_FRONTAL or part in BESIDE_THE_VIEW for part in parts_of(text))
    if (letters and few and (len(words) == 1 or of_views)) or SHOWN_NUMBER.fullmatch(text):
        return repr(text)
    return f"a cell of {len(text)} characters"
