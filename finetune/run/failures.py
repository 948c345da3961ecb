"""Out of memory and disk errors of a training, as errors for people.

Libraries say it in many ways: torch's allocators and its writer of files raise RuntimeError, safetensors an error of
its own that is no OSError.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from finetune.recipe import Recipe
from shared.errors import SuiteError

NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
NOT_WRITTEN = ("inline_container", "pytorchstreamwriter", "i/o error", "iostream error", "ioerror", "os error")


class OutOfMemory(SuiteError):
    """The run does not fit this machine."""


@contextlib.contextmanager
def errors_in_words(recipe: Recipe, folder: Path) -> Iterator[None]:
    """Raises what is known of an error as a `SuiteError`; leaves the others as they are."""
    try:
        yield
    except Exception as error:
        if (known := as_suite_error(error, recipe, folder)) is None or known is error:
            raise
        raise known from error


def as_suite_error(error: Exception, recipe: Recipe, folder: Path) -> SuiteError | None:
    """None for an error of another kind, which is a mistake in a program."""
    if isinstance(error, SuiteError):
        return error
    text = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(part in text for part in NO_MEMORY)):
        return OutOfMemory(f"the memory of this machine is not enough for this run. {_less_memory(recipe)}")
    if isinstance(error, OSError):
        return _disk(error.strerror or str(error), folder)
    named = type(error).__name__ == "SafetensorError" or isinstance(error, RuntimeError)
    if named and any(part in text for part in NOT_WRITTEN):
        return _disk(" ".join(str(error).split())[:200], folder)
    return None


def _less_memory(recipe: Recipe) -> str:
    """The settings that decide it, as they are now."""
    training, method = recipe.training, recipe.method
    lower = [f"training.max_length ({training.max_length:,})"]
    if training.batch_size > 1:
        lower.insert(0, f"training.batch_size ({training.batch_size}; raise training.gradient_accumulation by as much)")
    if rank := getattr(method, "rank", 0):
        lower.append(f"method.rank ({rank})")
    other = ""
    if method.saves == "checkpoint":
        other = (
            f", or take another method than {method.name}: lora learns few weights, qlora holds the base in four bits"
        )
    elif method.name != "qlora" and recipe.task != "audio-classification":
        other = ", or take the method qlora, which holds the base in four bits"
    return f"Lower {' or '.join(lower)}{other}"


def _disk(cause: str, folder: Path) -> SuiteError:
    free = shutil.disk_usage(folder).free
    return SuiteError(
        f"{cause} while writing to the run's folder ({free / 1e6:,.0f} MB are free there). Make room, or set "
        "SUITE_CACHE_DIR to a larger disk, and go on with --resume"
    )
