# The types of Keras leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportCallIssue=false
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
from cxr.training.recipe import make_callbacks, make_loss, make_metrics, make_optimizer

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

    `val_images`: uint8 (n, size, size). `val_labels`: int (n,), or the masks, uint8 (n, size, size), where `train` has
    masks: the model then learns these. `folder` takes what a killed run needs to go on after its last whole epoch and
    to end with the same weights; what it holds must come from the same settings and data. `log_epoch` is told of every
    epoch in order, of those before an interruption too. Raises CxrError on a loss that is not finite; the epoch before
    it stays in `folder`.
    """
    localises = train.masks is not None
    trained = keras.Model(model.input, model.output["heatmap" if localises else "probabilities"])
    train.multiple = distribution.replicas()
    val = validation_data(train, val_images, val_labels)
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
            loss=make_loss(params, localises),
            metrics=make_metrics(localises),
        )
        kept = make_callbacks(params, best[phase], min((logs["val_loss"] for logs in saved.logs), default=None))
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
    if written := [path for path in best.values() if path.exists()]:
        trained.load_weights(written[-1])


def validation_data(
    train: Batches, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, targets and weights of val, shaped as those of `train` and filled up to a multiple of `train.multiple`.

    The val loss weighs every class alike, for val keeps its prevalence whatever the balance of train; the images that
    fill up weigh nothing.
    """
    rows = np.arange(len(labels) + -len(labels) % train.multiple) % len(labels)
    if train.masks is None:
        classes = train.targets.shape[1]
        per_class = np.bincount(labels, minlength=classes)
        weights = (len(rows) / (classes * np.maximum(per_class, 1)))[labels[rows]]
        targets = np.eye(classes, dtype=np.float32)[labels[rows]]
    else:
        weights = np.ones(len(rows))
        targets = (labels[rows] > 0).astype(np.uint8)[..., np.newaxis]
    weights[len(labels) :] = 0
    return images[rows, ..., np.newaxis], targets, weights


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend, and ask the backend for operations that repeat to the bit."""
    keras.utils.set_random_seed(seed)
    keras.utils.clear_session()  # layers that Keras names by counting get the same names again
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
