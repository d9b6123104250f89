"""The Bento: one radiograph over HTTP in, class probabilities out, every answer in the prediction log.

`bentoml serve` in the repository's root, `bentoml serve service:ChestXray` and the built Bento all start it, bound to
127.0.0.1 unless `--host` says otherwise. Environment:

CXR_RELEASE         folder of the release; default `models/release` beside this file
CXR_PREDICTION_LOG  SQLAlchemy URL of the log; default `sqlite:///predictions.sqlite` in the working directory
"""

# usage reports are turned off before the packages that send them are imported

import base64
import logging
import os
import time
import uuid
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import anyio.to_thread
import bentoml
import cv2
import numpy as np
from bentoml._internal.utils.analytics.usage_stats import do_not_track
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy import Engine, insert, make_url
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr.errors import ImageError, plain_errors
from cxr.pixels.canonical import keeps_whole
from cxr.pixels.descriptors import describe
from cxr.pixels.dicom import silence
from cxr.pixels.radiograph import Radiograph, load_radiograph
from cxr.release.model import Prediction, Release
from cxr.release.prediction_log import PREDICTIONS, append, open_log

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

# the CLI asks before it imports this module and keeps the answer, so the variable alone would come too late
do_not_track.cache_clear()

ROOT = Path(__file__).resolve().parent
WEB = ROOT / "web"
MAX_BYTES = 32 * 2**20
THREADS = min(8, os.cpu_count() or 1)  # each may hold a whole decoded image: 64 megapixels of 16 bits take 0.5 GB

# The whole surface. BentoML adds /schema.json, /docs.json, /healthz and a page of its own, which are not served.
PATHS = {"/", "/v1/predict", "/v1/model", "/v1/openapi.json", "/livez", "/readyz", "/metrics"}
FOLDER = "/web/"

OVERLAY_BGR = (0, 106, 255)  # orange, as the legend of the page: `--evidence` in web/style.css

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

logger = logging.getLogger("bentoml.service")


class RefusedError(Exception):
    """A request that gets no prediction: the status, the reason that /metrics counts, the sentence for the person."""

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.sentence = sentence


class Answer(BaseModel):
    """One prediction."""

    request_id: str = Field(description="UUID; also in the header X-Request-Id and in the prediction log")
    model_version: str
    task: str
    predicted: str = Field(
        description="the class with the highest probability; of a task that localises, the region where any pixel "
        "shows it, else `Background`"
    )
    probabilities: dict[str, float] = Field(
        description="per class; they add up to 1. Of a task that localises: the share of the square that each covers"
    )
    operating_points: dict[str, float] = Field(
        description="per class: the threshold chosen on the val split; of a task that localises, that of a pixel"
    )
    square: str | None = Field(None, description="how the image was fitted into the model's square")
    whole: bool | None = Field(None, description="whether that square shows all of the file, and nothing was cut off")
    image: str | None = Field(None, description="data URI: the square that the model read, grey PNG")
    heatmap: str | None = Field(
        None,
        description="data URI: evidence for `predicted`, or the region that was found, RGBA PNG to lay over `image`",
    )
    mask: str | None = Field(
        None, description="data URI, of a task that localises: that region in `image`, grey PNG, 0 outside, 255 inside"
    )


class Facts(BaseModel):
    """The release that answers."""

    version: str
    task: str
    classes: list[str]
    size: int = Field(description="pixels a side of the square that the model reads")
    square: str
    max_megapixels: float
    max_bytes: int = Field(description="largest request body")
    operating_points: dict[str, float]


class Metrics(NamedTuple):
    predictions: "Counter"
    refusals: "Counter"
    seconds: "Histogram"


@cache
def metrics() -> Metrics:
    """The project's own metrics, beside BentoML's at /metrics."""
    # BentoML sets Prometheus's multi-process folder after it imports this module; an earlier import would miss it
    from prometheus_client import Counter, Histogram

    return Metrics(
        Counter("chest_xray_predictions", "answers given", ["predicted", "version"]),
        Counter("chest_xray_refusals", "requests refused", ["reason"]),
        Histogram("chest_xray_seconds", "from the first byte of an image to its logged answer"),
    )


class Boundary:
    """Around every answer: only the paths that exist, a bounded body, a request id, security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path, request_id = scope["path"], str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers["X-Request-Id"] = request_id
                headers["Cache-Control"] = "no-store" if path.startswith("/v1/") else "no-cache"
            await send(message)

        known = path in PATHS or path.startswith(FOLDER)
        inner = self.app if known else _error_response(request_id, 404, f"there is nothing at {path}")
        await inner(scope, _bounded(receive), send_with_headers)


def _bounded(receive: Receive) -> Receive:
    """`receive` that counts, since a Content-Length may be absent or wrong. Raises RefusedError beyond MAX_BYTES."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BYTES:
            raise RefusedError(
                413, "size", f"the request is larger than {MAX_BYTES // 2**20} MiB; send a smaller image"
            )
        return message

    return counted


def _error_response(request_id: str, status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence, "request_id": request_id}, status)


class InMemoryParser(MultiPartParser):
    spool_max_size = MAX_BYTES  # a patient's image is never written to a temporary file


async def read_upload(request: Request) -> bytes:
    """The bytes of the one multipart field `file`. Raises RefusedError for any other body."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise RefusedError(415, "encoding", f"the body is encoded as {encoding}; send it without Content-Encoding")
    content_type = request.headers.get("content-type", "nothing")
    if content_type.split(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(
            415, "form", f"the Content-Type is {content_type}; send multipart/form-data with one field named file"
        )
    try:
        form = await InMemoryParser(request.headers, request.stream(), max_files=2, max_fields=2).parse()
    except MultiPartException as error:
        raise RefusedError(400, "form", f"the form cannot be read: {error.message.rstrip('.')}") from None
    try:
        fields = form.multi_items()
        if [name for name, _ in fields] != ["file"]:
            found = ", ".join(name for name, _ in fields) or "none"
            raise RefusedError(
                400, "form", f"the form's fields are: {found}; send exactly one, named file, with one image"
            )
        upload = fields[0][1]
        if not isinstance(upload, UploadFile):
            raise RefusedError(400, "form", "the field file holds text; send the image itself (no address is fetched)")
        data = await upload.read()
    finally:
        await form.close()
    if not data:
        raise RefusedError(400, "form", "the file is empty; send one PNG, JPEG or DICOM")
    return data


def overlay(evidence: np.ndarray, size: int) -> np.ndarray:
    """Draw one class's evidence, float32 (h, w), or a mask, bool (h, w), as an overlay, uint8 BGRA (size, size, 4).

    One colour, whose opacity is the evidence for the class as a share of the largest: the radiograph stays visible
    below. Evidence against the class is not drawn; where nothing speaks for it the overlay is transparent.
    """
    positive = np.maximum(evidence, 0)
    share = np.uint8(255 * positive / max(float(positive.max()), 1e-9))
    drawn = np.empty((size, size, 4), np.uint8)
    drawn[..., :3] = OVERLAY_BGR
    drawn[..., 3] = cv2.resize(share, (size, size), interpolation=cv2.INTER_LINEAR)
    return drawn


def data_uri(pixels: np.ndarray) -> str:
    """uint8 pixels, grey or BGRA, as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def release_folder() -> Path:
    return Path(os.environ.get("CXR_RELEASE", ROOT / "models" / "release"))


def prediction_log_url() -> str:
    return os.environ.get("CXR_PREDICTION_LOG", "sqlite:///predictions.sqlite")


def rehearse(log: Engine) -> None:
    """Insert a row and take it back. Raises SQLAlchemyError where the log cannot be written."""
    row = {"request_id": "rehearsal", "at": datetime.min, "model_version": "", "predicted": ""}
    with log.connect() as connection:
        connection.execute(insert(PREDICTIONS), row | {"probabilities": {}, "descriptors": {}, "embedding": b""})
        connection.rollback()


app = FastAPI(
    title="Chest X-ray classifier",
    summary="Research use only, not for diagnosis.",
    version="1",
    openapi_url="/v1/openapi.json",
    docs_url=None,  # FastAPI's documentation pages load their scripts from a CDN
    redoc_url=None,
)
app.mount("/web", StaticFiles(directory=WEB))


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(WEB / "index.html")


@app.exception_handler(RefusedError)
async def _refused(request: Request, error: RefusedError) -> Response:
    metrics().refusals.labels(error.reason).inc()
    return _error_response(request.state.request_id, error.status, error.sentence)


@app.exception_handler(RequestValidationError)
async def _wrong_query(request: Request, error: RequestValidationError) -> Response:
    faults = "; ".join(f"{fault['loc'][-1]}: found {fault['input']!r}: {fault['msg']}" for fault in error.errors())
    return await _refused(request, RefusedError(422, "query", faults))


@app.exception_handler(ClientDisconnect)
async def _gone(request: Request, _: ClientDisconnect) -> Response:
    return await _refused(
        request, RefusedError(400, "disconnect", "the connection closed before the image was complete")
    )


@app.exception_handler(HTTPException)
async def _http_error(request: Request, error: HTTPException) -> Response:
    sentence = f"{request.method} {request.url.path}: {error.detail}"
    response = _error_response(request.state.request_id, error.status_code, sentence)
    response.headers.update(error.headers or {})
    return response


@app.exception_handler(Exception)
async def _fault(request: Request, _: Exception) -> Response:
    return _error_response(
        request.state.request_id, 500, "the service failed; tell whoever runs it this answer's request_id"
    )


ERRORS = {
    400: "no multipart form with one field `file` that holds a file",
    413: "larger than `max_bytes`",
    415: "not multipart/form-data, or a Content-Encoding",
    422: "not a PNG, JPEG or DICOM radiograph, damaged, or of more than `max_megapixels`",
    429: "too many requests at once",
    503: "the answer could not be recorded, so it is withheld",
}
UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary", "description": "PNG, JPEG or DICOM"}},
            }
        }
    },
}


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
        """Runs once, before the workers, in the caller's folder: relative places become absolute, and a release that
        cannot be used stops the start with one sentence instead of workers that die again and again."""
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
        self.log: Engine | None = None
        self.__is_ready__()

    def __is_ready__(self) -> bool:
        """The release passed its self-test in __init__; what can fail later is the log."""
        try:
            rehearse(self._open_log())
        except SQLAlchemyError as error:
            self._lose_log(error)
            return False
        return True

    def _open_log(self) -> Engine:
        self.log = self.log or open_log(prediction_log_url())
        return self.log

    def _lose_log(self, error: SQLAlchemyError) -> None:
        """The next use opens the log anew: its file or server may have been replaced."""
        place = make_url(prediction_log_url()).render_as_string(hide_password=True)
        logger.error("%s: the prediction log cannot be written (%s)", place, getattr(error, "orig", None) or error)
        if self.log:
            self.log.dispose()
        self.log = None

    @app.get("/v1/model")
    def model(self) -> Facts:
        """What the release says of itself."""
        facts = self.release.facts
        pixels = facts.pixels
        return Facts(
            version=facts.version,
            task=facts.task,
            classes=facts.classes,
            size=pixels.size,
            square=pixels.square,
            max_megapixels=pixels.max_megapixels,
            max_bytes=MAX_BYTES,
            operating_points=facts.operating_points,
        )

    @app.post(
        "/v1/predict",
        response_model_exclude_none=True,
        responses={status: {"description": text} for status, text in ERRORS.items()},
        openapi_extra={"requestBody": UPLOAD},
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
        try:
            radiograph = load_radiograph(data, facts.pixels)
        except ImageError as error:
            raise RefusedError(422, "image", f"the image cannot be read: {error}") from None
        prediction = self.release.model(radiograph.image[np.newaxis])
        probabilities = dict(zip(facts.classes, map(float, prediction.probabilities[0]), strict=True))
        answer = Answer(
            request_id=request_id,
            model_version=facts.version,
            task=facts.task,
            predicted=self.release.predicted(prediction),
            probabilities=probabilities,
            operating_points=facts.operating_points,
        )
        if heatmap:
            evidence = prediction.heatmap[0, ..., facts.classes.index(answer.predicted)]
            if self.release.localises:
                evidence = self.release.mask(prediction)
                answer.mask = data_uri(np.uint8(255) * evidence)
            answer.square = facts.pixels.square
            answer.whole = keeps_whole(facts.pixels)
            answer.image = data_uri(radiograph.image)
            answer.heatmap = data_uri(overlay(evidence, facts.pixels.size))
        self._record(answer, radiograph, prediction)
        return answer

    def _record(self, answer: Answer, radiograph: Radiograph, prediction: Prediction) -> None:
        """An answer that is not in the log must not leave. Raises RefusedError where it cannot be written."""
        try:
            append(
                self._open_log(),
                answer.request_id,
                answer.model_version,
                answer.predicted,
                answer.probabilities,
                describe(radiograph),
                prediction.embedding[0],
            )
        except SQLAlchemyError as error:
            self._lose_log(error)
            raise RefusedError(
                503, "log", "the answer could not be recorded in the prediction log and is withheld; try again later"
            ) from None


ChestXray.add_asgi_middleware(Boundary)
