"""How much the service takes at once: bytes a request, images at the same time."""

import os

from starlette.types import Message, Receive

from server.refusals import RefusedError

MAX_BYTES = 32 * 2**20
THREADS = min(8, os.cpu_count() or 1)  # each may hold a whole decoded image: 64 megapixels of 16 bits take 0.5 GB


def bounded(receive: Receive) -> Receive:
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
