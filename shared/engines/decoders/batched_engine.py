"""Causal language models whose requests share their forward passes, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from shared.engines.compute import Compute, run_here
from shared.engines.decoders.adapter_layers import DecoderLayers
from shared.engines.decoders.causal_text import CausalText
from shared.engines.decoders.decoding import Chunk, Completion, Decoder, KeyValueCache, LabelScoring, Prefill
from shared.engines.decoders.network import DecoderNetwork
from shared.engines.decoders.prefixes import MIN_TOKENS, PrefixCache
from shared.engines.protocols import GeneratedToken, Likelihood, Sampling
from shared.engines.search.beam import beam_search

PREFIX_BYTES = 128_000_000
"""Keys and values of the prefix cache: 2,800 tokens of SmolLM2-135M, 1,700 of GPT-2."""


class BatchedCausalLM(CausalText):
    """A `CausalLM` whose requests share their forward passes."""

    def __init__(
        self, network: DecoderNetwork, tokenizer: Any, context_window: int, ends: Sequence[int], **text: Any
    ) -> None:
        super().__init__(tokenizer, context_window, **text)
        self.decoder = Decoder(network)
        self.prefixes: PrefixCache[torch.Tensor] = PrefixCache(PREFIX_BYTES)
        self.nbytes = network.nbytes
        self.name = f"compiled-{network.number_format}"
        self._shape, self._ends = network.shape, frozenset(ends)

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        from tokenizers.decoders import DecodeStream

        self.refuse_more_than_window(len(prompt))
        limit = min(sampling.max_new_tokens, self.context_window - len(prompt))
        if limit < 1:
            return
        sequence = Completion(self._cache(prompt, limit, compute), prompt, sampling, limit, self._ends)
        ended = compute.submit(self.decoder, sequence)
        ended.add_done_callback(lambda _: sequence.tokens.put(None))
        pieces = DecodeStream(skip_special_tokens=True)
        written: list[int] = []
        try:
            while (found := sequence.tokens.get()) is not None:
                token, probability = found
                written.append(token)
                yield GeneratedToken(token, pieces.step(self.tokenizer.backend_tokenizer, token) or "", probability)
            ended.result()
            self._store([*prompt, *written], sequence.cache, compute)
        finally:
            sequence.stopped = True

    def next_token_logits(self, prompt: Sequence[int], compute: Compute = run_here) -> np.ndarray:
        self.refuse_more_than_window(len(prompt))
        sequence = Prefill(self._cache(prompt, 0, compute), prompt)
        logits = compute.submit(self.decoder, sequence).result()
        self._store(prompt, sequence.cache, compute)
        return logits.numpy()

    def label_likelihoods(
        self, prompts: Sequence[str], labels: Sequence[str], compute: Compute = run_here
    ) -> list[list[Likelihood]]:
        prompt_ids, label_ids = [self.tokenize(p) for p in prompts], [self.tokenize(x) for x in labels]
        self.refuse_more_than_window(max(map(len, prompt_ids)) + max(map(len, label_ids)))
        self._read_common_prefix(prompt_ids, compute)
        more = LabelScoring.tokens_of(label_ids)
        sequences = [LabelScoring(self._cache(ids, more, compute), ids, label_ids) for ids in prompt_ids]
        return compute.map(self.decoder, sequences)

    def beam_search(
        self, prompt: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        self.refuse_more_than_window(len(prompt))
        limit = min(max_new_tokens, self.context_window - len(prompt))
        if limit < 1:
            return []
        sequence = Prefill(self._cache(prompt, limit, compute), prompt)
        logits = compute.submit(self.decoder, sequence).result()
        beams = [sequence.cache]

        def advance(tokens: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
            nonlocal beams
            beams = [self._branch(beams[line], len(prompt) + limit) for line in origin.tolist()]
            chunks = [Chunk([t], [beam.length], [0]) for t, beam in zip(tokens.tolist(), beams, strict=True)]
            found = torch.cat(compute(partial(self.decoder.forward, beams, chunks)))
            for beam in beams:
                beam.length += 1
            return found.log_softmax(-1)

        first = logits.log_softmax(-1)[None]
        (best,) = beam_search(first, advance, end_ids=sorted(self._ends), num_beams=num_beams, max_new_tokens=[limit])
        return [token for token in best.tokens if token not in self._ends]

    def last_state(self, ids: Sequence[int]) -> torch.Tensor:
        """The last layer's normed state of the last token, float32 (width,); for a head of an adapter's own."""
        chunk = Chunk(ids, range(len(ids)), [len(ids) - 1])
        cache = KeyValueCache(self._shape, len(ids))
        return torch.from_numpy(self.decoder.states([cache], [chunk], chunk.logit_positions)[0])

    def adaptable(self) -> DecoderLayers:
        """The linear layers, for an adapter."""
        return DecoderLayers(self.decoder.network)

    # -- the prefix cache ----------------------------------------------------------------------

    def _cache(self, prompt: Sequence[int], more: int, compute: Compute) -> KeyValueCache:
        """A cache for a prompt and more tokens, which starts with the part of the prompt that the prefix cache has."""
        cache = KeyValueCache(self._shape, len(prompt) + more)
        length, prefix = self.prefixes.longest(compute.owner, prompt)
        if prefix is not None:
            cache.load_prefix(prefix, length)
        return cache

    def _store(self, ids: Sequence[int], cache: KeyValueCache, compute: Compute) -> None:
        if self.prefixes.accepts(cache.length * self._shape.cache_floats * 4):
            self.prefixes.store(compute.owner, ids[: cache.length], cache.trimmed())

    def _read_common_prefix(self, prompts: Sequence[Sequence[int]], compute: Compute) -> None:
        """Reads the prefix that all prompts share (instruction, examples), unless the prefix cache has it."""
        first, last = min(map(list, prompts)), max(map(list, prompts))
        shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        if shared < MIN_TOKENS or (len(prompts) == 1):
            return
        prefix = first[:shared]
        length, _ = self.prefixes.longest(compute.owner, [*prefix, 0])
        if length < shared:
            sequence = Prefill(self._cache(prefix, 0, compute), prefix)
            compute.submit(self.decoder, sequence).result()
            self._store(prefix, sequence.cache, compute)

    def _branch(self, cache: KeyValueCache, capacity: int) -> KeyValueCache:
        copy = KeyValueCache(self._shape, capacity)
        copy.load_prefix(cache.tensor, cache.length)
        return copy
