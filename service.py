# The types of BentoML and Starlette leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""The Bento: one radiograph over HTTP in, class probabilities out, every answer in the prediction log.

`bentoml serve` in the repository's root, `bentoml serve service:ChestXray` and the built Bento all start it, bound to
127.0.0.1 unless `--host` says otherwise. Environment:

CXR_RELEASE         folder of the release; default `models/release` beside this file
CXR_PREDICTION_LOG  SQLAlchemy URL of the log; default `sqlite:///predictions.sqlite` in the working directory
"""

# usage reports are turned off before the packages that send them are imported

import os
import time
from pathlib import Path

os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import anyio.to_thread
import bentoml
from bentoml._internal.utils.analytics.usage_stats import do_not_track
from fastapi import FastAPI, Request
from sqlalchemy import make_url
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from cxr.errors import plain_errors
from cxr.pixels.dicom import silence
from cxr.release.model import Release
from server.answers import Answer, Facts, accepted_film, build_answer, describe_release
from server.boundary import Boundary
from server.limits import THREADS
from server.recording import Recorder
from server.refusals import STATUSES, answer_faults
from server.telemetry import metrics
from server.uploads import SCHEMA, read_upload

# the CLI asks before it imports this module and keeps the answer, so the variable alone would come too late
do_not_track.cache_clear()

ROOT = Path(__file__).resolve().parent
WEB = ROOT / "web"


def release_folder() -> Path:
    return Path(os.environ.get("CXR_RELEASE", ROOT / "models" / "release"))


def prediction_log_url() -> str:
    return os.environ.get("CXR_PREDICTION_LOG", "sqlite:///predictions.sqlite")


app = FastAPI(
    title="Chest X-ray classifier",
    summary="Research use only, not for diagnosis.",
    version="1",
    openapi_url="/v1/openapi.json",
    docs_url=None,  # FastAPI's documentation pages load their scripts from a CDN
    redoc_url=None,
)
app.mount("/web", StaticFiles(directory=WEB))
answer_faults(app)


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(WEB / "index.html")


@bentoml.service(
    name="chest_xray",
    workers=1,  # OpenVINO spreads one image over all cores
    http={"host": "127.0.0.1"},
    traffic={"timeout": 60, "max_concurrency": 32},
)
@bentoml.asgi_app(app)
class ChestXray:
    """Probabilities of a chest radiograph's classes. Research use only, not for diagnosis."""

    @bentoml.on_deployment
    @staticmethod
    def settle() -> None:
        """Runs once before the workers, in the caller's folder. Makes relative paths absolute, and stops the start
        with one sentence if the release cannot be used; otherwise workers would die again and again."""
        os.environ["CXR_RELEASE"] = str(release_folder().absolute())
        url = make_url(prediction_log_url())
        if url.get_backend_name() == "sqlite" and url.database and not url.database.startswith(":"):
            url = url.set(database=str(Path(url.database).absolute()))
        os.environ["CXR_PREDICTION_LOG"] = url.render_as_string(hide_password=False)
        with plain_errors():
            Release.load(release_folder())

    def __init__(self) -> None:
        # pydicom's warnings quote what the file says, which may name a patient; they must not reach the server's log
        silence()
        self.release = Release.load(release_folder())
        self.threads = anyio.CapacityLimiter(THREADS)
        self.recorder = Recorder(prediction_log_url())
        self.__is_ready__()

    def __is_ready__(self) -> bool:
        """The release passed its self-test in __init__; what can fail later is the log."""
        return self.recorder.is_ready()

    @app.get("/v1/model")
    def model(self) -> Facts:
        """What the release says of itself."""
        return describe_release(self.release.facts)

    @app.post(
        "/v1/predict",
        response_model_exclude_none=True,
        responses={status: {"description": text} for status, text in STATUSES.items()},
        openapi_extra={"requestBody": SCHEMA},
    )
    async def predict(self, request: Request, heatmap: bool = False) -> Answer:
        """Answer about one radiograph; `heatmap=true` adds the square that the model read and the evidence in it."""
        start = time.perf_counter()
        data = await read_upload(request)
        answer = await anyio.to_thread.run_sync(
            self._answer, data, request.state.request_id, heatmap, limiter=self.threads
        )
        metrics().predictions.labels(answer.predicted, answer.model_version).inc()
        metrics().seconds.observe(time.perf_counter() - start)
        return answer

    def _answer(self, data: bytes, request_id: str, heatmap: bool) -> Answer:
        facts = self.release.facts
        film = accepted_film(data, facts)
        found = self.release.answer(film)
        answer = build_answer(facts, film, found, request_id, with_pictures=heatmap)
        self.recorder.record(
            request_id=request_id,
            model_version=facts.version,
            predicted=found.predicted,
            probabilities=found.probabilities,
            descriptors=film.descriptors,
            embedding=found.embedding,
        )
        return answer


ChestXray.add_asgi_middleware(Boundary)
