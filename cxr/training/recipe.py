"""Optimizer, learning rate, loss, metrics and callbacks from typed params."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
from keras.callbacks import Callback, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, SwapEMAWeights
from keras.optimizers.schedules import CosineDecay, ExponentialDecay, LearningRateSchedule

from cxr.training.overlap import SoftDice, dice, iou

if TYPE_CHECKING:
    from cxr.params import ScheduleParams, TrainParams


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


def make_schedule(params: "ScheduleParams", rate: float, epochs: int, steps: int) -> float | LearningRateSchedule:
    """The learning rate by step, of `epochs` epochs of `steps` batches; a number where no step changes it.

    Cosine: half of one, down to zero (Loshchilov and Hutter 2017). A warm-up is linear, from zero to `rate`.
    """
    if params.name == "step":
        return ExponentialDecay(rate, params.epochs * steps, params.factor, staircase=True)
    if params.name == "plateau" or (params.name == "constant" and not params.warmup_epochs):
        return rate
    warmup = round(params.warmup_epochs * steps)
    left = 1.0 if params.name == "constant" else 0.0  # of the rate when the cosine ends
    return CosineDecay(0.0, max(epochs * steps - warmup, 1), left, warmup_target=rate, warmup_steps=warmup)


def make_loss(params: "TrainParams", localises: bool) -> keras.losses.Loss:
    """Of masks where the task `localises`, else of classes."""
    if localises:
        return SoftDice()
    if params.focal_gamma:
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=params.focal_gamma, label_smoothing=params.label_smoothing
        )
    return keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing)


def make_metrics(localises: bool) -> list[Any]:
    return [dice, iou] if localises else [keras.metrics.CategoricalAccuracy(name="accuracy")]


def make_callbacks(params: "TrainParams", best: Path, lowest: float | None) -> list[Callback]:
    """What keeps the best epoch's weights in `best`, stops early, and changes rate or weights between epochs.

    `lowest`: the val loss that an epoch must beat, None before the first epoch.
    """
    callbacks = [
        ModelCheckpoint(best, save_best_only=True, save_weights_only=True, initial_value_threshold=lowest),
        EarlyStopping(patience=params.early_stopping_patience),
    ]
    if params.ema:
        callbacks.insert(0, SwapEMAWeights(swap_on_epoch=True))
    if params.schedule.name == "plateau":
        callbacks.append(ReduceLROnPlateau(factor=params.schedule.factor, patience=params.schedule.epochs))
    return callbacks
