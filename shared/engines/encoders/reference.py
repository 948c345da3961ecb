"""The PyTorch engine for sentence encoders (BERT with mean pooling; Reimers & Gurevych 2019)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.length_batches import batches_by_length
from shared.engines.protocols import NoCache
from shared.events import Progress
from shared.settings import Settings

Window = tuple[int, ...]
"""Token ids, special tokens included."""


class KeptVectors:
    """Vectors of windows that come again, such as labels. Each visitor has their own, the newest ones; thread-safe.

    They are next to nothing: a megabyte of MiniLM's at most.
    """

    MOST = 512

    def __init__(self) -> None:
        self._vectors: OrderedDict[tuple[str, Window], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, owner: str, windows: Sequence[Window]) -> dict[Window, np.ndarray]:
        """The cached vectors, by those windows that have one."""
        with self._lock:
            return {window: self._vectors[owner, window] for window in windows if (owner, window) in self._vectors}

    def keep(self, owner: str, vectors: Mapping[Window, np.ndarray]) -> None:
        with self._lock:
            for window, vector in vectors.items():
                self._vectors[owner, window] = vector
                self._vectors.move_to_end((owner, window))
            while len(self._vectors) > self.MOST:
                self._vectors.popitem(last=False)


class SentenceWindows(NoCache):
    """Texts in, unit vectors out. Texts longer than the window are split, and their parts' vectors averaged."""

    dimensions: int

    def __init__(self, tokenizer: Any, max_tokens: int, pooler: dict[str, Any] | None = None) -> None:
        """`pooler` is what the checkpoint has of BERT's head by name: not for embeddings, but adapters build on it."""
        self.tokenizer = tokenizer
        self._special = tokenizer.num_special_tokens_to_add(False)
        self.max_tokens = max_tokens
        self.pooler = pooler or {}
        self._kept = KeptVectors()

    def vectors(self, windows: Sequence[Sequence[int]], compute: Compute = run_here) -> Sequence[np.ndarray]:
        """A unit vector of each window of token ids, special tokens included."""
        raise NotImplementedError

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        if not texts:
            return []
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def encode(self, texts: Sequence[str], compute: Compute = run_here, *, keep: bool = False) -> np.ndarray:
        """float32, shape (texts, dimensions), each row of length 1 (all zeros for a text without tokens).

        With `keep` the vectors are kept for the same visitor's next request, as labels come again with every text.
        """
        windows, owners = self._windows(texts)
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        # A text that comes twice is computed once.
        each = list(dict.fromkeys(map(tuple, windows)))
        found = self._kept.of(compute.owner, each)
        missing = [window for window in each if window not in found]
        if missing:
            found |= zip(missing, self.vectors(missing, compute), strict=True)
        if keep:
            self._kept.keep(compute.owner, found)
        for owner, window in zip(owners, windows, strict=True):
            # A long text's vector is the mean of its windows', each weighing as many tokens as it has.
            vectors[owner] += found[tuple(window)] * len(window)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=vectors, where=lengths > 0)

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids in pieces that fit the model, special tokens included, and the text each belongs to."""
        room = self.max_tokens - self._special
        windows, owners = [], []
        cls, sep = self.tokenizer.token_to_id("[CLS]"), self.tokenizer.token_to_id("[SEP]")
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False) if texts else []
        for owner, encoding in enumerate(encodings):
            for start in range(0, len(encoding.ids), room):
                windows.append([cls, *encoding.ids[start : start + room], sep])
                owners.append(owner)
        return windows, owners


class TorchSentenceEncoder(SentenceWindows):
    """The reference: transformers' own model, padded batches."""

    name = "torch-fp32"

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int, pooler: dict[str, Any] | None = None) -> None:
        super().__init__(tokenizer, max_tokens, pooler)
        self.model = model
        self.dimensions = model.config.hidden_size
        weights = [*model.parameters(), *self.pooler.values()]
        self.nbytes = sum(p.numel() * p.element_size() for p in weights)

    def vectors(self, windows: Sequence[Sequence[int]], compute: Compute = run_here) -> Sequence[np.ndarray]:
        rows = np.zeros((len(windows), self.dimensions), dtype=np.float32)
        for batch in batches_by_length([len(window) for window in windows]):
            rows[batch] = compute(lambda batch=batch: self._forward([windows[i] for i in batch]))
        return list(rows)

    def first_states(self, encodings: Sequence[Any], compute: Compute = run_here) -> Any:
        """The first token's last state of each encoding, float32 (encodings, width); for a head of an adapter's own."""
        import torch

        states = torch.zeros(len(encodings), self.dimensions)
        for batch in batches_by_length([len(encoding.ids) for encoding in encodings]):
            states[batch] = compute(lambda batch=batch: self._first([encodings[i] for i in batch]))
        return states

    def _first(self, encodings: Sequence[Any]) -> Any:
        import torch

        longest = max(len(encoding.ids) for encoding in encodings)
        ids, types, mask = torch.zeros((3, len(encodings), longest), dtype=torch.long)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length], types[row, :length] = torch.tensor(encoding.ids), torch.tensor(encoding.type_ids)
            mask[row, :length] = 1
        with torch.inference_mode():
            return self.model(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state[:, 0]

    def _forward(self, windows: Sequence[Sequence[int]]) -> np.ndarray:
        """Mean-pooled unit vectors, shape (windows, dimensions)."""
        import torch

        longest = max(map(len, windows))
        ids = torch.zeros((len(windows), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        with torch.inference_mode():
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
            return torch.nn.functional.normalize(pooled, dim=1).numpy()


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchSentenceEncoder:
    """Reads a verified folder with `model.safetensors`, `config.json` and `tokenizer.json`."""
    import torch
    from transformers import BertConfig, BertModel

    progress("reading weights", 0, checkpoint.parameters * 4)
    config = BertConfig.from_pretrained(folder, local_files_only=True)
    # The pooler is for next-sentence prediction; sentence embeddings do not use it.
    model = BertModel.from_pretrained(
        folder, config=config, dtype=torch.float32, add_pooling_layer=False, local_files_only=True
    )
    pooler = read_weights(folder, lambda name: name.startswith("pooler."))
    return TorchSentenceEncoder(model.eval(), read_tokenizer(folder), checkpoint.context_window, pooler)


def read_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_weights(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Any]:
    """The tensors whose names (as in `BertModel`) are wanted, float32: where the file has them so, mapped, not copied.

    What one call gives shares one mapping, which lasts as long as any of it.
    """
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        named = {key: key.removeprefix("bert.") for key in file.keys()}  # noqa: SIM118 - no mapping
        return {name: file.get_tensor(key).float() for key, name in named.items() if wanted(name)}
