"""Files of callers: a caller uploads a file, gets its path, and sends that path. No other file is read.

`POST /upload` takes files as multipart form data (field `files`), like Gradio's own route, and answers with the list of
their paths. Gradio's uploads lie in its folder, which this route uses too where there is a page.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.errors import InvalidInput
from shared.serving.requests import Request, Uploaded
from shared.transport.edge import Edge
from shared.transport.http import logged_in, problem, unauthorized

MOST_FILES = 10
LONGEST_NAME = 100
FORM_BYTES = 64 * 1024
"""What a form of files may hold beside them."""


def gradio_folder() -> Path:
    """Where Gradio puts uploads, as `gradio.utils.get_upload_folder` finds it."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()


def routes(edge: Edge) -> list[Route]:
    settings = edge.runtime.settings
    largest = settings.largest_upload

    async def upload(request: HttpRequest) -> Response:
        if not logged_in(request, settings):
            return unauthorized()
        too_large = problem(413, f"the files are larger than {largest:,} bytes")
        if int(request.headers.get("content-length") or 0) > largest + FORM_BYTES:
            return too_large
        try:
            async with request.form(max_files=MOST_FILES, max_fields=MOST_FILES) as form:
                files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
                if not files:
                    return problem(400, "send one or more files in the field `files` of a multipart form")
                if any((file.size or 0) > largest for file in files):
                    return too_large
                return JSONResponse([await run_in_threadpool(stored, file, edge.uploads) for file in files])
        except HTTPException as error:
            return problem(error.status_code, f"the form cannot be read: {error.detail}")

    return [Route("/upload", upload, methods=["POST"])]


def stored(file: UploadFile, folder: Path) -> str:
    """The path of a copy in a folder of its own, whose name nobody can guess."""
    name = PurePosixPath((file.filename or "").replace("\\", "/")).name[-LONGEST_NAME:].replace("\0", "") or "file"
    place = folder / secrets.token_hex(32)
    place.mkdir(parents=True)
    path = place / name
    with path.open("wb") as copy:
        while part := file.file.read(2**20):
            copy.write(part)
    return str(path)


def uploaded_fields(model: type[Request]) -> set[str]:
    """Names of the fields that are files."""
    return {name for name, field in model.model_fields.items() if any(isinstance(m, Uploaded) for m in field.metadata)}


def with_paths(values: dict[str, Any], fields: set[str], folder: Path) -> dict[str, Any]:
    """The values with the paths of uploaded files in the place of what describes them. Raises `InvalidInput`."""
    return values | {name: uploaded_path(values.get(name), name, folder) for name in fields}


def uploaded_path(value: Any, field: str, folder: Path) -> str:
    """The path of a file that the caller uploaded. Raises `InvalidInput` for any other: a caller names no path here."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidInput(
            "must be a file: send handle_file(...) with gradio_client, else upload it first and send its path as "
            '{"path": ..., "meta": {"_type": "gradio.FileData"}}',
            field=field,
        )
    found = Path(path).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise InvalidInput("was not uploaded; upload it first", field=field)
    return str(found)
