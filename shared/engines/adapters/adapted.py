"""An adapter on the engine of its base, for one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.checkpoints import kinds
from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.catalog import Checkpoint
from shared.engines.adapters.classifier import AdaptedDecoderClassifier, AdaptedEncoderClassifier
from shared.engines.adapters.deltas import AdapterWeights, Deltas, activate
from shared.errors import WeightsCorrupt

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Adapted:
    """A base with an adapter on it, for one request. Nobody else's computation on that base sees it."""

    adapter: Adapter
    engine: Any
    """The base's own, or one that ends in the adapter's head."""
    kind: str | None
    """What the engine is, where it is another kind than the base."""
    deltas: Deltas

    def active_during(self, step: Callable[[], T]) -> Callable[[], T]:
        """The step with this adapter, and with no other."""

        def run() -> T:
            # Set in the thread that runs the step, and taken back before that thread runs another's.
            activate(self.deltas)
            try:
                return step()
            finally:
                activate(None)

        return run


CLASSIFIERS = {"sentence-encoder": AdaptedEncoderClassifier, "causal-lm": AdaptedDecoderClassifier}
"""By kind of the base, the engine that ends in an adapter's own labels."""


def apply_adapter(checkpoint: Checkpoint, base: Any, weights: AdapterWeights) -> Adapted:
    """An adapter on its base's engine. Raises `WeightsCorrupt` where they do not belong together."""
    adapter = weights.adapter
    if not kinds.get(checkpoint.kind).adaptable or not (hasattr(base, "model") or hasattr(base, "adaptable")):
        raise WeightsCorrupt(
            f"{checkpoint.id} is a {checkpoint.kind}, on which no adapter is computed here; those are for "
            f"{', '.join(kinds.adaptable())}",
            field="model",
        )
    deltas = weights.fitted_to(base, checkpoint.id)
    if not adapter.classifies:
        return Adapted(adapter, base, None, deltas)
    if checkpoint.kind not in CLASSIFIERS:
        raise WeightsCorrupt(
            f"{adapter.name} classifies with a {checkpoint.kind}, which is not computed here", field="model"
        )
    return Adapted(adapter, CLASSIFIERS[checkpoint.kind](base, weights, deltas), "sequence-classifier", deltas)
