"""Files that callers uploaded: they send the path that the upload gave them, and no other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from shared.errors import InvalidInput
from shared.serving.requests import Request, Uploaded


def upload_folder() -> Path:
    """Where uploads lie: Gradio's folder, as `gradio.utils.get_upload_folder` finds it."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()


def uploaded_fields(model: type[Request]) -> set[str]:
    """Names of the fields that are files."""
    return {name for name, field in model.model_fields.items() if any(isinstance(m, Uploaded) for m in field.metadata)}


def with_paths(values: dict[str, Any], uploads: set[str]) -> dict[str, Any]:
    """The values with the paths of uploaded files in the place of what describes them. Raises `InvalidInput`."""
    return values | {name: uploaded_path(values.get(name), name) for name in uploads}


def uploaded_path(value: Any, field: str) -> str:
    """The path of a file that the caller uploaded. Raises `InvalidInput` for any other: a caller names no path here."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidInput(
            "must be a file: send handle_file(...) with gradio_client, else upload it first and send its path as "
            '{"path": ..., "meta": {"_type": "gradio.FileData"}}',
            field=field,
        )
    found = Path(path).resolve()
    if not found.is_relative_to(upload_folder()):
        raise InvalidInput("was not uploaded; upload it first", field=field)
    return str(found)
