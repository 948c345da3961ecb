"""The command line of fine-tuning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from finetune.recipe import read_recipe, shipped_recipes
from finetune.run.background import lower_priority
from finetune.run_folder import run_of
from shared.errors import SuiteError
from shared.settings import Settings

COMMANDS = ("train", "list", "show", "evaluate", "compare", "export", "publish")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Recipe = Annotated[str, typer.Argument(help="A recipe's YAML file, or the name of a shipped one.")]
Checkpoint = Annotated[str, typer.Argument(help="Folder a run wrote, a recipe's name, or user/name on a Hub.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: training.epochs=1. May be repeated.")]


def main(arguments: list[str] | None = None) -> None:
    """`finetune RECIPE …` is short for `finetune train RECIPE …`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        given.insert(0, "train")
    try:
        app(given, prog_name="python -m finetune")
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
def train(
    recipe: Recipe,
    changes: Set = None,
    push_to_hub: Annotated[str, typer.Option(help="Publish the result as user/name on the Hub.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this recipe's last run stopped.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen and how long it takes.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Publish although it is not better than its base.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Publish for everybody; private otherwise.")] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Leave the processor to whatever else wants it.")
    ] = False,
    skip_evaluation: Annotated[bool, typer.Option("--skip-evaluation", help="Train only.")] = False,
) -> None:
    """Train a recipe, measure it against its base, keep the result for the suite, and publish it if asked."""
    from finetune.run.job import preview, run_job

    chosen, settings = read_recipe(recipe, changes or ()), Settings()
    if background:
        lower_priority()
    if dry_run:
        preview(chosen, settings)
        return
    run_job(
        chosen,
        settings,
        resume=resume,
        push_to_hub=push_to_hub,
        force=force,
        private=not public,
        measure=not skip_evaluation,
    )


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes, and which of them were trained here."""
    settings = Settings()
    for recipe in shipped_recipes():
        run = run_of(recipe, settings)
        state = run.status().state if run.folder.is_dir() else "not trained"
        print(f"{recipe.name:24} {recipe.method.name:13} {recipe.base:34} {state:12} {recipe.summary}")


@app.command()
def show(recipe: Recipe, changes: Set = None) -> None:
    """Print a recipe with every default."""
    print(read_recipe(recipe, changes or ()).to_yaml(), end="")


@app.command()
def evaluate(checkpoint: Checkpoint) -> None:
    """Measure a trained checkpoint again on its held-out rows."""
    from finetune.run.job import evaluate_again

    evaluate_again(checkpoint, Settings())


@app.command()
def compare(one: str, other: str) -> None:
    """Put what was measured of two trained checkpoints side by side."""
    from finetune.run.job import compare_results

    compare_results(one, other, Settings())


@app.command()
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
) -> None:
    """Write the merged checkpoint and its int8 and NF4 forms, and measure each."""
    from finetune.results.export import export_all

    export_all(checkpoint, out, Settings(), print)


@app.command()
def publish(
    checkpoint: Checkpoint,
    repo: Annotated[str, typer.Argument(help="user/name on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody; private otherwise.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Although it is not better than its base.")] = False,
    token_from_stdin: Annotated[
        bool,
        typer.Option("--token-from-stdin", help="Read the Hub's token there, so that it is in no command or file."),
    ] = False,
) -> None:
    """Publish a trained checkpoint with its card."""
    from finetune.run.job import publish_result

    token = sys.stdin.readline().strip() if token_from_stdin else None
    if token == "":
        raise SuiteError("no token came by the standard input")
    publish_result(checkpoint, repo, Settings(), private=not public, force=force, token=token)
