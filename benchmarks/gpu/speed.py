"""What the device reaches, and what training makes of it."""

import gc
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import keras
import numpy as np

from benchmarks.gpu.kermany import Films
from benchmarks.gpu.presets import BACKBONE, RECIPE, as_params
from cxr.models import build_model
from cxr.training.batches import Batches
from cxr.training.fit import make_deterministic
from cxr.training.recipe import make_loss, make_optimizer

ROUND_SECONDS = 0.5  # of products, that the clock and the first launch count for nothing
PRECISIONS = ("bfloat16", "float32")


def keep_compiled(folder: Path) -> None:
    """Let XLA keep its programs there: three seeds, and every slice after the first, need not compile them again."""
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))


def forget() -> None:
    """Free what the last step left on the device."""
    keras.utils.clear_session()
    jax.clear_caches()
    gc.collect()


def facts() -> dict:
    device = jax.devices()[0]
    return {
        "date": date.today().isoformat(),
        "device": device.device_kind,
        "platform": f"{device.platform}, {' '.join(device.client.platform_version.split())}",
        "device_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "devices": len(jax.devices()),  # of which the first is used
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def matrix(products: list[int]) -> dict:
    """TFLOP/s of the product of two square matrices of normal numbers, by precision and side; the best of each."""
    rates = {
        precision: {str(side): product_rate(side, jnp.dtype(precision)) / 1e12 for side in products}
        for precision in PRECISIONS
    }
    return {"tflops": rates, "best": {precision: max(each.values()) for precision, each in rates.items()}}


def product_rate(side: int, dtype: jnp.dtype) -> float:
    """FLOP/s, 2 side^3 a product; the best of three rounds."""
    left, right = (jax.random.normal(key, (side, side), dtype) for key in jax.random.split(jax.random.key(0)))
    multiply = jax.jit(jnp.matmul)
    multiply(left, right).block_until_ready()

    def seconds(products: int) -> float:
        began = time.perf_counter()
        for _ in range(products):
            found = multiply(left, right)
        found.block_until_ready()
        return (time.perf_counter() - began) / products

    products = max(1, round(ROUND_SECONDS / seconds(1)))
    return 2 * side**3 / min(seconds(products) for _ in range(3))


class Constant(keras.utils.PyDataset):
    """One batch, on the device from the beginning, as often as an epoch has batches."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self.batch = jax.device_put(batches[0])
        self.count = len(batches)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple:
        return self.batch


class EpochSeconds(keras.callbacks.Callback):
    """Keras reads the loss at an epoch's end, so the device has then done all its steps."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds = time.perf_counter() - self.began


def throughput(network: str, precision: str, batch_size: int, films: Films, images: int, rounds: int) -> dict:
    """Images/s of training: the same compiled step on a constant batch and on the real input, alternating epochs.

    An epoch is of about so many `images`, in whole batches. `gflop_per_image` is what one step computes by the network
    as it was written, forward, backward and optimizer, before XLA changes anything.
    """
    make_deterministic(0)
    recipe = RECIPE if network == RECIPE["model"] else BACKBONE
    params = as_params(recipe | {"model": network, "batch_size": batch_size, "precision": precision})
    model = build_model(params, films.images.shape[1], 2)
    trained = keras.Model(model.input, model.output["probabilities"])
    rows = np.arange(max(images // batch_size, 1) * batch_size) % len(films)
    ones = np.ones(len(rows), int)
    labels = films.labels("pneumonia")[rows]
    real = Batches(films.images[rows], labels, ones, ones, 2, batch_size, params.augment, 0)
    trained.compile(
        optimizer=make_optimizer(params, params.learning_rate, params.epochs, len(real)), loss=make_loss(params, False)
    )
    inputs = {"constant": Constant(real), "real": real}
    first = {name: epoch_seconds(trained, batches) for name, batches in inputs.items()}
    seconds = {name: [] for name in inputs}
    for _ in range(rounds):
        for name, batches in inputs.items():
            seconds[name].append(epoch_seconds(trained, batches))
    rates = {name: [len(rows) / each for each in times] for name, times in seconds.items()}
    constant, fed = (statistics.median(rates[name]) for name in inputs)
    flop = step_flop(trained, real[0]) / batch_size
    return {
        "network": network,
        "precision": precision,
        "batch_size": batch_size,
        "side": films.images.shape[1],
        "parameters": model.count_params(),
        "compile_s": first["constant"],
        "images_per_s": rates,
        "constant_images_per_s": constant,
        "real_images_per_s": fed,
        "share_of_constant": fed / constant,
        "gflop_per_image": flop / 1e9,
        "tflops": constant * flop / 1e12,
    }


def epoch_seconds(trained: keras.Model, batches: keras.utils.PyDataset) -> float:
    clock = EpochSeconds()
    trained.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[clock])
    return clock.seconds


def step_flop(trained: keras.Model, batch: tuple) -> float:
    """Floating-point operations of one training step, by XLA's cost analysis of the graph before it is compiled.

    Always counted for the CPU: the plugins of other devices cannot, and count what their libraries do as nothing.
    """
    variables = (
        trained.trainable_variables,
        trained.non_trainable_variables,
        trained.optimizer.variables,
        trained.metrics_variables,
    )
    state = tuple([jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group] for group in variables)
    data = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in batch)
    with jax.default_device(jax.devices("cpu")[0]):
        cost: Any = jax.jit(trained.train_step).lower(state, data).cost_analysis()
    return cost["flops"]
