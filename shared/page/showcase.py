"""Which of a Space's examples a page shows, and in which order.

A page opens with the first one, and its answer is computed in advance. So first come those for a default of the
profile, whose weights a deployed Space is built with, and last those that would fetch most. Shown are those that a
checkpoint can answer now; as a Hub's checkpoints come and go, so do their examples.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from shared.checkpoints.catalog import Checkpoint
from shared.serving.runtime import Runtime

Example = dict[str, Any]
"""`title` and `inputs`, as in a Space's `examples.yaml`."""

Able = Callable[[dict[str, Any]], Sequence[Checkpoint]]
"""An example's inputs → the checkpoints that can answer them, the default first."""


class Showcase:
    """The examples of one endpoint.

    Without `able`, whatever does the endpoint's task can answer an example. One that names its `model` wants that one.
    """

    def __init__(self, runtime: Runtime, examples: Sequence[Example], able: Able | None = None) -> None:
        self._runtime, self._able = runtime, able
        self.examples = sorted(examples, key=self._place)

    def depends(self, example: Example) -> bool:
        """Whether it is shown only while certain checkpoints can be used."""
        return self._answering(example) is not None

    def shown(self, example: Example) -> bool:
        """Whether a checkpoint can answer it now."""
        answering = self._answering(example)
        return answering is None or any(map(self._usable, answering))

    def _place(self, example: Example) -> tuple[bool, bool, int]:
        answering = self._answering(example)
        if answering is None:
            return False, False, 0
        if not answering:
            return True, True, sys.maxsize
        first = next(filter(self._usable, answering), answering[0])
        default = first.profile == self._runtime.catalog.preferred and bool(first.default_for)
        return not self._usable(first), not default, self._runtime.bytes_to_fetch(first)

    def _answering(self, example: Example) -> Sequence[Checkpoint] | None:
        if model := example["inputs"].get("model"):
            return [self._runtime.catalog.choose_by_id(model)]
        return self._able(example["inputs"]) if self._able else None

    def _usable(self, checkpoint: Checkpoint) -> bool:
        return not self._runtime.catalog.why_not(checkpoint, False)
