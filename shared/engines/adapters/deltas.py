"""Adapters (LoRA, Hu et al. 2021; IA3, Liu et al. 2022) on a base that others use at the same time.

The base's weights are never changed. Each linear layer's `forward` is wrapped once, and applies the adapter that is
active in the calling thread; an adapter is active for the length of a step on the compute lane. So visitors with
different adapters, or with none, compute side by side on one copy of the weights. Outputs equal peft's (tested).
"""

from __future__ import annotations

import hashlib
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.nn import functional

from shared.checkpoints.adapter_folder import WEIGHTS, Adapter
from shared.engines.protocols import NoCache
from shared.errors import WeightsCorrupt
from shared.events import Progress

T = TypeVar("T")

PREFIX = "base_model.model."
"""What peft puts before every name."""
LORA = re.compile(r"(.+)\.lora_([AB])\.weight")
IA3 = re.compile(r"(.+)\.ia3_l")
UNREAD = re.compile(r"lora_embedding|lora_magnitude|\.lora_[AB]\.bias|prompt|vera_|oft_|hada_|lokr_")


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """Adds `scaling · B(A(x))`. float32 on whatever the base computes in, as peft does it."""

    a: torch.Tensor
    """(rank, in)."""
    b: torch.Tensor
    """(out, rank)."""
    scaling: float

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the layer it is for."""
        return self.b.shape[0], self.a.shape[1]

    def __call__(self, forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        result = forward(x)
        low = functional.linear(functional.linear(x.to(self.a.dtype), self.a), self.b)
        return (result + low * self.scaling).to(result.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Multiplies what comes out of a layer by a learned vector, or what goes into a feed-forward one."""

    vector: torch.Tensor
    """(in,) or (out,)."""
    inputs: bool

    def __call__(self, forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        if self.inputs:
            return forward((x * self.vector).to(x.dtype))
        result = forward(x)
        return (result * self.vector).to(result.dtype)


Delta = LowRank | Scale
Deltas = Mapping[str, Delta]
"""By the name of the base's module."""


# -- the active adapter ------------------------------------------------------------------------------


class _Active(threading.local):
    deltas: Deltas | None = None


_active = _Active()


def active() -> Deltas | None:
    """The adapter that is active in this thread; None for the base alone."""
    return _active.deltas


def activate(deltas: Deltas | None) -> None:
    """Sets the adapter of this thread."""
    _active.deltas = deltas


class _Hook:
    """Replaces a linear layer's `forward`. Refers to the layer weakly, or an evicted base would stay in memory."""

    __slots__ = ("_name", "_plain")

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        self._name = name
        self._plain = weakref.WeakMethod(layer.forward)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        plain: Any = self._plain()
        deltas = _active.deltas
        delta = None if deltas is None else deltas.get(self._name)
        return plain(x) if delta is None else delta(plain, x)


class Layers(Protocol):
    """An engine's linear layers by their published names, as adapters name them."""

    prefix: str
    """Prefix of published names, in checkpoints that have a head beside the network."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """(out, in) of each."""
        ...

    def install_hooks(self) -> None:
        """Wraps each layer's `forward`, so that it applies the adapter that is active in the calling thread."""
        ...


class ModuleLayers:
    """The layers of a PyTorch model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.prefix = f"{model.base_model_prefix}."
        named = model.named_modules()
        self.shapes = {name: shape for name, layer in named if (shape := shape_of(layer)) is not None}

    def install_hooks(self) -> None:
        install_hooks(self._model)


def install_hooks(model: torch.nn.Module) -> None:
    """Wraps each linear layer's `forward`, so that it applies the adapter that is active in the calling thread.

    Each change is one assignment, so others may be computing meanwhile.
    """
    for name, layer in model.named_modules():
        if shape_of(layer) is not None and not isinstance(layer.forward, _Hook):
            layer.forward = _Hook(name, layer)


def shape_of(layer: torch.nn.Module) -> tuple[int, int] | None:
    """(out, in) of a linear layer, None for any other. GPT-2's is written as a convolution, transposed."""
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features, layer.in_features
    if type(layer).__name__ == "Conv1D":
        weight: Any = layer.weight
        return weight.shape[1], weight.shape[0]
    return None


@dataclass(eq=False)
class AdapterWeights(NoCache):
    """An adapter in the model cache: its own few megabytes, without the base."""

    adapter: Adapter
    deltas: dict[str, Delta]
    """By peft's module names."""
    saved: dict[str, torch.Tensor]
    """Weights of modules that were trained in full, such as `classifier.weight`."""
    nbytes: int
    name: str
    _fitted: weakref.WeakKeyDictionary[Any, dict[str, Delta]] = field(default_factory=weakref.WeakKeyDictionary)

    def fitted_to(self, base: Any, base_id: str) -> dict[str, Delta]:
        """The deltas by the base's module names; those for a head that the base lacks, by the adapter's names.

        Installs hooks on the base's layers. Raises `WeightsCorrupt` where they do not fit this base.
        """
        fitted = self._fitted.get(base)
        if fitted is None:
            layers = base.adaptable() if hasattr(base, "adaptable") else ModuleLayers(base.model)
            fitted = self._matched(layers, base_id)
            layers.install_hooks()
            self._fitted[base] = fitted
        return fitted

    def _matched(self, base: Layers, base_id: str) -> dict[str, Delta]:
        layers = base.shapes
        # A classifier's names of the encoder have a prefix (`bert.`), which a base that is the encoder alone lacks.
        part = base.prefix
        inside = "" if any(name in layers for name in self.deltas) else part
        matched: dict[str, Delta] = {}
        for name, delta in self.deltas.items():
            own = name.removeprefix(inside)
            if own not in layers:
                if self.adapter.classifies and own.startswith(HEADS):
                    matched[own] = delta
                    continue
                raise self._misfit(base_id, f"that has no linear layer {name}")
            expected, found = _wanted(delta), layers[own]
            if any(w is not None and w != t for w, t in zip(expected, found, strict=True)):
                said = " by ".join(str(w if w is not None else "any") for w in expected)
                raise self._misfit(
                    base_id, f"its {name} is for a layer of {said}, and there it is {found[0]} by {found[1]}"
                )
            matched[own] = delta
        config = self.adapter.config
        missing = [name for name in layers if config.targets(f"{inside}{name}") and name not in matched]
        if missing:
            raise WeightsCorrupt(
                f"{self.adapter.name} is not whole: its configuration names {missing[0]}, which {WEIGHTS} lacks"
            )
        return matched

    def _misfit(self, base_id: str, why: str) -> WeightsCorrupt:
        stated = f" (it says {self.adapter.config.base!r})" if self.adapter.config.base else ""
        return WeightsCorrupt(
            f"the adapter {self.adapter.name} was made for another base than {base_id}{stated}: {why}. Name the base "
            "it was trained on",
            field="model",
        )


HEADS = ("pooler.", "classifier", "score")
"""Modules between a classifier's encoder and its labels."""


def _wanted(delta: Delta) -> tuple[int | None, int | None]:
    """(out, in) of the layer it fits; None for a size that may be any."""
    if isinstance(delta, LowRank):
        return delta.shape
    return (None, len(delta.vector)) if delta.inputs else (len(delta.vector), None)


# -- loading -----------------------------------------------------------------------------------------


def memory_bytes(adapter: Any) -> int:
    """Bytes of weights in memory, at most."""
    return adapter.memory if isinstance(adapter, Adapter) else adapter.parameters * 4  # of one that is not on disk yet


def load(adapter: Adapter, folder: Path, progress: Progress) -> AdapterWeights:
    """Reads an adapter's folder. Raises `WeightsCorrupt` for weights that changed since it was listed or do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load as tensors_in

    progress("reading weights", 0, adapter.nbytes)
    try:
        content = (folder / WEIGHTS).read_bytes()  # a copy: the file may be replaced while the adapter is in use
        stored = tensors_in(content)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsCorrupt(
            f"{WEIGHTS} of {adapter.name} cannot be read ({str(error)[:100]}); bring it anew"
        ) from None
    if hashlib.sha256(content).hexdigest() != adapter.digest:
        raise WeightsCorrupt(f"{WEIGHTS} of {adapter.name} was changed just now; ask again")
    # As peft does: half precision is widened, since the adapter's own part costs next to nothing.
    tensors = {
        key.removeprefix(PREFIX): value.float() if value.is_floating_point() else value for key, value in stored.items()
    }
    for key, value in tensors.items():
        if UNREAD.search(key) or not torch.isfinite(value).all():
            why = "is not plain LoRA or IA3" if UNREAD.search(key) else "holds values that are no numbers"
            raise WeightsCorrupt(f"{adapter.name} cannot be used: its {key[:100]} {why}")
    deltas, saved = _taken_apart(adapter, tensors)
    if saved and not adapter.classifies:
        raise WeightsCorrupt(
            f"{adapter.name} replaces whole layers of its base ({next(iter(saved))[:100]}), which is not done here; "
            "train it without modules_to_save, embeddings and the output matrix"
        )
    nbytes = sum(value.numel() * value.element_size() for value in tensors.values())
    return AdapterWeights(adapter, deltas, saved, nbytes, adapter.method)


def _taken_apart(
    adapter: Adapter, tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Delta], dict[str, torch.Tensor]]:
    deltas: dict[str, Delta] = {}
    saved: dict[str, torch.Tensor] = {}
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if found := LORA.fullmatch(key):
            pairs.setdefault(found[1], {})[found[2]] = value
        elif found := IA3.fullmatch(key):
            deltas[found[1]] = Scale(value.flatten(), inputs=adapter.config.is_feedforward(found[1]))
        else:
            saved[key] = value
    for module, pair in pairs.items():
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or a.dim() != 2 or b.dim() != 2 or not a.shape[0] or a.shape[0] != b.shape[1]:
            raise WeightsCorrupt(
                f"{adapter.name} is damaged: the two matrices of its {module[:100]} do not belong together"
            )
        deltas[module] = LowRank(a, b, adapter.config.scaling(module, a.shape[0]))
    if not deltas:
        raise WeightsCorrupt(f"{adapter.name} holds no LoRA or IA3 weights, so it changes nothing")
    return deltas, saved
