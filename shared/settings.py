"""Every setting of the suite, in one place.

Each field is an environment variable `SUITE_<NAME>` and, where `app.py --help` lists it, an option too.
The table in `docs/SETTINGS.md` is generated from these fields (`python -m shared.settings`).
"""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.machine import memory_limit, usable_cores

Profile = Literal["auto", "hub", "embedded"]

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(value: object) -> object:
    """`"3 GB"`, `"512MiB"` or a number of bytes, as an int; anything else is left to the validator to refuse."""
    if isinstance(value, str):
        digits = value.strip().rstrip("BbIiKkMmGg ")
        unit = value.strip()[len(digits) :].strip().lower()
        if unit in UNITS:
            try:
                return int(float(digits) * UNITS[unit])
            except (ValueError, OverflowError):
                return value
    return value


def comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_separated)]


class Settings(BaseSettings):
    """The suite's settings, read from `SUITE_*` variables and checked once at start."""

    model_config = SettingsConfigDict(
        env_prefix="SUITE_", extra="forbid", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    spaces: Names = Field(default=(), description="Spaces to serve, comma separated; empty serves all of them.")
    profile: Profile = Field(
        default="auto",
        description="Which checkpoints are the defaults: `embedded` (from packages; no network is used), `hub` (the "
        "course's, from the Hub), or `auto` (embedded ones, and those of the Hub to choose from when a Hub answers).",
    )
    models: Names = Field(
        default=(), description="Further model ids from the Hub to offer, comma separated, such as `user/name`."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    port: int = Field(default=7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    share: bool = Field(default=False, description="Open a public share link through Gradio's relay (needs a network).")
    auth: SecretStr = Field(
        default=SecretStr(""), description="`user:password` that every visitor must give; empty for none."
    )
    page: bool = Field(
        default=True, description="Serve the page; without it the HTTP API alone is served, and Gradio is not imported."
    )
    grace_seconds: float = Field(
        default=8.0,
        ge=0,
        description="Seconds that requests in progress have to end after SIGTERM; new ones are refused meanwhile.",
    )
    mcp: bool = Field(default=False, description="Also serve the endpoints as MCP tools.")
    cache_dir: Path = Field(
        default=Path(platformdirs.user_cache_dir("foundation-model-demos", appauthor=False)),
        description="Where weights and converted checkpoints lie.",
    )
    memory_budget: Bytes = Field(
        default=0,
        ge=0,
        description="Bytes of weights held at once, such as `3GB`; 0 takes 40 % of the machine's memory.",
    )
    engines: Literal["fast", "reference"] = Field(
        default="fast",
        description="`reference` runs every checkpoint by PyTorch; `fast` (compiled or int8, batches across visitors) "
        "runs those that it can on this processor.",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads for all models together; 0 takes every usable core.")
    max_running: int = Field(default=8, ge=1, description="Requests computed side by side; more wait in the queue.")
    queue_size: int = Field(default=256, ge=1, description="Requests that may wait; more are turned away.")
    idle_unload: float = Field(
        default=1800.0, ge=0, description="Seconds after which an unused checkpoint is unloaded; 0 never."
    )
    answer_cache: Bytes = Field(
        default=16 * 2**20,
        ge=0,
        description="Bytes of answers kept for the visitor who asked, such as `64MB`, so that the same deterministic "
        "question is not computed twice (`cached` in RunInfo); 0 keeps only those to the built-in examples.",
    )
    load_wait: float = Field(
        default=120.0, gt=0, description="Seconds a request waits for memory that others are using."
    )
    max_chars: int = Field(default=60_000, ge=1, description="Longest text accepted, in characters.")
    max_labels: int = Field(default=50, ge=1, description="Most candidate labels accepted.")
    max_rows: int = Field(default=2_000, ge=1, description="Most rows of one batch.")
    max_upload: Bytes = Field(default=10 * 2**20, ge=1, description="Largest uploaded table.")
    max_audio_upload: Bytes = Field(default=200 * 2**20, ge=1, description="Largest uploaded recording.")
    max_audio_seconds: float = Field(
        default=3600.0,
        ge=1,
        description="Seconds of a recording that are analysed; the rest of a longer one is left out, with a note.",
    )
    requests_per_minute: int = Field(
        default=-1, ge=-1, description="Per visitor address; 0 for no limit, -1 for none on loopback and 60 elsewhere."
    )
    admin: bool | None = Field(
        default=None,
        description="Whether everybody may load, unload and pin. Unset: yes on loopback without a share link, else no.",
    )
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        description="Token that makes a visitor the admin; empty makes a fresh one at start, printed once.",
    )
    allow_training: bool | None = Field(
        default=None,
        description="Whether there is a Fine-tuning tab, for the admin. Unset: yes on loopback without a share link, "
        "else no.",
    )
    warm_examples: bool = Field(
        default=True, description="Compute each Space's first example in the background after start."
    )

    @field_validator("auth")
    @classmethod
    def _user_and_password(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and (":" not in text or text.startswith(":") or text.endswith(":")):
            raise ValueError("must be user:password")
        return value

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the suite."""
        if self.share:
            return False
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def everyone_is_admin(self) -> bool:
        return self.on_loopback if self.admin is None else self.admin

    @property
    def training_allowed(self) -> bool:
        return self.on_loopback if self.allow_training is None else self.allow_training

    @property
    def budget(self) -> int:
        """Bytes of weights that may be in memory at once."""
        return self.memory_budget or int(memory_limit() * 0.4)

    @property
    def cores(self) -> int:
        return self.threads or usable_cores()

    @property
    def threads_for_requests(self) -> int:
        """Threads: one for each request that may wait in our queue or run, and some for what never waits."""
        return self.queue_size + self.max_running + 64

    @property
    def largest_upload(self) -> int:
        """Bytes of any file, which is all that the server asks; each kind has a limit of its own."""
        return max(self.max_upload, self.max_audio_upload)

    @property
    def rate_limit(self) -> int:
        """Requests a minute per visitor address; 0 for no limit."""
        if self.requests_per_minute >= 0:
            return self.requests_per_minute
        return 0 if self.on_loopback else 60

    @property
    def weights_dir(self) -> Path:
        return self.cache_dir / "weights"

    @property
    def converted_dir(self) -> Path:
        return self.cache_dir / "converted"

    def with_admin_token(self) -> Settings:
        """The same settings with a fresh admin token where none was given."""
        if self.admin_token.get_secret_value():
            return self
        return self.model_copy(update={"admin_token": SecretStr(secrets.token_urlsafe(24))})


def table() -> str:
    """Every setting as a Markdown table, for the documentation."""
    rows = ["| variable | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr) or default in ((), None):
            shown = "(unset)"
        elif isinstance(default, Path):
            shown = "the user's cache folder"
        else:
            shown = f"`{default}`"
        rows.append(f"| `SUITE_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    file = Path(__file__).parents[1] / "docs" / "SETTINGS.md"
    text, _, _ = file.read_text(encoding="utf-8").partition("| variable |")
    file.write_text(f"{text}{table()}\n", encoding="utf-8")
    print(f"wrote {file}")
