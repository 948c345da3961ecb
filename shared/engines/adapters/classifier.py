"""A classification adapter on an encoder or a decoder that is shared with others: its own head on the base's states.

Equal to peft's model on `BertForSequenceClassification` and on `LlamaForSequenceClassification` (tested).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from shared.engines.adapters.deltas import AdapterWeights, Delta
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.inputs import EncoderInputs
from shared.engines.protocols import NoCache
from shared.errors import WeightsCorrupt


class AdaptedEncoderClassifier(NoCache):
    """BERT's head: a dense layer and tanh on the first token's state (the pooler), then one logit a label."""

    def __init__(self, base: Any, weights: AdapterWeights, deltas: Mapping[str, Delta]) -> None:
        """`base` is the sentence encoder's engine. Raises `WeightsCorrupt` for a head that does not fit it."""
        self._base, tokenizer = base, base.tokenizer
        saved = {**base.pooler, **{name.removeprefix("bert."): value for name, value in weights.saved.items()}}
        self._pooler = head_layer("pooler.dense", saved, deltas, weights.adapter.name)
        self._classifier = head_layer("classifier", saved, deltas, weights.adapter.name)
        self.name: str = base.name
        self.nbytes = weights.nbytes
        self.labels = weights.adapter.labels
        self.max_tokens: int = base.max_tokens
        named = SimpleNamespace(
            backend_tokenizer=tokenizer,
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
            pad_token_id=tokenizer.token_to_id("[PAD]") or 0,
        )
        self._inputs = EncoderInputs(None, named, base.max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        return self._inputs.count_tokens(texts)

    def logits(self, inputs: Sequence[str | tuple[str, str]], compute: Compute = run_here) -> np.ndarray:
        """float32, shape (inputs, labels). Raises `InvalidInput` for a pair whose second text fills the window."""
        encodings = self._inputs.fitting(inputs)
        first = self._base.first_states(encodings, compute)
        return compute(lambda: self._head(first))

    def _head(self, first: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return self._classifier(torch.tanh(self._pooler(first))).numpy()


class AdaptedDecoderClassifier(NoCache):
    """A decoder's head: one logit a label from the last token's state, text by text."""

    def __init__(self, base: Any, weights: AdapterWeights, deltas: Mapping[str, Delta]) -> None:
        """`base` is the causal LM's engine. Raises `WeightsCorrupt` for a head that does not fit it."""
        self._base = base
        self._score = head_layer("score", weights.saved, deltas, weights.adapter.name)
        self.name: str = base.name
        self.nbytes = weights.nbytes
        self.labels = weights.adapter.labels
        self.max_tokens: int = base.context_window

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self._base.tokenize(text)) for text in texts]

    def logits(self, inputs: Sequence[str | tuple[str, str]], compute: Compute = run_here) -> np.ndarray:
        """float32, shape (inputs, labels). A pair is read one after the other; of a long text, its beginning."""
        rows = []
        for one in inputs:
            parts = [one] if isinstance(one, str) else one
            ids = [token for part in parts for token in self._base.tokenize(part)][: self.max_tokens]
            rows.append(compute(lambda ids=ids: self._forward(ids)))
        return np.stack(rows)

    def _forward(self, ids: Sequence[int]) -> np.ndarray:
        with torch.inference_mode():
            return self._score(self._base.last_state(ids)).numpy()


class HeadLayer:
    """A linear layer of the adapter's own, perhaps with a delta on top, as where `all-linear` was trained."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, delta: Delta | None) -> None:
        self._weight, self._bias, self._delta = weight, bias, delta

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._plain(x) if self._delta is None else self._delta(self._plain, x)

    def _plain(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self._weight, self._bias)


def head_layer(name: str, saved: Mapping[str, torch.Tensor], deltas: Mapping[str, Delta], adapter: str) -> HeadLayer:
    """Raises `WeightsCorrupt` where the adapter was saved without this layer's weights."""
    weight = saved.get(f"{name}.weight")
    if weight is None or weight.dim() != 2:
        raise WeightsCorrupt(
            f"the adapter {adapter} was saved without its {name}, so it gives no labels; name that in modules_to_save "
            "when it is trained"
        )
    return HeadLayer(weight, saved.get(f"{name}.bias"), deltas.get(name))
