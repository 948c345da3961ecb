"""Checkpoints in the forms that other engines read: made once, and kept in the suite's cache folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from shared.atomic import atomic_folder
from shared.settings import Settings


def library(name: str) -> Any:
    """A peer's library: none of the suite's own packages, so it may be missing. Raises `ModuleNotFoundError`."""
    return import_module(name)


def made_once(name: str, package: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` for this version of the package; `make(folder)` fills it where it is missing."""
    home = Settings().cache_dir / "benchmarks"
    home.mkdir(parents=True, exist_ok=True)
    final = home / f"{name}@{package}-{version(package)}"
    with FileLock(f"{final}.lock"):
        if not final.is_dir():
            with atomic_folder(final) as part:
                make(part)
    return final


def for_ctranslate2(name: str, source: str) -> Path:
    """int8 weights for CTranslate2, by its own converter."""
    converter = library("ctranslate2.converters").TransformersConverter

    def make(folder: Path) -> None:
        converter(source).convert(str(folder), quantization="int8", force=True)

    return made_once(f"{name}-int8", "ctranslate2", make)


def encoder_for_onnx(source: str) -> Path:
    """MiniLM as an ONNX file with dynamically quantised int8 weights. Inputs `ids` and `mask`, output `hidden`."""
    import torch
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = AutoModel.from_pretrained(source, attn_implementation="eager").eval()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            # A mask of four dimensions is taken as it is; making one does not survive tracing.
            bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            positions = torch.arange(ids.shape[1])[None]
            kinds = torch.zeros_like(ids)
            out = self.model(input_ids=ids, attention_mask=bias, position_ids=positions, token_type_ids=kinds)
            return out.last_hidden_state

    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {name: {0: "rows", 1: "tokens"} for name in ("ids", "mask", "hidden")}
    return _exported("minilm-int8", Encoder(), (ids, torch.ones_like(ids)), ["ids", "mask"], ["hidden"], axes)


def decoder_for_onnx(source: str) -> Path:
    """SmolLM2 as an ONNX file with dynamically quantised int8 weights and its key-value cache as inputs and outputs.

    `ids` and `positions` (rows, new), `mask` (rows, 1, new, past + new) added to the scores, `past.N` (rows, heads,
    past, size) → `logits` of the last position and `present.N`.
    """
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = AutoModelForCausalLM.from_pretrained(
                source, attn_implementation="eager", dtype=torch.float32
            ).eval()

        def forward(self, ids: Any, positions: Any, mask: Any, *past: Any) -> tuple[Any, ...]:
            cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
            out = self.model(
                input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            present = [tensor for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values)]
            return (out.logits[:, -1], *present)

    decoder = Decoder()
    config = decoder.model.config
    tensors, heads = 2 * config.num_hidden_layers, config.num_key_value_heads
    past, new = 5, 3
    positions = torch.arange(past, past + new)[None].expand(2, -1)
    mask = torch.zeros(2, 1, new, past + new)
    sample = (
        torch.ones(2, new, dtype=torch.long), positions, mask,
        *(torch.zeros(2, heads, past, config.head_dim) for _ in range(tensors)),
    )  # fmt: skip
    pasts, presents = [f"past.{n}" for n in range(tensors)], [f"present.{n}" for n in range(tensors)]
    axes: dict[str, dict[int, str]] = {name: {0: "rows", 1: "new"} for name in ("ids", "positions")}
    axes |= {"mask": {0: "rows", 2: "new", 3: "all"}, "logits": {0: "rows"}}
    axes |= {name: {0: "rows", 2: "past"} for name in pasts} | {name: {0: "rows", 2: "all"} for name in presents}
    return _exported("smollm2-int8", decoder, sample, ["ids", "positions", "mask", *pasts], ["logits", *presents], axes)


def _exported(
    name: str, module: Any, sample: tuple[Any, ...], inputs: list[str], outputs: list[str], axes: dict[str, Any]
) -> Path:
    import torch

    quantization = library("onnxruntime.quantization")

    def make(folder: Path) -> None:
        whole = folder / "float32.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
            torch.onnx.export(
                module, sample, str(whole), dynamo=False, input_names=inputs, output_names=outputs, dynamic_axes=axes
            )
        quantization.quantize_dynamic(
            whole, folder / "model.onnx", weight_type=quantization.QuantType.QInt8, per_channel=True
        )
        whole.unlink()

    return made_once(name, "onnxruntime", make) / "model.onnx"
