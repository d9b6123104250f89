# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""What a killed training needs to go on after its last whole epoch, and to end as if it had not been killed.

Keras's `BackupAndRestore` keeps the weights and the optimizer, but neither the seeds of dropout nor what the other
callbacks have counted (patience, the lowest val loss), and it overwrites first the weights, then
the epoch: after a kill between the two, a run would go on with files that do not belong together.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from cxr.errors import CxrError
from cxr.files import writing

if TYPE_CHECKING:
    from cxr.params import TrainParams


@dataclass(frozen=True)
class Phase:
    """One call of `fit`: epochs `first` to `first + epochs - 1`, with the backbone frozen to `freeze`."""

    first: int
    epochs: int
    learning_rate: float
    freeze: int | str


def phases(params: "TrainParams") -> list[Phase]:
    whole = Phase(0, params.epochs, params.learning_rate, params.freeze)
    fine = Phase(params.epochs, params.fine_tune.epochs, params.fine_tune.learning_rate, params.fine_tune.freeze)
    return [phase for phase in (whole, fine) if phase.epochs]


@dataclass
class Saved:
    """What a run has behind it: the logs of its epochs, and all that the next one depends on.

    `epoch` is the last whole one, -1 before the first; `phase` the first epoch of its phase; `stopped` whether that
    phase ended early. `callbacks`: the numbers that each Keras callback keeps.
    """

    epoch: int = -1
    phase: int = 0
    stopped: bool = False
    logs: list[dict[str, float]] = field(default_factory=list)
    callbacks: list[dict] = field(default_factory=list)
    variables: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> "Saved":
        if not path.exists():
            return cls()
        with np.load(path) as stored:
            variables = [stored[f"v{i}"] for i in range(len(stored.files) - 1)]
            return cls(**json.loads(str(stored["state"])), variables=variables)

    def save(self, path: Path) -> None:
        state = {name: value for name, value in asdict(self).items() if name != "variables"}
        arrays = {f"v{i}": array for i, array in enumerate(self.variables)}
        with writing(path) as part, open(part, "wb") as file:
            np.savez(file, state=json.dumps(state), **arrays)

    def is_behind(self, phase: Phase) -> bool:
        ended = self.stopped or self.epoch == phase.first + phase.epochs - 1
        return self.phase > phase.first or (self.phase == phase.first and ended)


class Keeper(keras.callbacks.Callback):
    """Saves the run after every epoch, and begins where it was saved. It stands behind the callbacks that it keeps."""

    def __init__(
        self, saved: Saved, phase: Phase, kept: list[keras.callbacks.Callback], path: Path,
        log_epoch: Callable[[dict[str, float]], None],
    ) -> None:  # fmt: skip
        super().__init__()
        self.saved, self.phase, self.kept, self.path, self.log_epoch = saved, phase, kept, path, log_epoch

    def _variables(self) -> list[keras.Variable]:
        """Weights, moving averages, the random seeds of dropout, and what the optimizer remembers."""
        self.model.optimizer.build(self.model.trainable_variables)
        return [*self.model.variables, *self.model.optimizer.variables]

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.saved.phase != self.phase.first or not self.saved.variables:
            return
        for variable, value in zip(self._variables(), self.saved.variables, strict=True):
            variable.assign(value)
        for callback, numbers in zip(self.kept, self.saved.callbacks, strict=True):
            vars(callback).update(numbers)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        for name in ("loss", "val_loss"):
            if not np.isfinite(numbers[name]):
                raise CxrError(f"train: the {name} is {numbers[name]} in epoch {epoch + 1}; lower train.learning_rate")
        self.log_epoch(numbers)
        self.saved.epoch, self.saved.phase, self.saved.stopped = epoch, self.phase.first, self.model.stop_training
        self.saved.logs.append(numbers)
        self.saved.callbacks = [
            {name: value for name, value in vars(callback).items() if isinstance(value, bool | int | float)}
            for callback in self.kept
        ]
        self.saved.variables = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        self.saved.save(self.path)
