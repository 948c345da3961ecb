"""An adapter on the engine of its base, for one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.catalog import Checkpoint, Kind
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
    kind: Kind | None
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


ADAPTABLE: tuple[Kind, ...] = ("causal-lm", "seq2seq", "sentence-encoder")


def apply_adapter(checkpoint: Checkpoint, base: Any, weights: AdapterWeights) -> Adapted:
    """An adapter on its base's engine. Raises `WeightsCorrupt` where they do not belong together."""
    adapter = weights.adapter
    if checkpoint.kind not in ADAPTABLE or not (hasattr(base, "model") or hasattr(base, "adaptable")):
        raise WeightsCorrupt(
            f"{checkpoint.id} is a {checkpoint.kind}, on which no adapter is computed here; those are for "
            f"{', '.join(ADAPTABLE)}",
            field="model",
        )
    deltas = weights.fitted_to(base, checkpoint.id)
    if not adapter.classifies:
        return Adapted(adapter, base, None, deltas)
    if checkpoint.kind == "seq2seq":
        raise WeightsCorrupt(
            f"{adapter.name} classifies with an encoder-decoder, which is not computed here", field="model"
        )
    heads = {
        "sentence-encoder": AdaptedEncoderClassifier,
        "causal-lm": AdaptedDecoderClassifier,
    }
    return Adapted(adapter, heads[checkpoint.kind](base, weights, deltas), "sequence-classifier", deltas)
