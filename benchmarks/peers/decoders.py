"""SmolLM2-135M-Instruct by several engines, all asked alike: so many greedy tokens after these prompts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks.peers.converted import decoder_for_onnx, for_ctranslate2, library
from benchmarks.quality import SMOLLM
from benchmarks.servers import float_weights, weights
from shared.machine import usable_cores

Rows = Sequence[Sequence[int]]


class Decoder(Protocol):
    def facts(self) -> dict[str, Any]:
        """`engine`, `threads`, and `stored`: bytes of weights that one token needs."""
        ...

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        """New token ids of each row; an engine that cannot go on after the end token gives fewer."""
        ...


class Timed:
    """What the worker calls."""

    def __init__(self, make: Callable[[], Decoder]) -> None:
        self.decoder = make()
        self.facts = self.decoder.facts

    def generate(self, prompts: Rows, new: int) -> dict[str, Any]:
        begun = time.perf_counter()
        tokens = self.decoder.write(prompts, new)
        return {"seconds": time.perf_counter() - begun, "tokens": tokens}


class Suite:
    """The suite's engine: a lone row directly, several as visitors who ask at once."""

    def __init__(self) -> None:
        from benchmarks.peers.loans import Loans
        from shared.serving.lease import Lease

        self.loans = Loans(Lease.causal_lm, "text-generation")
        self.facts = self.loans.facts

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        from shared.engines.protocols import Sampling

        sampling = Sampling(max_new_tokens=new)
        if len(prompts) == 1:
            return [[token.id for token in self.loans.engine.generate(prompts[0], sampling)]]
        return self.loans.each(
            lambda lease, prompt: [t.id for t in lease.causal_lm().generate(prompt, sampling, lease.compute)], prompts
        )


class Reference:
    """The suite's PyTorch reference, which decodes a row at a time."""

    def __init__(self, dtype: str) -> None:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the suite does, before torch is imported
        import torch
        from transformers import AutoTokenizer

        from shared.engines.decoders.reference import TorchCausalLM

        model = float_model()
        for parameter in model.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype))
        self.engine = TorchCausalLM(model, AutoTokenizer.from_pretrained(float_weights()), 8192)

    def facts(self) -> dict[str, Any]:
        return {"engine": self.engine.name, "threads": usable_cores(), "stored": self.engine.nbytes}

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        from shared.engines.protocols import Sampling

        return [[t.id for t in self.engine.generate(prompt, Sampling(max_new_tokens=new))] for prompt in prompts]


class Transformers:
    """`generate` as its documentation shows it, in float32."""

    def __init__(self) -> None:
        self.model = float_model()

    def facts(self) -> dict[str, Any]:
        stored = sum(p.numel() * p.element_size() for p in self.model.parameters())
        return {"engine": "fp32", "threads": usable_cores(), "stored": stored}

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        import torch

        ids = torch.tensor(prompts)
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
                min_new_tokens=new,
            )  # fmt: skip
        return out[:, ids.shape[1] :].tolist()


class CTranslate2:
    def __init__(self, threads: int) -> None:
        ctranslate2 = library("ctranslate2")
        from tokenizers import Tokenizer

        folder = for_ctranslate2("smollm2", float_weights())
        self.tokenizer = Tokenizer.from_file(str(Path(float_weights()) / "tokenizer.json"))
        self.generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        self.about = {"engine": "int8", "threads": threads, "stored": (folder / "model.bin").stat().st_size}

    def facts(self) -> dict[str, Any]:
        return self.about

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        rows = [[self.tokenizer.id_to_token(token) for token in prompt] for prompt in prompts]
        found = self.generator.generate_batch(
            rows, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False
        )
        return [list(one.sequences_ids[0]) for one in found]


class OnnxRuntime:
    """A loop of our own around one forward pass, the cache handed from output to input without a copy."""

    def __init__(self, threads: int) -> None:
        onnxruntime = library("onnxruntime")

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        file = decoder_for_onnx(float_weights())
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.pasts = {one.name: one.shape for one in self.session.get_inputs() if one.name.startswith("past")}
        # The table that looks tokens up and the one that scores them are two in this file; a token needs the second.
        self.about = {"engine": "int8", "threads": threads, "stored": file.stat().st_size - 49152 * 576}

    def facts(self) -> dict[str, Any]:
        return self.about

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        import numpy as np

        value_of = library("onnxruntime").OrtValue.ortvalue_from_numpy

        ids, read, rows = np.array(prompts, dtype=np.int64), 0, len(prompts)
        cache = {
            name: value_of(np.zeros((rows, shape[1], 0, shape[3]), np.float32)) for name, shape in self.pasts.items()
        }
        found: list[Any] = []
        while len(found) < new:
            width = ids.shape[1]
            positions = np.repeat(np.arange(read, read + width)[None], rows, 0)
            later = np.arange(read + width)[None] > np.arange(read, read + width)[:, None]
            mask = np.repeat(np.where(later, np.finfo(np.float32).min, 0).astype(np.float32)[None, None], rows, 0)
            feeds = {"ids": ids, "positions": positions, "mask": mask}
            values = {name: value_of(np.ascontiguousarray(a)) for name, a in feeds.items()}
            logits, *present = self.session.run_with_ort_values(self.outputs, values | cache)
            cache = dict(zip(self.pasts, present, strict=True))
            read += width
            found.append(logits.numpy().argmax(-1))
            ids = found[-1][:, None]
        return np.stack(found, 1).tolist()


class LlamaCpp:
    """The GGUF as it is published, by llama.cpp's server in this process; rows are its slots."""

    SLOTS = 8

    def __init__(self, threads: int) -> None:
        xllamacpp = library("xllamacpp")
        from tokenizers import Tokenizer

        gguf = next(Path(weights(SMOLLM)).glob("*.gguf"))
        asked = xllamacpp.CommonParams()
        asked.model.path = str(gguf)
        asked.n_parallel = self.SLOTS
        asked.n_ctx = 512 * self.SLOTS
        asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
        asked.n_gpu_layers = 0
        asked.cache_prompt = False
        self.server = xllamacpp.Server(asked)
        self.tokenizer = Tokenizer.from_file(str(Path(float_weights()) / "tokenizer.json"))
        self.pool = ThreadPoolExecutor(self.SLOTS)
        self.about = {"engine": "Q4_1", "threads": threads, "stored": gguf.stat().st_size}

    def facts(self) -> dict[str, Any]:
        return self.about

    def write(self, prompts: Rows, new: int) -> list[list[int]]:
        return list(self.pool.map(lambda prompt: self._one(list(prompt), new), prompts))

    def _one(self, prompt: list[int], new: int) -> list[int]:
        found = self.server.handle_completions(
            {"prompt": prompt, "n_predict": new, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        )
        if "choices" not in found:
            raise RuntimeError(f"llama.cpp answered {found}")
        # It gives text; its count of tokens is what it says, and the ids are for comparing.
        ids = self.tokenizer.encode(found["choices"][0]["text"], add_special_tokens=False).ids
        made = found["usage"]["completion_tokens"]
        return (ids + [0] * made)[:made]


def float_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(float_weights(), dtype=torch.float32).eval()


MAKERS: dict[str, Callable[[], Decoder]] = {
    "the suite's engine": Suite,
    "PyTorch reference, fp32": lambda: Reference("float32"),
    "PyTorch reference, bf16": lambda: Reference("bfloat16"),
    "transformers `generate`, fp32": Transformers,
    "CTranslate2, int8, 1 thread": lambda: CTranslate2(1),
    "CTranslate2, int8, 2 threads": lambda: CTranslate2(2),
    "ONNX Runtime, int8, 2 threads": lambda: OnnxRuntime(2),
    "llama.cpp, Q4_1, 1 thread": lambda: LlamaCpp(1),
    "llama.cpp, Q4_1, 2 threads": lambda: LlamaCpp(2),
}
CONTESTANTS = {name: partial(Timed, make) for name, make in MAKERS.items()}
