"""Batches across visitors for encoders of transformers: pieces of nearly one length, padded, in one forward pass.

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
"""Tokens of padding that a piece may bring into a batch: a forward pass of its own costs as much."""

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
        """`forward` gives a result for each piece, `length` is a piece's, in tokens or samples.

        In that unit, padding included: no step but a single piece's is longer than `most`, and one of `all_cores_from`
        or more gets all cores. `padding` is what a piece may bring into a batch; with 0 all are of one length.
        """
        self.most = most
        self.padding = padding
        self._forward, self._length = forward, length
        self._all_cores_from = all_cores_from

    def results(self, pieces: Sequence[P], compute: Compute = run_here) -> list[R]:
        """One request's results in the order of its pieces, which the lane is given by length."""
        order = sorted(range(len(pieces)), key=lambda place: self._length(pieces[place]))
        found = dict(zip(order, compute.together(self, [pieces[place] for place in order]), strict=True))
        return [found[place] for place in range(len(pieces))]

    def __call__(self, pieces: Sequence[P]) -> Sequence[R]:
        with torch.inference_mode():
            return self._forward(pieces)

    def room(self, pieces: Sequence[P], another: P) -> bool:
        new = self._length(another)
        # Asked of every piece that waits, so what is known at once comes first.
        if (len(pieces) + 1) * new > self.most:
            return False
        longest = max(map(self._length, pieces))
        if (len(pieces) + 1) * longest > self.most:
            return False
        return (longest - new if new < longest else len(pieces) * (new - longest)) <= self.padding

    def most_cores(self, pieces: Sequence[P]) -> int:
        padded = len(pieces) * max(map(self._length, pieces))
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
