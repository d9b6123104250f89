# The types of Prefect leave open what a call takes and gives.
# pyright: reportAttributeAccessIssue=false
"""Start the Prefect server with its UI, register both flows on their schedules, and run them until Ctrl-C.

`python -m flows.serve --port 4200`. Everything listens on the loopback interface alone and ends together.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cxr.errors import CxrError, plain_errors
from cxr.params import FlowsParams, load_params
from cxr.processes import end_family, start_group
from flows import repository

HOST = "127.0.0.1"
POOL = "chest-xray"
CODE = Path(__file__).resolve().parent.parent
START_S = 120  # the first start makes the database


def prefect_environment(port: int) -> dict[str, str]:
    """Prefect's settings: its state inside the repository, its API on loopback, no usage reports."""
    return {
        "PREFECT_HOME": str(repository() / ".prefect"),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # the server's heartbeat
        "DO_NOT_TRACK": "1",  # the client's events; Evidently's
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")])),
    }


def serve(params: FlowsParams, port: int) -> None:
    """Run server and worker until a signal. Raises CxrError where one of them does not start or ends by itself."""
    require_free(port)
    os.environ.update(prefect_environment(port))  # before Prefect is first imported: it reads its settings then
    processes: dict[str, subprocess.Popen] = {}
    try:
        processes["Prefect server"] = start(["server", "start", "--host", HOST, "--port", str(port)])
        wait_until_healthy(port, processes["Prefect server"])
        register(params)
        processes["Prefect worker"] = start(["worker", "start", "--pool", POOL, "--type", "process"])
        print(f"flows: http://{HOST}:{port} (Ctrl-C ends everything)", flush=True)
        watch(processes)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not interrupt the ending
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(processes.values()):
            end_family(process)


def start(arguments: list[str]) -> subprocess.Popen:
    return start_group([sys.executable, "-m", "prefect", *arguments], CODE, os.environ, stdin=subprocess.DEVNULL)


def require_free(port: int) -> None:
    """Raises CxrError if the port is taken: the flows would be registered with somebody else's server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise CxrError(f"port {port} on {HOST} is in use; choose another with --port") from None


def wait_until_healthy(port: int, server: subprocess.Popen) -> None:
    """Wait for the server's health page. Raises CxrError where it has ended, or after START_S."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CxrError(f"the Prefect server ended with status {server.returncode}; its lines above say why")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise CxrError(f"the Prefect server did not answer on port {port} within {START_S} s")


def register(params: FlowsParams) -> None:
    """Create or update the work pool and both deployments. Raises CxrError for a schedule that is none."""
    # here, and not above: Prefect reads its settings from the environment when it is first imported
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template), overwrite=True)

    # a second retraining waits for the first; a second monitor run would only repeat what the first reports
    for name, cron, collision in (
        ("retrain", params.retrain_cron, ConcurrencyLimitStrategy.ENQUEUE),
        ("monitor", params.monitor_cron, ConcurrencyLimitStrategy.CANCEL_NEW),
    ):
        try:
            flow.from_source(source=str(CODE), entrypoint=f"flows/{name}.py:{name}").to_deployment(
                name=name,
                work_pool_name=POOL,
                schedule=Cron(cron, timezone=params.timezone),
                concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=collision),
            ).apply()
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise CxrError(f"params.yaml: flows.{name}_cron {cron!r} in {params.timezone!r}: {reason}") from None


def watch(processes: Mapping[str, subprocess.Popen]) -> None:
    """Wait for ever. Raises KeyboardInterrupt at a signal, and CxrError if a process ends."""
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise CxrError(f"the {name} ended with status {process.returncode}; its lines above say why")
        time.sleep(0.5)


def interrupt(*_) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=4200, help="of the Prefect server and its UI")
    signal.signal(signal.SIGTERM, interrupt)
    with plain_errors(), suppress(KeyboardInterrupt):
        serve(load_params(repository() / "params.yaml").flows, parser.parse_args().port)
