"""Causal language models whose requests share their forward passes, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from shared.engines.compute import Compute, run_here
from shared.engines.decoders.decoding import Completion, Decoder, Memory, Part, Reading, Scoring
from shared.engines.decoders.layers import DecoderLayers
from shared.engines.decoders.network import DecoderNetwork
from shared.engines.decoders.prefixes import LEAST_TOKENS, Prefixes
from shared.engines.decoders.texts import CausalText
from shared.engines.protocols import GeneratedToken, Likelihood, Sampling
from shared.engines.search.beam import beam_search

PREFIX_BYTES = 128_000_000
"""Of keys and values kept for the next turn: 2,800 tokens of SmolLM2-135M, 1,700 of GPT-2."""


class BatchedCausalLM(CausalText):
    """A `CausalLM` whose requests share their forward passes."""

    def __init__(
        self, network: DecoderNetwork, tokenizer: Any, context_window: int, ends: Sequence[int], **text: Any
    ) -> None:
        super().__init__(tokenizer, context_window, **text)
        self.decoder = Decoder(network)
        self.prefixes: Prefixes[torch.Tensor] = Prefixes(PREFIX_BYTES)
        self.nbytes = network.nbytes
        self.name = f"compiled-{network.stored_as}"
        self._shape, self._ends = network.shape, frozenset(ends)

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        from tokenizers.decoders import DecodeStream

        self.refuse_more_than_window(len(prompt))
        most = min(sampling.max_new_tokens, self.context_window - len(prompt))
        if most < 1:
            return
        row = Completion(self._memory(prompt, most, compute), prompt, sampling, most, self._ends)
        ended = compute.begin(self.decoder, row)
        ended.add_done_callback(lambda _: row.tokens.put(None))
        pieces = DecodeStream(skip_special_tokens=True)
        written: list[int] = []
        try:
            while (found := row.tokens.get()) is not None:
                token, probability = found
                written.append(token)
                yield GeneratedToken(token, pieces.step(self.tokenizer.backend_tokenizer, token) or "", probability)
            ended.result()
            self._keep([*prompt, *written], row.memory, compute)
        finally:
            row.stopped = True

    def next_token_logits(self, prompt: Sequence[int], compute: Compute = run_here) -> np.ndarray:
        self.refuse_more_than_window(len(prompt))
        row = Reading(self._memory(prompt, 0, compute), prompt)
        logits = compute.begin(self.decoder, row).result()
        self._keep(prompt, row.memory, compute)
        return logits.numpy()

    def label_likelihoods(
        self, prompts: Sequence[str], labels: Sequence[str], compute: Compute = run_here
    ) -> list[list[Likelihood]]:
        prompt_ids, label_ids = [self.tokenize(p) for p in prompts], [self.tokenize(x) for x in labels]
        self.refuse_more_than_window(max(map(len, prompt_ids)) + max(map(len, label_ids)))
        self._read_front(prompt_ids, compute)
        more = Scoring.room(label_ids)
        rows = [Scoring(self._memory(ids, more, compute), ids, label_ids) for ids in prompt_ids]
        return compute.together(self.decoder, rows)

    def beam_search(
        self, prompt: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        self.refuse_more_than_window(len(prompt))
        room = min(max_new_tokens, self.context_window - len(prompt))
        if room < 1:
            return []
        row = Reading(self._memory(prompt, room, compute), prompt)
        logits = compute.begin(self.decoder, row).result()
        beams = [row.memory]

        def advance(tokens: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
            nonlocal beams
            beams = [self._branch(beams[line], len(prompt) + room) for line in origin.tolist()]
            parts = [Part([t], [beam.length], [0]) for t, beam in zip(tokens.tolist(), beams, strict=True)]
            found = torch.cat(compute(partial(self.decoder.read, beams, parts)))
            for beam in beams:
                beam.length += 1
            return found.log_softmax(-1)

        first = logits.log_softmax(-1)[None]
        (best,) = beam_search(first, advance, end_ids=sorted(self._ends), num_beams=num_beams, max_new_tokens=[room])
        return [token for token in best.tokens if token not in self._ends]

    def last_state(self, ids: Sequence[int]) -> torch.Tensor:
        """The last layer's normed state of the last token, float32 (width,); for a head of an adapter's own."""
        part = Part(ids, range(len(ids)), [len(ids) - 1])
        return torch.from_numpy(self.decoder.states([Memory(self._shape, len(ids))], [part], part.kept)[0])

    def adaptable(self) -> DecoderLayers:
        """The linear layers, for an adapter."""
        return DecoderLayers(self.decoder.network)

    # -- what was read before ------------------------------------------------------------------

    def _memory(self, prompt: Sequence[int], more: int, compute: Compute) -> Memory:
        """Room for a prompt and more tokens, with what is known already of the prompt's beginning."""
        memory = Memory(self._shape, len(prompt) + more)
        length, known = self.prefixes.longest(compute.owner, prompt)
        if known is not None:
            memory.recall(known, length)
        return memory

    def _keep(self, ids: Sequence[int], memory: Memory, compute: Compute) -> None:
        if self.prefixes.room_for(memory.length * self._shape.memory_floats * 4):
            self.prefixes.keep(compute.owner, ids[: memory.length], memory.copied())

    def _read_front(self, prompts: Sequence[Sequence[int]], compute: Compute) -> None:
        """Reads what all prompts begin with (instruction, examples), unless it is known."""
        first, last = min(map(list, prompts)), max(map(list, prompts))
        shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        if shared < LEAST_TOKENS or (len(prompts) == 1):
            return
        front = first[:shared]
        length, _ = self.prefixes.longest(compute.owner, [*front, 0])
        if length < shared:
            row = Reading(self._memory(front, 0, compute), front)
            compute.begin(self.decoder, row).result()
            self._keep(front, row.memory, compute)

    def _branch(self, memory: Memory, room: int) -> Memory:
        copy = Memory(self._shape, room)
        copy.recall(memory.tensor, memory.length)
        return copy
