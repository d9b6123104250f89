"""The time that a run has, and the pieces of work that must fit into what is left of it."""

import time


class OutOfTime(Exception):  # noqa: N818  # nothing went wrong
    """What comes next may not end in time."""


class Clock:
    """`longest`: seconds of the longest piece of work so far; a piece cannot be interrupted."""

    def __init__(self, seconds: float, longest: float) -> None:
        self.end = time.perf_counter() + seconds
        self.half = seconds / 2
        self.longest = longest
        self._began: float | None = None

    def next_piece(self, expected: float | None = None) -> None:
        """The piece before is over, another may begin; the first one always does, or nothing would ever be done.

        Raises OutOfTime where less is left than the seconds that are `expected`, if nothing is known those of the
        longest piece so far, but no more than half of the whole time: one very long piece would stop all others.
        """
        if self._began is not None:
            self.end_piece()
            if expected is None:
                expected = min(self.longest, self.half)
            if time.perf_counter() + expected > self.end:
                raise OutOfTime
        self._began = time.perf_counter()

    def end_piece(self) -> None:
        if self._began is not None:
            self.longest = max(self.longest, time.perf_counter() - self._began)
