"""Fit a model on the train split; the val split chooses the epoch and nothing else. Backend-agnostic Keras."""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from cxr.augment import augment, mix
from cxr.models import transfer
from cxr.params import AugmentParams, TrainParams
from cxr.training import distribution
from cxr.training.checkpoint import Keeper, Saved, phases
from cxr.training.recipe import make_loss, make_optimizer


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches of the train split; what a batch holds depends on seed, epoch and index alone.

    `images`: uint8 (n, size, size). `labels`: int (n,). `copies`: how often an epoch shows each image. `weights`:
    float (n,), of each image in the loss.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        copies: np.ndarray,
        weights: np.ndarray,
        classes: int,
        batch_size: int,
        augmentation: AugmentParams,
        seed: int,
    ) -> None:
        super().__init__(workers=1, max_queue_size=8)
        self.images = images
        self.targets = np.eye(classes, dtype=np.float32)[labels]
        self.weights = weights.astype(np.float32)
        self.shown = np.repeat(np.arange(len(images)), copies)
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.multiple = 1  # of rows in a batch: the last is filled up with the epoch's first
        self.start(0)

    def start(self, epoch: int) -> None:
        """Make the batches those of `epoch`."""
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.shown)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        rows = np.concatenate([rows, self.order[: -len(rows) % self.multiple]])
        rng = np.random.default_rng((self.seed, self.epoch, index))
        images = augment(self.images[rows], self.augmentation, rng)
        images, targets = mix(images, self.targets[rows], self.augmentation, rng)
        return images[..., np.newaxis], targets, self.weights[rows]

    def on_epoch_end(self) -> None:
        self.start(self.epoch + 1)


def fit(
    model: keras.Model,
    train: Batches,
    val_images: np.ndarray,
    val_labels: np.ndarray,
    params: TrainParams,
    folder: Path,
    log_epoch: Callable[[dict[str, float]], None],
) -> None:
    """Train `model` in place and leave it with the weights of the epoch of lowest val loss.

    `val_images`: uint8 (n, size, size). `val_labels`: int (n,). `folder` takes what a killed run needs to go on after
    its last whole epoch, ending with the weights of one that was not killed; what it holds must come from the same
    settings and data. `log_epoch` is told of every epoch in order, of those before an interruption too. The val loss
    weighs every class alike, for val keeps its prevalence whatever the balance of train. Raises CxrError on a loss
    that is not finite; the epoch before it stays in `folder`.
    """
    trained = keras.Model(model.input, model.output["probabilities"])
    classes = train.targets.shape[1]
    per_class = np.bincount(val_labels, minlength=classes)
    train.multiple = distribution.replicas()
    # filled up with images that weigh nothing in the val loss
    rows = np.arange(len(val_labels) + -len(val_labels) % train.multiple) % len(val_labels)
    weights = (len(rows) / (classes * np.maximum(per_class, 1)))[val_labels[rows]]
    weights[len(val_labels) :] = 0
    val = val_images[rows, ..., np.newaxis], np.eye(classes, dtype=np.float32)[val_labels[rows]], weights
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
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
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
