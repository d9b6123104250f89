"""Training on more than one device: the GPUs of one machine, or several machines.

One machine, TensorFlow: `MirroredStrategy` over its GPUs. One machine or several, JAX: data parallelism over all
devices of all processes, since `fit` of Keras 3 does not work under TensorFlow's `MultiWorkerMirroredStrategy`. The
batch size in `params.yaml` is that of all devices together, so the losses are those of one device. Batch norm is the
exception: TensorFlow takes its statistics on each device alone.

Every machine starts the same command with CXR_PROCESSES (how many), CXR_PROCESS (its number, from 0) and
CXR_COORDINATOR (host:port of number 0). These are facts of a cluster and not of the experiment, so they stand in the
environment and not in `params.yaml`.
"""

import contextlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import keras

from cxr.errors import CxrError


@dataclass(frozen=True)
class Place:
    """Which process of how many this is. Number 0 writes what the others compute with it."""

    process: int
    processes: int

    @property
    def writes(self) -> bool:
        return self.process == 0


def connect() -> Place:
    """Join the other processes, where there are any, and use all devices. Call before the first model is built.

    Raises CxrError for an environment that says something else than a cluster, or a backend that cannot.
    """
    place = _place()
    if place.processes > 1:
        if keras.backend.backend() != "jax":
            raise CxrError(f"CXR_PROCESSES={place.processes}: several machines need KERAS_BACKEND=jax")
        keras.distribution.initialize(
            job_addresses=os.environ["CXR_COORDINATOR"], num_processes=place.processes, process_id=place.process
        )
    if keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) > 1:
        # every process draws the same batches, of which Keras gives each device its part
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return place


def _place() -> Place:
    values = {name: os.environ.get(f"CXR_{name}", "") for name in ("PROCESSES", "PROCESS", "COORDINATOR")}
    if not any(values.values()):
        return Place(0, 1)
    try:
        place = Place(int(values["PROCESS"]), int(values["PROCESSES"]))
    except ValueError:
        place = Place(-1, 0)
    host, _, port = values["COORDINATOR"].rpartition(":")
    if not (0 <= place.process < place.processes and host and port.isdigit()):
        told = ", ".join(f"CXR_{name}={value!r}" for name, value in values.items())
        raise CxrError(f"{told}: expected a number of processes, one below it, and host:port of process 0")
    return place


def replicas() -> int:
    """Parts of equal size into which TensorFlow must be able to cut a batch; JAX cuts whatever comes."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def scope() -> AbstractContextManager:
    """Where a model must be built and fitted: over all GPUs of this machine where TensorFlow sees more than one."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy(gpus).scope() if len(gpus) > 1 else contextlib.nullcontext()
