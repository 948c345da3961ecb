"""Errors for people to read: each says what happened, why, and what to do.

Only these messages reach a visitor. Any other exception is logged in full and shown as
a plain "something failed here", because a stray exception's text can hold another visitor's input.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


class SuiteError(Exception):
    """An error whose text is written for the visitor.

    `field` names the input that is at fault ("" when none is), `status` is the HTTP status
    our own routes answer with.
    """

    status = 500

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call the class with the message alone when it reads one that came from another process.
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidInput(SuiteError):
    """An input is empty, too long, out of range, of the wrong type or does not fit the context window."""

    status = 422


class UnknownCheckpoint(SuiteError):
    """No such checkpoint, or one that cannot do this task."""

    status = 404


class WeightsMissing(SuiteError):
    """The checkpoint's files are not on this machine; the message says which command brings them."""

    status = 503


class WeightsCorrupt(SuiteError):
    """A file is not the one that the catalog pins, or lacks the trained weights it should hold. It is never loaded."""

    status = 503


class NeedsDownload(SuiteError):
    """Only a checkpoint that must be fetched first can do this, and nobody has agreed to that yet."""

    status = 409

    def __init__(self, checkpoint_id: str, nbytes: int) -> None:
        super().__init__(
            f"this needs {checkpoint_id}, which is not on this machine yet: about {nbytes / 1e6:,.0f} MB from the Hub. "
            "Name it as the model to have it fetched"
        )
        self.checkpoint_id = checkpoint_id
        self.nbytes = nbytes


class MemoryRefused(SuiteError):
    """The checkpoint does not fit the memory budget, or its pickle the memory that is free, so it was not read."""

    status = 507


class Busy(SuiteError):
    """The queue is full, or a visitor asks more often than the limit."""

    status = 429


class Forbidden(SuiteError):
    """Only the admin may do this."""

    status = 403


class Cancelled(Exception):
    """The visitor pressed Stop or went away. Raised inside the computation to end it."""


def did_you_mean(name: str, known: Sequence[str], cutoff: float = 0.75) -> str:
    """` Did you mean …?` with the known name closest to `name`; "" where none is at least `cutoff` similar.

    Similarity is difflib's, from 0 to 1, in lower case. `gpt2` is similar to `openai-community/gpt2`.
    """
    by_spelling = {one.lower(): one for one in known}
    if "/" not in name:
        by_spelling = {one.lower().rpartition("/")[2]: one for one in reversed(known)} | by_spelling
    close = difflib.get_close_matches(name.lower(), list(by_spelling), n=1, cutoff=cutoff)
    return f" Did you mean {by_spelling[close[0]]}?" if close else ""
