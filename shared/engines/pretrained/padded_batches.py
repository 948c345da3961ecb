"""Batches across visitors for encoders of transformers: items of similar length, padded, in one forward pass.

Measured with DistilBERT's size (66 million parameters, float32) on one of this project's two cores: a forward pass
takes 17 ms to read the weights, and 0.95 ms for each token. So a batch of short texts saves most of its time, one of
long texts next to none, and padding is worth it up to those 17 tokens. Both times grow with the parameters, so for
other sizes it is about the same number.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch

from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.inputs import EncoderInputs
from shared.engines.pretrained.length_batches import step_tokens

log = logging.getLogger(__name__)

P = TypeVar("P")
R = TypeVar("R")

PADDING = 16
"""Tokens of padding that an item may add to a batch: a separate forward pass costs as much."""

SHARED_WORK = 8_000_000_000
"""Tokens times parameters from which a step gets all cores. On two instead of one, 128 tokens through DistilBERT's size
took 0.82 of the time, 256 tokens 0.62, 512 tokens 0.60; 32 tokens 0.93, and up to 1.2 while other processes ran."""


class PaddedBatches(Generic[P, R]):
    """The kernel of an encoder that reads padded batches."""

    def __init__(
        self,
        forward: Callable[[Sequence[P]], Sequence[R]],
        length: Callable[[P], int],
        *,
        most: int,
        padding: int,
        all_cores_from: int = 0,
    ) -> None:
        """`forward` gives a result for each item; `length` is an item's length in tokens or samples.

        The rest is in that unit. No step of several items is longer than `most`, padding included, and a step of
        `all_cores_from` or more gets all cores. `padding`: the most that an item may add to a batch; with 0 the items
        of a batch have equal lengths.
        """
        self.most = most
        self.padding = padding
        self._forward, self._length = forward, length
        self._all_cores_from = all_cores_from

    def results(self, items: Sequence[P], compute: Compute = run_here) -> list[R]:
        """One request's results in the order of its items. They are submitted in order of length."""
        order = sorted(range(len(items)), key=lambda place: self._length(items[place]))
        found = dict(zip(order, compute.map(self, [items[place] for place in order]), strict=True))
        return [found[place] for place in range(len(items))]

    def __call__(self, items: Sequence[P]) -> Sequence[R]:
        with torch.inference_mode():
            return self._forward(items)

    def can_join(self, batch: Sequence[P], item: P) -> bool:
        new = self._length(item)
        # Called for every item that waits, so the cheap test comes first.
        if (len(batch) + 1) * new > self.most:
            return False
        longest = max(map(self._length, batch))
        if (len(batch) + 1) * longest > self.most:
            return False
        return (longest - new if new < longest else len(batch) * (new - longest)) <= self.padding

    def most_cores(self, items: Sequence[P]) -> int:
        padded = len(items) * max(map(self._length, items))
        return sys.maxsize if padded >= self._all_cores_from else 1


def text_batches(
    model: Any,
    inputs: EncoderInputs,
    forward: Callable[[Sequence[P]], Sequence[R]],
    length: Callable[[P], int],
    most: int = sys.maxsize,
) -> PaddedBatches[P, R]:
    """The kernel of a model that reads texts; `length` and `most` in tokens."""
    parameters = max(model.num_parameters(), 1)
    short, long = inputs.fitting(["a", "a " * PADDING])
    alone, both = inputs.tensors([short]), inputs.tensors([short, long])
    # Of a text that a tokenizer does not know nothing may be left, and then there was no padding to ignore.
    padded = len(short.ids) < len(long.ids)
    return PaddedBatches(
        forward,
        length,
        most=min(most, step_tokens(parameters)),
        padding=PADDING if padded and ignores_padding(model, alone, both) else 0,
        all_cores_from=SHARED_WORK // parameters,
    )


def ignores_padding(model: Any, alone: Mapping[str, Any], both: Mapping[str, Any]) -> bool:
    """Whether an input's logits are the same alone and as the first of two rows, padded to the second's length.

    It is tried rather than known: ConvBERT, for one, takes a mask, and its convolutions read what is behind it.
    """
    try:
        with torch.inference_mode():
            expected, found = model(**alone)[0][0], model(**both)[0][0]
    except Exception as error:
        log.info("%s reads no padded batches: %s", type(model).__name__, error)
        return False
    # Where each token has logits, those of the padding are nobody's.
    found = found[tuple(map(slice, expected.shape))]
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
