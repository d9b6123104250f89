"""Fit a model on the train split; the val split chooses the epoch and nothing else. Backend-agnostic Keras."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from cxr.models import transfer
from cxr.training import distribution
from cxr.training.batches import Batches
from cxr.training.checkpoint import Keeper, Saved, phases
from cxr.training.recipe import make_loss, make_metrics, make_optimizer

if TYPE_CHECKING:
    from cxr.params import TrainParams


def fit(
    model: keras.Model,
    train: Batches,
    val_images: np.ndarray,
    val_labels: np.ndarray,
    params: "TrainParams",
    folder: Path,
    log_epoch: Callable[[dict[str, float]], None],
) -> None:
    """Train `model` in place and leave it with the weights of the epoch of lowest val loss.

    `val_images`: uint8 (n, size, size). `val_labels`: int (n,), or with masks in `train` the masks, uint8
    (n, size, size). `folder` takes what a killed run needs to go on after
    its last whole epoch, ending with the weights of one that was not killed; what it holds must come from the same
    settings and data. `log_epoch` is told of every epoch in order, of those before an interruption too. The val loss
    weighs every class alike, for val keeps its prevalence whatever the balance of train. Raises CxrError on a loss
    that is not finite; the epoch before it stays in `folder`.
    """
    trained = keras.Model(model.input, model.output["probabilities" if train.masks is None else "heatmap"])
    train.multiple = distribution.replicas()
    # filled up with images that weigh nothing in the val loss
    rows = np.arange(len(val_labels) + -len(val_labels) % train.multiple) % len(val_labels)
    if train.masks is None:
        classes = train.targets.shape[1]
        per_class = np.bincount(val_labels, minlength=classes)
        weights = (len(rows) / (classes * np.maximum(per_class, 1)))[val_labels[rows]]
        targets = np.eye(classes, dtype=np.float32)[val_labels[rows]]
    else:
        weights = np.ones(len(rows))
        targets = np.uint8(val_labels[rows] > 0)[..., np.newaxis]
    weights[len(val_labels) :] = 0
    val = val_images[rows, ..., np.newaxis], targets, weights
    folder.mkdir(parents=True, exist_ok=True)
    # a file for each phase: a run killed in the second begins it again from the best epoch of the first
    best = {phase: folder / f"best{phase.first}.weights.h5" for phase in phases(params)}
    saved = Saved.load(folder / "epoch.npz")
    for logs in saved.logs:
        log_epoch(logs)
    for phase in phases(params):
        if saved.is_behind(phase):
            continue
        if saved.logs and saved.phase < phase.first:
            # the random seeds of dropout go on from where the last phase left them; a file of weights has none
            for variable, value in zip(trained.variables, saved.variables, strict=False):
                variable.assign(value)
            trained.load_weights(best[phases(params)[0]])
        if params.model in transfer.BACKBONES:
            transfer.freeze(model, phase.freeze)
        trained.compile(
            optimizer=make_optimizer(params, phase.learning_rate, phase.epochs, len(train)),
            loss=make_loss(params),
            metrics=make_metrics(params),
        )
        kept = [
            keras.callbacks.ModelCheckpoint(
                best[phase],
                save_best_only=True,
                save_weights_only=True,
                initial_value_threshold=min((logs["val_loss"] for logs in saved.logs), default=None),
            ),
            keras.callbacks.EarlyStopping(patience=params.early_stopping_patience),
        ]
        if params.ema:
            kept.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
        if params.schedule.name == "plateau":
            kept.append(
                keras.callbacks.ReduceLROnPlateau(factor=params.schedule.factor, patience=params.schedule.epochs)
            )
        keeper = Keeper(saved, phase, kept, folder / "epoch.npz", log_epoch)
        first = max(phase.first, saved.epoch + 1)
        train.start(first)
        trained.fit(
            train,
            validation_data=val,
            validation_batch_size=256,
            initial_epoch=first,
            epochs=phase.first + phase.epochs,
            shuffle=False,  # Batches shuffles
            verbose=2,
            callbacks=[keras.callbacks.TerminateOnNaN(), *kept, keeper],
        )
    for path in reversed(best.values()):
        if path.exists():
            trained.load_weights(path)
            break


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend, and ask the backend for operations that repeat to the bit."""
    keras.utils.set_random_seed(seed)
    keras.utils.clear_session()  # layers that Keras names by counting get the same names again
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
