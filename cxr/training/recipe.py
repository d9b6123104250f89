"""Optimizer, learning rate and loss from typed params."""

import math
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from cxr.training.overlap import SoftDice, dice, iou

if TYPE_CHECKING:
    from cxr.params import ScheduleParams, TrainParams


@keras.saving.register_keras_serializable("cxr")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate by step, of `total` steps of which the first `warmup` rise from zero.

    Then it stays (`constant`), falls by `factor` every `every` steps (`step`), or follows half a cosine to zero
    (`cosine`, Loshchilov and Hutter 2017).
    """

    def __init__(self, rate: float, kind: str, factor: float, every: int, total: int, warmup: int) -> None:
        self.rate, self.kind, self.factor = rate, kind, factor
        self.every, self.total, self.warmup = every, total, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        after: Any = ops.maximum(step - self.warmup, 0.0)
        share: Any = 1.0
        if self.kind == "cosine":
            done = ops.minimum(after / max(self.total - self.warmup, 1), 1.0)
            share = (1 + ops.cos(math.pi * done)) / 2
        elif self.kind == "step":
            share = self.factor ** ops.floor(after / self.every)
        return self.rate * share * ops.minimum((step + 1) / max(self.warmup, 1), 1.0)

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


def make_optimizer(params: "TrainParams", rate: float, epochs: int, steps: int) -> keras.optimizers.Optimizer:
    """`steps`: batches an epoch."""
    chosen = params.optimizer
    options: dict = {"learning_rate": make_schedule(params.schedule, rate, epochs, steps)}
    if params.ema:
        options |= {"use_ema": True, "ema_momentum": params.ema}
    if chosen.name == "adam":
        return keras.optimizers.Adam(**options)
    if chosen.name == "adamw":
        return keras.optimizers.AdamW(weight_decay=chosen.weight_decay, **options)
    return keras.optimizers.SGD(momentum=chosen.momentum, weight_decay=chosen.weight_decay or None, **options)


def make_schedule(params: "ScheduleParams", rate: float, epochs: int, steps: int) -> float | Schedule:
    if params.name == "plateau" or (params.name == "constant" and not params.warmup_epochs):
        return rate
    return Schedule(
        rate, params.name, params.factor, params.epochs * steps, epochs * steps,
        round(params.warmup_epochs * steps),
    )  # fmt: skip


def make_loss(params: "TrainParams") -> keras.losses.Loss:
    if params.model == "unet":
        return SoftDice()
    if params.focal_gamma:
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=params.focal_gamma, label_smoothing=params.label_smoothing
        )
    return keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing)


def make_metrics(params: "TrainParams") -> list[Any]:
    return [dice, iou] if params.model == "unet" else [keras.metrics.CategoricalAccuracy(name="accuracy")]
