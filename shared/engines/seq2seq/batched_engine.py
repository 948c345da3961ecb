"""Encoder-decoders whose requests share their forward passes, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.pieces import batches
from shared.engines.protocols import GeneratedToken, Sampling
from shared.engines.seq2seq.adapter_layers import Seq2SeqLayers
from shared.engines.seq2seq.decoding import STEP_LINES, Beams, Drawn, Greedy, Text, Writer
from shared.engines.seq2seq.network import Seq2SeqNetwork
from shared.engines.seq2seq.reference_decoding import Sources, Written
from shared.engines.seq2seq.rules import Rules
from shared.engines.seq2seq.tokenizer import Tokenizer
from shared.engines.seq2seq.translating import Translating

HELD_TOKENS = 4096
"""Padded source tokens of one request that are decoded at once: of T5-base their keys and values take 300 MB."""


class BatchedSeq2Seq(Translating):
    """A `Seq2SeqLM` whose requests share their forward passes."""

    def __init__(self, network: Seq2SeqNetwork, tokenizer: Tokenizer, rules: Rules, checkpoint: Checkpoint) -> None:
        super().__init__(tokenizer, rules, checkpoint)
        self.writer = Writer(network)
        self.nbytes = network.nbytes
        self.name = f"compiled-{network.number_format}"

    def generate(
        self, source: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        """Yields each new token as it is drawn: one step a token, the first of which reads the source too.

        Raises `InvalidInput` (field `text`) for a source that is empty or does not fit the context window.
        """
        self._check(source)
        text = Drawn(source, min(sampling.max_new_tokens, self.context_window), self.rules, sampling)
        ended = compute.submit(self.writer, text)
        ended.add_done_callback(lambda _: text.tokens.put(None))
        ids: list[int] = []
        shown = ""
        try:
            while (found := text.tokens.get()) is not None:
                token, probability = found
                ids.append(token)
                whole = self.detokenize(ids)
                yield GeneratedToken(token, whole[len(shown) :], probability)
                shown = whole
            ended.result()
        finally:
            text.stopped = True

    def best_outputs(self, sources: Sources, num_beams: int, compute: Compute) -> list[Written]:
        def text(place: int) -> Text:
            source, limit = sources.ids[place], sources.limits[place]
            if num_beams == 1:
                return Greedy(source, limit, self.rules, sources.first)
            return Beams(source, limit, self.rules, num_beams, sources.first)

        found = [Written([], 0.0)] * len(sources.ids)
        # Twice as many as are written in one step, so that there is one to take the place of one that ends.
        most = max(1, 2 * STEP_LINES // num_beams)
        for some in batches([len(ids) for ids in sources.ids], most, HELD_TOKENS):
            for place, written in zip(some, compute.map(self.writer, [text(place) for place in some]), strict=True):
                found[place] = written
        return found

    def adaptable(self) -> Seq2SeqLayers:
        """The linear layers, for an adapter."""
        return Seq2SeqLayers(self.writer.network)
