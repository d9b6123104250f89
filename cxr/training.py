"""Fit a model on the train split; the val split chooses the epoch and nothing else. Backend-agnostic Keras."""

import math
from pathlib import Path

import keras
import numpy as np

from cxr.augment import augment
from cxr.errors import CxrError
from cxr.params import AugmentParams, TrainParams


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
        self.epoch = 0
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.shown)

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, self.epoch, index))
        images = augment(self.images[rows], self.augmentation, rng)
        return images[..., np.newaxis], self.targets[rows], self.weights[rows]

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()


def fit(
    model: keras.Model,
    train: Batches,
    val_images: np.ndarray,
    val_labels: np.ndarray,
    params: TrainParams,
    checkpoint: Path,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Train `model` in place and leave it with the weights of the epoch of lowest val loss.

    `val_images`: uint8 (n, size, size). `val_labels`: int (n,). `checkpoint` is written while training. The val loss
    weighs every class alike, for val keeps its prevalence whatever the balance of train. Raises CxrError on a loss
    that is not finite.
    """
    classes = train.targets.shape[1]
    trained = keras.Model(model.input, model.output["probabilities"])
    trained.compile(
        optimizer=keras.optimizers.Adam(params.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    if params.epochs == 0:
        return
    per_class = np.bincount(val_labels, minlength=classes)
    history = trained.fit(
        train,
        validation_data=(
            val_images[..., np.newaxis],
            np.eye(classes, dtype=np.float32)[val_labels],
            (len(val_labels) / (classes * np.maximum(per_class, 1)))[val_labels],
        ),
        validation_batch_size=256,
        epochs=params.epochs,
        shuffle=False,  # Batches shuffles
        verbose=2,
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.ModelCheckpoint(
                checkpoint, monitor="val_loss", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.ReduceLROnPlateau(factor=params.reduce_lr_factor, patience=params.reduce_lr_patience),
            keras.callbacks.EarlyStopping(patience=params.early_stopping_patience),
            *callbacks,
        ],
    )
    losses = history.history["loss"]
    if not np.isfinite(losses).all():
        raise CxrError(f"train: the loss is {losses[-1]} in epoch {len(losses)}; lower train.learning_rate")
    trained.load_weights(checkpoint)


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend, and ask the backend for operations that repeat to the bit."""
    keras.utils.set_random_seed(seed)
    keras.utils.clear_session()  # layers that Keras names by counting get the same names again
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
