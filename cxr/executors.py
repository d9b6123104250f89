# The types of Dask leave open what a call takes and gives.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportPrivateImportUsage=false, reportReturnType=false
"""Run a function over batches in order: in worker processes of this machine, or on a Dask cluster.

A worker may die: killed for memory, or ended by a decoder on damaged bytes. Its batch is then run again item by item.
An item that ends its worker twice is given up; the others are not.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Protocol, TypeVar

from cxr.errors import CxrError
from cxr.params import IngestParams

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # batches a worker that wait for it or for their turn to be written: the bound of what is in memory
DEATHS = 40  # of workers in a run; more are no single damaged file

CONNECT_SECONDS = 15  # to wait for a Dask scheduler


class Backend(Protocol):
    """Where work is done; `restart` gives a new executor after workers died."""

    executor: Executor
    workers: int
    reads_files: bool  # whether workers see the files of this machine, so that paths can be sent in place of bytes
    died: tuple[type[Exception], ...]  # what a future raises whose worker died

    def restart(self) -> None: ...
    def close(self) -> None: ...


class Processes:
    """Worker processes of this machine."""

    reads_files = True
    died = (BrokenExecutor,)

    def __init__(self, workers: int, prepare: Callable[[], None]) -> None:
        self.workers = workers or os.cpu_count() or 1
        self._prepare = prepare
        self.executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # spawned, not forked: a fork copies the threads' locks of OpenCV and Arrow in whatever state they are
        context = get_context("spawn")
        return ProcessPoolExecutor(self.workers, context, initializer=_start_worker, initargs=(self._prepare,))

    def restart(self) -> None:
        self.executor.shutdown(cancel_futures=True)  # waits until every future of the dead pool says so
        self.executor = self._start()

    def close(self) -> None:
        self.executor.shutdown(cancel_futures=True)


def _start_worker(prepare: Callable[[], None]) -> None:
    """A worker holds both ends of its queue, so that it would wait for ever for a parent that was killed."""

    def end_with_parent() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    prepare()


class Dask:
    """Workers of a Dask cluster, or of one started on this machine where `scheduler` is None.

    Bytes are sent, not paths, so that the machines need to share no folder; they need this repository's code.
    """

    reads_files = False

    def __init__(self, scheduler: str | None, workers: int, prepare: Callable[[], None]) -> None:
        import dask
        from distributed import Client, KilledWorker, LocalCluster

        # batches are data, not code: silence the advice to scatter them
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})
        self._cluster = None
        if scheduler is None:
            self._cluster = LocalCluster(
                n_workers=workers or os.cpu_count() or 1, threads_per_worker=1, dashboard_address=None
            )
        try:
            self._client = Client(scheduler or self._cluster, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise CxrError(f"ingest.scheduler: no Dask scheduler answers at {scheduler} ({error})") from None
        self._client.register_plugin(_prepare_plugin(prepare))
        self.died = (KilledWorker,)
        self.workers = max(1, len(self._client.nthreads()))
        self.executor = self._client.get_executor(pure=False, retries=0)

    def restart(self) -> None:
        """Nothing: the cluster's nannies start dead workers again."""

    def close(self) -> None:
        self._client.close()
        if self._cluster:
            self._cluster.close()


def _prepare_plugin(prepare: Callable[[], None]) -> Any:
    from distributed import WorkerPlugin

    class Prepare(WorkerPlugin):
        name = "prepare"

        def setup(self, worker: object) -> None:
            prepare()

    return Prepare()


@contextmanager
def open_backend(params: IngestParams, prepare: Callable[[], None]) -> Iterator[Backend]:
    """`prepare` runs once in every worker, before its first batch. Raises CxrError where no scheduler answers."""
    if params.executor == "dask":
        backend = Dask(params.scheduler, params.workers, prepare)
    else:
        backend = Processes(params.workers, prepare)
    try:
        yield backend
    finally:
        backend.close()


def map_in_order(
    backend: Backend,
    function: Callable[[list[Item]], list[Result]],
    batches: Iterable[list[Item]],
    gave_up: Callable[[Item], Result],
) -> Iterator[tuple[list[Item], list[Result]]]:
    """Each batch with `function` of it, in the order of `batches`, of which a bounded number is in memory.

    `gave_up` is the result of an item that ended its worker twice. Raises CxrError where workers keep dying.
    """
    waiting: deque[tuple[list[Item], Future]] = deque()
    deaths = 0

    def revive() -> None:
        nonlocal deaths
        deaths += 1
        if deaths > DEATHS:
            raise CxrError(f"ingest: {deaths} worker processes were killed; is memory short? Run again to go on")
        backend.restart()

    def alone(item: Item) -> Result:
        for _ in range(2):
            try:
                return backend.executor.submit(function, [item]).result()[0]
            except backend.died:
                revive()
        return gave_up(item)

    def finish() -> tuple[list[Item], list[Result]]:
        batch, future = waiting.popleft()
        try:
            return batch, future.result()
        except backend.died:
            revive()
        results = [alone(item) for item in batch]
        for i, (other, lost) in enumerate(waiting):
            if lost.done() and isinstance(lost.exception(), backend.died):
                waiting[i] = other, backend.executor.submit(function, other)
        return batch, results

    for batch in batches:
        waiting.append((batch, backend.executor.submit(function, batch)))
        if len(waiting) > AHEAD * backend.workers:
            yield finish()
    while waiting:
        yield finish()
