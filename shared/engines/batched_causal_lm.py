"""The fast engine for Llama-like causal language models: requests are batched token by token, weights are int8.

Where the processor sums int8 (VNNI), the architecture is written down in `llama_network` and the weights were published
in bfloat16 or less. Everything else is loaded by the reference engine, `causal_lm`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.catalog import Checkpoint
from shared.conversion import converted
from shared.engines import Compute, GeneratedToken, Likelihood, Sampling, causal_lm, run_here
from shared.engines.beam import beam_search
from shared.engines.causal_text import CausalText
from shared.engines.decoding import Completion, Decoder, Memory, Part, Reading, Scoring
from shared.engines.int8_linear import Int8Linear, processor_has_int8
from shared.engines.llama_adapters import LlamaLayers
from shared.engines.llama_network import LlamaNetwork, Shape, network_weights, shape_of, watched_inputs
from shared.engines.prefixes import LEAST_TOKENS, Prefixes
from shared.engines.pretrained import LOCAL, WEIGHTS, read_config, tokenizer_for
from shared.engines.rounding import inputs_of
from shared.errors import SuiteError
from shared.events import Progress
from shared.settings import Settings

GENERATION = "generation_config.json"

PREFIX_BYTES = 128_000_000
"""Of keys and values kept for the next turn: 2,800 tokens of SmolLM2-135M."""


class BatchedCausalLM(CausalText):
    """A `CausalLM` whose requests share their forward passes."""

    def __init__(
        self, network: LlamaNetwork, shape: Shape, tokenizer: Any, context_window: int, ends: Sequence[int], **text: Any
    ) -> None:
        super().__init__(tokenizer, context_window, **text)
        self.decoder = Decoder(network, shape)
        self.prefixes: Prefixes[torch.Tensor] = Prefixes(PREFIX_BYTES)
        self.nbytes = network.nbytes
        self.name = "torch-int8" if isinstance(network.head, Int8Linear) else "torch-fp32"
        self._shape, self._ends = shape, frozenset(ends)

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
        state = self.decoder.states([Memory(self._shape, len(ids))], [part], part.kept)[0]
        return self.decoder.network.as_published(state)

    def adaptable(self) -> LlamaLayers:
        """The linear layers, for an adapter."""
        return LlamaLayers(self.decoder.network)

    @property
    def spare_bytes(self) -> int:
        """Bytes of keys and values kept for the next turn, beside the weights."""
        return self.prefixes.nbytes

    def forget(self) -> None:
        """Gives them up: the next turn reads its prompt anew."""
        self.prefixes.clear()

    # -- what was read before ------------------------------------------------------------------

    def _memory(self, prompt: Sequence[int], more: int, compute: Compute) -> Memory:
        """Room for a prompt and more tokens, with what is known already of the prompt's beginning."""
        memory = Memory(self._shape, len(prompt) + more)
        length, known = self.prefixes.longest(compute.owner, prompt)
        if known is not None:
            memory.recall(known, length)
        return memory

    def _keep(self, ids: Sequence[int], memory: Memory, compute: Compute) -> None:
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


# -- loading ---------------------------------------------------------------------------------------


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: those of the reference engine, which loads what this one cannot."""
    return causal_lm.memory_bytes(checkpoint)


def why_not(settings: Settings) -> str:
    """Why the reference runs here instead; "" where this engine does."""
    if settings.engines == "reference":
        return "SUITE_ENGINES is set to reference"
    if not processor_has_int8():
        return "this processor does not multiply int8 in one instruction (VNNI)"
    return ""


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> CausalText:
    """Reads a verified folder, in int8 where that can be. Raises as the reference engine does."""
    if not offered(checkpoint, folder, settings):
        return causal_lm.load(checkpoint, folder, settings, progress)
    from safetensors.torch import load_file

    ready = prepare(checkpoint, folder, settings, progress)
    config = read_config(checkpoint, ready)
    shape = shape_of(config)
    assert shape is not None, "prepared for this network"
    progress("reading weights", 0, checkpoint.parameters)
    network = LlamaNetwork(load_file(ready / WEIGHTS), shape)
    tokenizer = tokenizer_for(checkpoint, ready, config, len(network.embedding))
    if checkpoint.chat_template and not tokenizer.chat_template:
        tokenizer.chat_template = checkpoint.chat_template
    ends = json.loads((ready / GENERATION).read_text(encoding="utf-8")).get("eos_token_id")
    engine = BatchedCausalLM(
        network,
        shape,
        tokenizer,
        min(checkpoint.context_window, shape.positions),
        [ends] if isinstance(ends, int) else ends or [],
        checkpoint_id=checkpoint.id,
        system_prompt=checkpoint.system_prompt,
    )
    engine.decoder.warm_up()
    return engine


def offered(checkpoint: Checkpoint, folder: Path, settings: Settings) -> bool:
    """Whether this engine can run the checkpoint, and nothing that was published is lost by it."""
    if settings.engines == "reference" or not processor_has_int8():
        return False
    if next(folder.glob("*.gguf"), None):
        return True  # of four to eight bits; what it is of, the conversion finds out
    config = read_config(checkpoint, folder)
    return str(config.dtype).endswith("bfloat16") and shape_of(config) is not None


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder with the weights as this engine reads them, or as the reference does."""
    if not offered(checkpoint, folder, settings):
        return causal_lm.prepare(checkpoint, folder, settings, progress)
    return converted(checkpoint, folder, settings, _quantise, progress, form="int8")


def published(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder with the weights as transformers reads them, for training."""
    return causal_lm.prepare(checkpoint, folder, settings, progress)


def _quantise(source: Path, target: Path) -> None:
    """Weights in int8, with everything else that a checkpoint's folder has."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    gguf = next(source.glob("*.gguf"), None)
    if gguf:
        causal_lm.gguf_to_safetensors(source, target)
    else:
        for file in source.iterdir():
            if file.is_file() and file.suffix in (".json", ".txt", ".jinja", ".model"):
                shutil.copyfile(file, target / file.name)
    read = target if gguf else source
    model: Any = AutoModelForCausalLM.from_pretrained(read, dtype=torch.float32, use_safetensors=True, **LOCAL)
    shape = shape_of(model.config)
    if shape is None:
        raise SuiteError(f"this GGUF is of the architecture {model.config.model_type!r}; only Llama's is read in int8")
    model.generation_config.save_pretrained(target)
    weights = network_weights(model.state_dict(), shape, int8=True, inputs=inputs_of(model, watched_inputs(shape)))
    del model
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, target / WEIGHTS)
