"""all-MiniLM-L6-v2 by several engines: texts in, unit vectors out (mean pooling, as in its model card)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.peers.converted import encoder_for_onnx, for_ctranslate2, library
from benchmarks.quality import MINILM
from benchmarks.servers import weights
from shared.machine import usable_cores


class Encoder(Protocol):
    def facts(self) -> dict[str, Any]: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, shape (texts, dimensions)."""
        ...


class Timed:
    """What the worker calls."""

    def __init__(self, make: Callable[[], Encoder]) -> None:
        self.encoder = make()
        self.facts = self.encoder.facts

    def encode(self, texts: Sequence[str]) -> dict[str, Any]:
        begun = time.perf_counter()
        vectors = self.encoder.encode(texts)
        return {"seconds": time.perf_counter() - begun, "vectors": vectors.tolist()}


class Suite:
    def __init__(self) -> None:
        from benchmarks.peers.loans import Loans
        from shared.serving.lease import Lease

        self.loans = Loans(Lease.sentence_encoder, "feature-extraction")
        self.facts = self.loans.facts

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self.loans.engine.encode(texts)


class Transformers:
    def __init__(self) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(weights(MINILM))
        self.model: Any = AutoModel.from_pretrained(weights(MINILM), dtype=torch.float32).eval()

    def facts(self) -> dict[str, Any]:
        return {"engine": "fp32", "threads": usable_cores()}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            hidden = self.model(**batch).last_hidden_state
        return pooled(hidden.numpy(), batch["attention_mask"].numpy())


class Tokenized:
    """Ids and mask, for engines that read nothing else."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(Path(weights(MINILM)) / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encodings = self.tokenizer.encode_batch(list(texts))
        ids, masks = ([getattr(one, what) for one in encodings] for what in ("ids", "attention_mask"))
        return np.array(ids, np.int64), np.array(masks, np.int64)


class CTranslate2:
    def __init__(self, threads: int) -> None:
        ctranslate2 = library("ctranslate2")

        folder = for_ctranslate2("minilm", weights(MINILM))
        self.encoder = ctranslate2.Encoder(
            str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        self.tokenized, self.threads = Tokenized(), threads

    def facts(self) -> dict[str, Any]:
        return {"engine": "int8", "threads": self.threads}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        ids, mask = self.tokenized(texts)
        rows = [row[:length].tolist() for row, length in zip(ids, mask.sum(1), strict=True)]
        return pooled(np.array(self.encoder.forward_batch(rows).last_hidden_state), mask)


class OnnxRuntime:
    def __init__(self, threads: int) -> None:
        onnxruntime = library("onnxruntime")

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(encoder_for_onnx(weights(MINILM))), options, providers=["CPUExecutionProvider"]
        )
        self.tokenized, self.threads = Tokenized(), threads

    def facts(self) -> dict[str, Any]:
        return {"engine": "int8", "threads": self.threads}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        ids, mask = self.tokenized(texts)
        (hidden,) = self.session.run(["hidden"], {"ids": ids, "mask": mask})
        return pooled(np.asarray(hidden), mask)


def pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weights = mask[..., None].astype(np.float32)
    vectors = (hidden * weights).sum(1) / weights.sum(1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


MAKERS: dict[str, Callable[[], Encoder]] = {
    "the suite's engine": Suite,
    "transformers, fp32": Transformers,
    "CTranslate2, int8, 1 thread": lambda: CTranslate2(1),
    "CTranslate2, int8, 2 threads": lambda: CTranslate2(2),
    "ONNX Runtime, int8, 2 threads": lambda: OnnxRuntime(2),
}
CONTESTANTS = {name: partial(Timed, make) for name, make in MAKERS.items()}
