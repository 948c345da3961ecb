"""Writes `docs/API.md` from the endpoints: `python -m shared.publishing.api_reference`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AfterValidator, BaseModel, BeforeValidator

from shared.events import RunInfo
from shared.media.text import sentences
from shared.serving import requests
from shared.serving.endpoint import Endpoint
from shared.serving.model_task import models_endpoint
from shared.serving.requests import Uploaded
from shared.serving.space import ROOT, Space, discover
from shared.serving.traffic import Traffic

FILE = ROOT / "docs" / "API.md"
BASE = "http://127.0.0.1:7860"
LONGEST = 200
"""Characters of a text in an example call; a longer one is cut after its second sentence."""

HEAD = """# API reference

Written by `python -m shared.publishing.api_reference` from the endpoints; do not edit. How to call them, with programs
to copy: [CALLING.md](CALLING.md).

- `gradio_client` calls every endpoint by its name (`api_name="/zero_shot"`), with inputs by name or in the order of the
  tables. `POST /stream/<endpoint>` takes inputs by name, and serves every endpoint but `/batch`.
- Unknown inputs are refused. Limits called `SUITE_*` are settings: [SETTINGS.md](SETTINGS.md).
- The last output of every endpoint is [`run_info`](#run_info).
- Signatures are stable: names, order and defaults do not change, and new inputs come last.
- The curl examples need a POSIX shell and curl 7.82 or newer, which has `--json`.
"""

BEFORE_THE_END = """
Until the answer is complete, `gradio_client` sees the state of the request in the place of `run_info`:
`{"status": "queued", "place": 3}`; `loading`, with `checkpoint`, `what` and the bytes `done` of `total`; or `running`.
"""

CHECKS = {
    requests.filled: "not empty",
    requests.readable: "at most `SUITE_MAX_CHARS` characters",
    requests.split_labels: "2 to `SUITE_MAX_LABELS` different labels, separated by commas or line ends",
    requests.sound_file: "at most `SUITE_MAX_AUDIO_UPLOAD` bytes",
}
"""What the validators of `shared.requests` accept, which a JSON schema does not contain."""

OUTPUTS = {
    "scores": "`{label, confidences: [{label, confidence}], details}`, the likeliest label first. The confidences add "
    "up to 1, unless each label is judged by itself. `details` holds the method, the raw scores, the prompt and the "
    "share of the context window that it takes",
    "prompt": "the exact prompt that the model read; empty where it read none",
    "answers": "`[{answer, start, end, score}]`, the likeliest first; `start` and `end` are places in the text",
    "masks": "for each mask in the text `[{token, id, score}]`, the likeliest first",
    "summary": "the summary",
    "translation": "the translation; paragraphs stay",
    "completion": "the new text, without the prompt; it grows while it is written",
    "reply": "the model's next turn; it grows while it is written",
    "distribution": "`{tokens: [{token, id, before, after}], kept, kept_mass}`: the likeliest 20 tokens with their "
    "probability before and after temperature, top-k and top-p; how many tokens can still be drawn, and what those add "
    "up to before",
    "genres": "`{label, confidences: [{label, confidence}]}` of the whole recording, the best first",
    "timeline": "`[{start, end, silent, confidences}]`: the same for each window, in seconds",
    "table": "the CSV with new columns; a row that cannot be answered says why in its column `error`",
    "report": "profile, Hub, memory in use and its budget, hits, misses and evictions, what is loaded, requests in "
    "progress, requests of each endpoint, adapters, and the catalog of checkpoints",
}
"""What an output looks like, by its name in `Endpoint.returns`."""

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "list", dict: "object"}
"""What types are called here, and in JSON schemas but for lists."""


@dataclass(frozen=True)
class Parameter:
    """A row of an endpoint's table, as Markdown."""

    name: str
    type: str
    default: str
    accepts: str
    meaning: str


@dataclass(frozen=True)
class Described:
    """What the reference says of one endpoint."""

    name: str
    summary: str
    parameters: Sequence[Parameter]
    outputs: dict[str, str]
    """JSON type of each, by name."""
    curl: str


def described(endpoint: Endpoint, example: dict[str, Any]) -> Described:
    return Described(
        endpoint.name,
        endpoint.summary,
        parameters(endpoint.request),
        {name: NAMES[kind] for name, kind in endpoint.returns.items()},
        stream_call(endpoint.name, example),
    )


def parameters(model: type[BaseModel]) -> list[Parameter]:
    """Ranges and descriptions come from the model's JSON schema, the rest from its validators."""
    schemas = model.model_json_schema()["properties"]
    found = []
    for name, field in model.model_fields.items():
        schema = schemas[name]
        uploaded = any(isinstance(rule, Uploaded) for rule in field.metadata)
        rules = [rule.func for rule in field.metadata if isinstance(rule, (AfterValidator, BeforeValidator))]
        implied = {requests.readable} if "maxLength" in schema else set()
        implied |= {requests.filled} if requests.split_labels in rules else set()
        default = "required" if field.is_required() else code(schema.get("default"))
        kind = "file" if uploaded else type_name(schema)
        accepts = [
            *choices(schema),
            *bounds(schema),
            *(CHECKS[r] for r in reversed(rules) if r in CHECKS and r not in implied),
        ]
        found.append(Parameter(name, kind, default, ", ".join(accepts), field.description or ""))
    return found


def type_name(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(type_name, schema["anyOf"]))
    name = schema.get("type", "object")
    return "list" if name == "array" else name


def choices(schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield ", ".join(code(value) for value in schema["enum"])


def bounds(schema: dict[str, Any]) -> Iterator[str]:
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"{low:,} to {high:,}"
    elif above is not None and high is not None:
        yield f"above {above:,}, to {high:,}"
    if "maxLength" in schema:
        yield f"at most {schema['maxLength']:,} characters"
    if "maxItems" in schema:
        yield f"at most {schema['maxItems']:,} rows"


def code(value: Any) -> str:
    """A value as JSON, for a cell of a table."""
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


def batch(able: Sequence[str]) -> Described:
    """`/batch`, the one endpoint that is bound to components: a file goes in and a file comes out."""
    return Described(
        "batch",
        "Answers every row of a CSV and adds the answers as columns.",
        [
            Parameter("task", "string", '`"zero_shot"`', ", ".join(map(code, able)), "Which endpoint answers."),
            Parameter(
                "file",
                "file",
                "required",
                "at most `SUITE_MAX_UPLOAD` bytes and `SUITE_MAX_ROWS` rows",
                "A CSV with a header line; commas, semicolons and tabs are told apart.",
            ),
            Parameter(
                "settings",
                "object",
                "`{}`",
                "",
                "The task's inputs but the text, and `column`: the name of the text's column, `text` unless it is set.",
            ),
        ],
        {"table": "file"},
        "\n".join(
            [
                "printf 'id,text\\n1,I loved it.\\n2,Never again.\\n' > reviews.csv",
                f"FILE=$(curl -s {BASE}/gradio_api/upload -F files=@reviews.csv | tr -d '[]\"')",
                f"EVENT=$(curl -s {BASE}/gradio_api/call/v2/batch --json @- <<JSON | sed 's/.*: *\"//; s/\".*//'",
                f'{{"task": "sentiment", "file": {file_of("$FILE")}}}',
                "JSON",
                ")",
                f'curl -sN {BASE}/gradio_api/call/batch/"$EVENT"',
            ]
        ),
    )


def file_of(path: str) -> str:
    return json.dumps({"path": path, "meta": {"_type": "gradio.FileData"}})


def stream_call(name: str, inputs: dict[str, Any]) -> str:
    """A shell's call of `POST /stream`; a file is uploaded first."""
    first, lines = [], []
    for field, value in inputs.items():
        if isinstance(value, Path):
            first.append(f"FILE=$(curl -s {BASE}/gradio_api/upload -F files=@{value.as_posix()} | tr -d '[]\"')")
            lines.append(f'  "{field}": {file_of("$FILE")}')
        else:
            lines.append(f'  "{field}": {as_json(value)}')
    if not inputs:
        return f"curl -sN {BASE}/stream/{name} --json '{{}}'"
    here = "JSON" if first else "'JSON'"  # in quotes the shell leaves $ and ` alone
    return "\n".join([*first, f"curl -sN {BASE}/stream/{name} --json @- <<{here}", "{", ",\n".join(lines), "}", "JSON"])


def as_json(value: Any) -> str:
    """A list of rows has a line for each."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, ensure_ascii=False)
    rows = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in value)
    return f"[\n    {rows}\n  ]"


def example_inputs(space: Space, endpoint: Endpoint) -> dict[str, Any]:
    """The first example of its tab, long texts shortened, without inputs that only the page has."""
    inputs = space.examples[endpoint.name][0]["inputs"]
    return {name: shortened(value) for name, value in inputs.items() if name in endpoint.request.model_fields}


def shortened(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    path = Path(value)
    if path.is_absolute() and path.is_file():
        return path.relative_to(ROOT)
    if len(value) <= LONGEST:
        return value
    return value[: sentences(value)[:2][-1].end]


def all_endpoints() -> list[Described]:
    found, able = [], []
    for space in discover():
        if not isinstance(space, Space):
            raise space.error
        for endpoint in space.endpoints:
            found.append(described(endpoint, example_inputs(space, endpoint)))
            able += [endpoint.name] * bool(endpoint.rows)
    return [*found, batch(able), described(models_endpoint(Traffic()), {})]


def reference() -> str:
    """The whole document."""
    endpoints = all_endpoints()
    index = table(
        ["endpoint", "what it does", "inputs, in order", "outputs"],
        (
            [
                f"[`/{e.name}`](#{e.name})",
                e.summary,
                ", ".join(p.name for p in e.parameters) or "none",
                ", ".join([*e.outputs, "run_info"]),
            ]
            for e in endpoints
        ),
    )
    return "\n\n".join([HEAD.strip(), index, *map(section, endpoints), run_info()]) + "\n"


def section(e: Described) -> str:
    inputs = table(
        ["input", "type", "default", "accepts", "meaning"],
        ([f"`{p.name}`", p.type, p.default, p.accepts, p.meaning] for p in e.parameters),
    )
    outputs = table(
        ["output", "type", "content"],
        ([f"`{name}`", kind, OUTPUTS.get(name, "")] for name, kind in e.outputs.items()),
    )
    return "\n\n".join(
        [f"## {e.name}", e.summary, inputs if e.parameters else "It has no inputs.", outputs, f"```bash\n{e.curl}\n```"]
    )


def run_info() -> str:
    properties = RunInfo.model_json_schema()["properties"]
    fields = RunInfo.model_fields.items()
    rows = [[f"`{name}`", type_name(properties[name]), field.description or ""] for name, field in fields]
    about = (RunInfo.__doc__ or "").strip()
    return "\n\n".join(["## run_info", about, table(["field", "type", "content"], rows), BEFORE_THE_END.strip()])


def table(columns: Sequence[str], rows: Any) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
    print(f"wrote {FILE}")
