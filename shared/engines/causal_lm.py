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

from shared.catalog import Checkpoint
from shared.conversion import converted
from shared.engines import Compute, GeneratedToken, Likelihood, Sampling, run_here
from shared.engines.beam import beam_search
from shared.engines.likelihood import label_likelihoods
from shared.engines.precision import cpu_has_bfloat16
from shared.events import Progress
from shared.sampling import adjusted
from shared.settings import Settings

PREFILL_TOKENS = 512
"""Prompt tokens of one step: bounds how long a Stop, or another visitor, waits for a long prompt."""


class TorchCausalLM:
    """A decoder-only transformer of `transformers`, one sequence at a time with a key-value cache."""

    def __init__(self, model: Any, tokenizer: Any, context_window: int) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self.context_window = context_window
        self.nbytes = sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())
        self.name = "torch-bf16" if model.dtype == torch.bfloat16 else "torch-fp32"
        eos = model.generation_config.eos_token_id
        self._eos = frozenset([eos] if isinstance(eos, int) else eos or [])

    # -- text and tokens -----------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def detokenize(self, ids: Sequence[int], *, special_tokens: bool = False) -> str:
        return self._tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=not special_tokens)

    def chat_prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return self.tokenize(text)

    # -- generation ----------------------------------------------------------------------------

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, compute: Compute = run_here
    ) -> Iterator[GeneratedToken]:
        from tokenizers.decoders import DecodeStream

        # Of this request alone, so that the same seed gives the same text whatever else is running.
        randomness = torch.Generator().manual_seed(sampling.seed)
        pieces = DecodeStream(skip_special_tokens=True)
        seen = list(prompt)
        logits, cache = self.prefill(prompt, compute)
        room = self.context_window - len(prompt)
        for position in range(min(sampling.max_new_tokens, room)):

            def draw(logits: torch.Tensor = logits) -> tuple[int, float]:
                scores = adjusted(logits, sampling, seen)
                if sampling.do_sample:
                    token = int(torch.multinomial(scores.softmax(0), 1, generator=randomness))
                else:
                    token = int(scores.argmax())
                return token, float(logits.softmax(0)[token])

            def step(last: bool = position + 1 == min(sampling.max_new_tokens, room)) -> tuple[int, float, Any]:
                with torch.inference_mode():
                    token, probability = draw()
                    if token in self._eos or last:
                        return token, probability, None
                    return token, probability, self.forward([[token]], cache)[0, -1]

            token, probability, following = compute(step)
            if token in self._eos:
                return
            seen.append(token)
            yield GeneratedToken(token, pieces.step(self._tokenizer.backend_tokenizer, token) or "", probability)
            logits = following

    def beam_search(
        self, prompt: Sequence[int], max_new_tokens: int, num_beams: int, compute: Compute = run_here
    ) -> list[int]:
        logits, cache = self.prefill(prompt, compute)

        def advance(tokens: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
            def step() -> torch.Tensor:
                with torch.inference_mode():
                    cache.reorder_cache(origin)
                    return self.forward(tokens[:, None], cache)[:, -1].log_softmax(-1)

            return compute(step)

        room = min(max_new_tokens, self.context_window - len(prompt))
        (best,) = beam_search(
            logits.log_softmax(-1)[None],
            advance,
            end_ids=sorted(self._eos),
            num_beams=num_beams,
            max_new_tokens=[room],
        )
        return [token for token in best.tokens if token not in self._eos]

    def next_token_logits(self, prompt: Sequence[int], compute: Compute = run_here) -> np.ndarray:
        return self.prefill(prompt, compute)[0].numpy()

    def label_likelihoods(
        self, prompts: Sequence[str], labels: Sequence[str], compute: Compute = run_here
    ) -> list[list[Likelihood]]:
        return label_likelihoods(self, [self.tokenize(p) for p in prompts], [self.tokenize(x) for x in labels], compute)

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
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * (2 if cpu_has_bfloat16() else 4)


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchCausalLM:
    """Reads the converted checkpoint, in bfloat16 where the processor has it and in float32 elsewhere."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ready = prepare(checkpoint, folder, settings, progress)
    progress("reading weights", 0, memory_bytes(checkpoint))
    # Always float32 here: for any other, from_pretrained changes torch's default dtype for the whole process while
    # it reads, and models that compute meanwhile come out wrong.
    model = AutoModelForCausalLM.from_pretrained(ready, dtype=torch.float32, local_files_only=True)
    if cpu_has_bfloat16():
        # Parameters alone: the rotary frequencies are a buffer and need their precision.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(ready, local_files_only=True)
    return TorchCausalLM(model.eval(), tokenizer, checkpoint.context_window)


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder of safetensors: the GGUF is dequantised once, since reading it takes ten times as long."""
    return converted(checkpoint, folder, settings, _gguf_to_safetensors, progress)


def _gguf_to_safetensors(source: Path, target: Path) -> None:
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
