# The types of Starlette leave open what a call takes and gives.
# pyright: reportArgumentType=false
"""What gets no answer: the status, the reason that /metrics counts, and the sentence for the person."""

from typing import Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from server.telemetry import metrics

# `image`: cannot be read; `header`, `content`: no frontal chest film by its header, by its look
Reason = Literal["size", "encoding", "form", "query", "disconnect", "image", "header", "content", "log"]

STATUSES = {
    400: "no multipart form with one field `file` that holds a file",
    413: "larger than `max_bytes`",
    415: "not multipart/form-data, or a Content-Encoding",
    422: "not a PNG, JPEG or DICOM image, damaged, of more than `max_megapixels`, or no upright frontal chest film",
    429: "too many requests at once",
    503: "the answer could not be recorded, so it is withheld",
}


class RefusedError(Exception):
    """A request that gets no prediction. `reason` is the label in /metrics."""

    def __init__(self, status: int, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.sentence = sentence


def error_response(request_id: str, status: int, sentence: str) -> Response:
    """The body of every answer that is not 2xx."""
    return JSONResponse({"error": sentence, "request_id": request_id}, status)


def answer_faults(app: FastAPI) -> None:
    """Let `app` answer every fault with one sentence."""
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)


async def _refused(request: Request, error: RefusedError) -> Response:
    metrics().refusals.labels(error.reason).inc()
    return error_response(request.state.request_id, error.status, error.sentence)


async def _wrong_query(request: Request, error: RequestValidationError) -> Response:
    faults = "; ".join(f"{fault['loc'][-1]}: found {fault['input']!r}: {fault['msg']}" for fault in error.errors())
    return await _refused(request, RefusedError(422, "query", faults))


async def _gone(request: Request, _: ClientDisconnect) -> Response:
    return await _refused(
        request, RefusedError(400, "disconnect", "the connection closed before the image was complete")
    )


async def _http_error(request: Request, error: HTTPException) -> Response:
    sentence = f"{request.method} {request.url.path}: {error.detail}"
    response = error_response(request.state.request_id, error.status_code, sentence)
    response.headers.update(error.headers or {})
    return response


async def _fault(request: Request, _: Exception) -> Response:
    return error_response(
        request.state.request_id, 500, "the service failed; tell whoever runs it this answer's request_id"
    )
