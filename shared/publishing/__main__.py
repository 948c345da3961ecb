"""Spaces for the Hub, from the command line.

python -m shared.publishing deploy translation --repo user/name     create or update a Space on the Hub
python -m shared.publishing deploy suite --repo user/name --dry-run show what would be sent; uses no network
python -m shared.publishing space translation --out folder          assemble the folder only
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shared.errors import SuiteError
from shared.publishing.assemble import assemble
from shared.publishing.push import Target, deploy, with_preload

app = typer.Typer(add_completion=False, help=(__doc__ or "").splitlines()[0])

Name = Annotated[str, typer.Argument(help="A folder of spaces/, or `suite` for all of them.")]


@app.command("deploy")
def deploy_command(
    name: Name,
    repo: Annotated[str, typer.Option(help="Where to: user/name, or organization/name.")],
    private: Annotated[bool, typer.Option("--private", help="Let nobody else see it.")] = False,
    hardware: Annotated[str, typer.Option(help="Such as cpu-basic or zero-a10g; empty leaves it as it is.")] = "",
    variable: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the Space, such as SUITE_PROFILE=auto; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; use no network.")] = False,
) -> None:
    """Create or update a Space on the Hub."""
    variables = {key: value for key, _, value in (pair.partition("=") for pair in variable or [])}
    target = Target(repo, private, hardware, variables)
    if not dry_run:
        deploy(name, target)
        return
    assembled = assemble(name)
    print(assembled.files["README.md"].decode())
    print(assembled.listing())
    print(f"would go to the Space {repo}{' (private)' if private else ''}{f' on {hardware}' if hardware else ''}")
    for key, value in variables.items():
        print(f"with the variable {key}={value}")
    print("Left out of this dry run: preload_from_hub, which needs the Hub's list of files.")


@app.command("space")
def space_command(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder to make, or to make anew.")],
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the Hub for files to preload.")] = False,
) -> None:
    """Assemble the folder of a Space without sending it anywhere."""
    if offline:
        assembled = assemble(name)
    else:
        from huggingface_hub import HfApi, constants

        assembled = with_preload(name, HfApi(endpoint=constants.ENDPOINT), print)
    assembled.write(out)
    print(assembled.listing())
    print(f"assembled in {out}; to try it: cd {out} && SUITE_PROFILE=auto {Path(sys.executable).name} app.py")


def main(arguments: list[str] | None = None) -> int:
    try:
        app(arguments, standalone_mode=False)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except typer.Abort:
        return 130
    except Exception as error:
        # typer's own complaints about the command line, which know how to show themselves
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
