"""What stands around every answer: the paths that exist, a bounded body, a request id, security headers."""

import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.limits import bounded
from server.refusals import error_response

# The whole surface. BentoML adds /schema.json, /docs.json, /healthz and a page of its own, which are not served.
PATHS = {"/", "/v1/predict", "/v1/model", "/v1/openapi.json", "/livez", "/readyz", "/metrics"}
FOLDER = "/web/"

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Boundary:
    """ASGI middleware around the whole application, BentoML's own paths included."""

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
        inner = self.app if known else error_response(request_id, 404, f"there is nothing at {path}")
        await inner(scope, bounded(receive), send_with_headers)
