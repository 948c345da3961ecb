"""The command line of `app.py`. Every option is also a `SUITE_*` variable; an option wins."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from shared.errors import SuiteError
from shared.settings import Settings


def about(name: str) -> str:
    return f"{Settings.model_fields[name].description} [SUITE_{name.upper()}]"


def serve_command(
    spaces: Annotated[str | None, typer.Option(help=about("spaces"))] = None,
    profile: Annotated[str | None, typer.Option(help=about("profile"))] = None,
    host: Annotated[str | None, typer.Option(help=about("host"))] = None,
    port: Annotated[int | None, typer.Option(help=about("port"))] = None,
    share: Annotated[bool | None, typer.Option("--share/--no-share", help=about("share"))] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help=about("page"))] = None,
    mcp: Annotated[bool | None, typer.Option("--mcp/--no-mcp", help=about("mcp"))] = None,
    memory_budget: Annotated[str | None, typer.Option(help=about("memory_budget"))] = None,
) -> None:
    """Foundation models, hands on: classification, summarization, translation and text generation in one page.

    The other settings are SUITE_* variables; docs/SETTINGS.md lists them all.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    given: dict[str, Any] = {name: value for name, value in locals().items() if value is not None}
    try:
        settings = Settings(**given)
        from shared.suite import serve

        serve(settings)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0])
            print(f"--{name.replace('_', '-')} (SUITE_{name.upper()}): {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    except (SuiteError, OSError) as error:
        print(f"The suite cannot start: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def main() -> None:
    typer.run(serve_command)
