"""The input types that all tasks share, which validate themselves and name the field at fault.

A request model is the one place an input is described: ranges and defaults here become the API's
signature, the sliders of the page, and the texts of errors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, MultipleOf
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from shared.errors import InvalidInput
from shared.settings import Settings

NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters but line ends and tabs, and surrogates, which are halves of characters."""

NEWLINES = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")


class Request(BaseModel):
    """Base of all requests: unknown fields are refused, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @property
    def deterministic(self) -> bool:
        """Whether the same inputs always give the same answer, which may then be stored (`shared.serving.answers`).

        No, unless a task says so: a report changes, an action must be done, and a path does not say what is in a file.
        """
        return False


class Deterministic(Request):
    """Base of the requests whose inputs alone decide the answer."""

    @property
    def deterministic(self) -> bool:
        return True


def readable(text: str, info: ValidationInfo) -> str:
    """Unifies line ends; refuses what is no text: lone surrogates and control characters."""
    text = NEWLINES.sub("\n", text)
    limit = _settings(info).max_chars
    if len(text) > limit:
        raise ValueError(f"is {len(text):,} characters long; at most {limit:,} are accepted here (SUITE_MAX_CHARS)")
    found = NO_TEXT.search(text)
    if found:
        code, place = ord(found.group()), found.start() + 1
        if code >= 0xD800:
            raise ValueError(f"has half of a surrogate pair (U+{code:04X}) at character {place}")
        raise ValueError(f"has the control character U+{code:04X} at character {place}; remove it and try again")
    return text


def filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; type or paste some text first")
    return text


def _settings(info: ValidationInfo) -> Settings:
    return (info.context or {}).get("settings") or Settings()


AnyText = Annotated[str, AfterValidator(readable)]
Text = Annotated[str, AfterValidator(readable), AfterValidator(filled)]
"""Text that must not be empty."""


def split_labels(value: str, info: ValidationInfo) -> str:
    """Checks a comma- or newline-separated list of labels. Returned as written; `labels()` splits it."""
    names = labels(value)
    limit = _settings(info).max_labels
    if len(names) < 2:
        raise ValueError("needs two different labels or more, separated by commas or line ends")
    if len(names) > limit:
        raise ValueError(f"has {len(names)} labels; at most {limit} are accepted here (SUITE_MAX_LABELS)")
    for name in names:
        if len(name) > 200:
            raise ValueError(f"has a label of {len(name):,} characters; at most 200 are accepted")
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"names {sorted(repeated)[0]!r} more than once")
    return value


def labels(value: str) -> list[str]:
    """The labels in their order, without blanks around them and without empty ones."""
    return [name.strip() for name in re.split(r"[,\n]", value) if name.strip()]


CandidateLabels = Annotated[Text, AfterValidator(split_labels)]

Model = Annotated[
    str,
    Field(max_length=300, description="Checkpoint id, perhaps with @revision and +adapter; empty takes the default."),
    AfterValidator(readable),
]


class Uploaded:
    """Marks a field whose value is the path of a file; through the API, of one that was uploaded before."""


def sound_file(path: Any, info: ValidationInfo) -> str:
    """The path of a file that exists and is not too large. `shared.media.recordings` checks its content."""
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        raise ValueError("is missing; upload a recording, or record one")
    limit = _settings(info).max_audio_upload
    try:
        size = Path(path).stat().st_size
    except OSError:
        raise ValueError("is not here any more; choose the recording again") from None
    if size > limit:
        raise ValueError(f"is {size:,} bytes; at most {limit:,} are accepted here (SUITE_MAX_AUDIO_UPLOAD)")
    return str(path)


AudioFile = Annotated[str, Uploaded(), BeforeValidator(sound_file)]


def row_of(*names: str) -> BeforeValidator:
    """Accepts a row of values, `["a text", "its label"]`, as well as an object with these names."""

    def as_object(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if len(value) != len(names):
                raise ValueError(f"each example is a row of {' and '.join(names)}, not of {len(value)} values")
            return dict(zip(names, value, strict=True))
        return value

    return BeforeValidator(as_object)


M = TypeVar("M", bound=Request)


def validate(model: type[M], values: dict[str, Any], settings: Settings) -> M:
    """The request, or `InvalidInput` that names the field and says what is wrong with it."""
    try:
        return model.model_validate(values, context={"settings": settings})
    except ValidationError as errors:
        first = errors.errors(include_url=False, include_input=False)[0]
        path = [str(part) for part in first["loc"]]
        field = path[0] if path else ""
        inside = f" ({'.'.join(path[1:])})" if len(path) > 1 else ""
        raise InvalidInput(_sentence(first, model) + inside, field=field) from None


def _sentence(error: Any, model: type[Request]) -> str:
    """Pydantic's message as the rest of a sentence that begins with the field's name."""
    if error["type"] == "extra_forbidden":
        return f"is not an input here; those are {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = error["msg"].removeprefix("Input ")
    return message[0].lower() + message[1:]


def bounds(model: type[Request], field: str) -> dict[str, Any]:
    """`minimum`, `maximum`, `step`, `value` and `info` of a field, for a slider."""
    described = model.model_fields[field]
    result: dict[str, Any] = {"value": described.default, "info": described.description}
    for limit in described.metadata:
        if isinstance(limit, Ge):
            result["minimum"] = limit.ge
        elif isinstance(limit, Le):
            result["maximum"] = limit.le
        elif isinstance(limit, MultipleOf):
            result["step"] = limit.multiple_of
    result.setdefault("step", 1 if described.annotation is int else 0.01)
    return result
