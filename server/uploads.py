"""The one file of a multipart form, kept in memory."""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from server.limits import MAX_BYTES
from server.refusals import RefusedError

# of the request body, in OpenAPI; FastAPI's own form parameters would write large files to a temporary folder
SCHEMA = {
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
