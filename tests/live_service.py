"""The service as a person starts it: `bentoml serve` as a process on loopback."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
BENTOML = Path(sys.executable).with_name("bentoml")


class ConnectionCounter:
    """A loopback server that counts who connects and answers nobody."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class LiveService:
    """`client` speaks to it; `log` is the prediction log's file, `output` what the process printed."""

    client: httpx.Client
    url: str
    log: Path
    output: Path
    outside: ConnectionCounter


def service_environment(folder: Path, outside: ConnectionCounter, **extra: str) -> dict[str, str]:
    """Nothing of the caller's but PATH; every way out leads to `outside`. Usage reports are not turned off here."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), outside.url)
    paths = {"PATH": os.environ["PATH"], "HOME": str(folder), "BENTOML_HOME": str(folder / "bentoml")}
    return paths | proxies | {"BENTOML_DO_NOT_TRACK": "False"} | extra


@contextmanager
def serve(
    folder: Path,
    target: str = "service:ChestXray",
    cwd: Path = ROOT,
    seconds: float = 90,
    bentoml: Path = BENTOML,
    **extra: str,
) -> Iterator[LiveService]:
    """Run `bentoml serve target` in `cwd` with the environment `extra` until the block ends; its files in `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    outside, output, log = ConnectionCounter(), folder / "output.txt", folder / "predictions.sqlite"
    environment = service_environment(folder, outside, **({"CXR_PREDICTION_LOG": f"sqlite:///{log}"} | extra))
    with output.open("w") as stream:
        process = subprocess.Popen(
            [bentoml, "serve", target, "--port", str(port)],
            cwd=cwd, env=environment, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            _wait_until_live(client, process, output, seconds)
            yield LiveService(client, url, log, output, outside)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        outside.close()


def _wait_until_live(client: httpx.Client, process: subprocess.Popen, output: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.get("/livez").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"the service did not start in {seconds} s:\n{output.read_text()[-2000:]}")
