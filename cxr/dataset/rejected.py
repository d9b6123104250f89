"""What ingest left out of a source (`rejected.csv`): reasons that others read, and the words that it did not know."""

from collections import Counter

import pandas as pd

# what is stated and not understood stands as a word in `detail`
NOT_UNDERSTOOD = r"^(?P<what>.+) not understood$"
OF_A_CELL = r"^(?:age|sex) not understood$"  # only the cell is left out: the image is used
SHOWN_WORDS = 50  # of a source in a report


def words_not_understood(rejected: pd.DataFrame) -> dict[str, dict[str, int]]:
    """The words for views, ages and sexes that a source uses and no table knows, each with its count."""
    what = rejected["reason"].str.extract(NOT_UNDERSTOOD)["what"]
    words = rejected["detail"].fillna("").astype(str)
    return {name: most_common(Counter(words[what == name])) for name in sorted(what.dropna().unique())}


def told(source: str, words: dict[str, dict[str, int]]) -> list[str]:
    """The same as lines of a log."""
    return [
        f"{source}: {what} stated and not understood: {', '.join(f'{word} ({n})' for word, n in counts.items())}"
        for what, counts in words.items()
    ]


def most_common(words: Counter) -> dict[str, int]:
    """Counts, the largest first; of a source of free text only the first are told."""
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[SHOWN_WORDS:]
    return dict(ordered[:SHOWN_WORDS]) | ({f"({len(rest)} more words)": sum(n for _, n in rest)} if rest else {})
