"""How to call an endpoint with given inputs from Python, JavaScript and a shell, ready to run as printed."""

from __future__ import annotations

import json
from html import escape
from typing import Any


class File(str):
    """The name of a file that a call sends along."""

    def __repr__(self) -> str:
        return f"handle_file({str(self)!r})"


UPLOADED = {"path": "UPLOADED", "meta": {"_type": "gradio.FileData"}}
"""How a file is given in JSON, once it was uploaded; the path is put in by the snippet."""


def file_of(inputs: dict[str, Any]) -> File | None:
    """The file among the inputs, if one is."""
    return next((value for value in inputs.values() if isinstance(value, File)), None)


def as_json(inputs: dict[str, Any], **options: Any) -> str:
    """The inputs as JSON, with `UPLOADED` where the path of an uploaded file belongs."""
    plain = {name: UPLOADED if isinstance(value, File) else value for name, value in inputs.items()}
    return json.dumps(plain, ensure_ascii=False, **options)


def python(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """For `gradio_client`."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in inputs.items())
    return (
        f"from gradio_client import Client{', handle_file' if file_of(inputs) else ''}\n\n"
        f"client = Client({base + '/'!r})\n"
        f'result = client.predict(\n{arguments}    api_name="/{endpoint}",\n)\nprint(result)\n'
    )


def javascript(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """For a browser's console or Node 18 and newer (with a file: for Node, which can read one); needs no package."""
    body, file, upload = as_json(inputs, indent=2), file_of(inputs), ""
    if file:
        body = body.replace('"UPLOADED"', "path")
        upload = (
            'const { readFile } = await import("node:fs/promises");\n'
            "const form = new FormData();\n"
            f"const name = {json.dumps(file, ensure_ascii=False)};\n"
            'form.append("files", new Blob([await readFile(name)]), name);\n'
            'const sent = await fetch(`${base}/gradio_api/upload`, { method: "POST", body: form });\n'
            "const [path] = await sent.json();\n"
        )
    return (
        f"const base = {json.dumps(base)};\n{upload}"
        f"const asked = await fetch(`${{base}}/gradio_api/call/v2/{endpoint}`, {{\n"
        '  method: "POST",\n'
        '  headers: { "Content-Type": "application/json" },\n'
        f"  body: JSON.stringify({body}),\n"
        "});\n"
        "const { event_id } = await asked.json();\n"
        f"const stream = await fetch(`${{base}}/gradio_api/call/{endpoint}/${{event_id}}`);\n"
        'const lines = (await stream.text()).split("\\n").filter((line) => line.startsWith("data: "));\n'
        "console.log(JSON.stringify(JSON.parse(lines.at(-1).slice(6)), null, 2));\n"
    )


def curl(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """For a POSIX shell: the first call queues the request, the second reads its events."""
    body, file, upload = as_json(inputs).replace("'", "'\\''"), file_of(inputs), ""
    if file:
        body = body.replace("UPLOADED", "'\"$UPLOADED\"'")
        name = str(file).replace("'", "'\\''")
        upload = f"UPLOADED=$(curl -s {base}/gradio_api/upload -F 'files=@{name}' | sed 's/\\[\"\\(.*\\)\"\\]/\\1/')\n"
    return (
        f"{upload}EVENT=$(curl -s {base}/gradio_api/call/v2/{endpoint} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f'  -d \'{body}\' | sed \'s/.*"event_id": *"\\([^"]*\\)".*/\\1/\')\n'
        f'curl -sN {base}/gradio_api/call/{endpoint}/"$EVENT"\n'
    )


def all_html(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """The three of them, each with a Copy button."""
    sections = (
        ("Python", python(base, endpoint, inputs)),
        ("JavaScript", javascript(base, endpoint, inputs)),
        ("curl", curl(base, endpoint, inputs)),
    )
    return (
        '<div class="snippet">'
        + "".join(
            f'<section><h4>{title} <button data-act="copy-pre">Copy</button></h4><pre>{escape(code)}</pre></section>'
            for title, code in sections
        )
        + "</div>"
    )
