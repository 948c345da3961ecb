"""`adapter_config.json` as peft writes it: which settings can be computed here, and which are refused by name.

Read without peft, whose import takes seconds. Rules are those of peft 0.21 (`tuners_utils.check_target_module_exists`,
`lora/model.py`, `ia3/layer.py`).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import WeightsCorrupt

Method = Literal["LoRA", "IA3"]
METHODS: dict[str, Method] = {"LORA": "LoRA", "IA3": "IA3"}

TASK_TYPES = ("CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM")

CHANGES_THE_COMPUTATION = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
)
"""Fields of a LoRA that add something to the plain product of two matrices."""

LEAVES_THE_BASE_AS_IT_IS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights`; the others (PiSSA, OLoRA, LoftQ, CorDA…) take something off the base's weights."""

LONGEST_PATTERN = 300
MOST_REPEATS = 6
COSTLY = re.compile(r"\)[+*{]|[+*}][+*{]|\\[1-9]|\(\?[^:P]")
"""In a regular expression: repeated groups and the like, which can take for ever on a short name. An adapter may be
anybody's."""


@dataclass(frozen=True)
class PeftConfig:
    """How an adapter changes its base."""

    method: Method
    task_type: str
    base: str
    """As it was called where the adapter was trained: a repository's id, or a folder there."""
    rank: int = 0
    alpha: float = 0.0
    rank_stabilised: bool = False
    """Kalajdzievski 2023 (rsLoRA): divides by the root of the rank."""
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    target_modules: str | tuple[str, ...] = ()
    exclude_modules: str | tuple[str, ...] = ()
    feedforward_modules: str | tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    """Numbers of the layers it is in; none means all."""
    layers_pattern: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()

    def scaling(self, module: str, rank: int) -> float:
        """What the product of the two matrices is multiplied by in this module (Hu et al. 2021: alpha / rank)."""
        keys = (key for key in self.alpha_pattern if re.match(rf"(.*\.)?({key})$", module))
        alpha = self.alpha_pattern.get(next(keys, ""), self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def targets(self, module: str) -> bool:
        """Whether the adapter should have weights for this module. `all-linear` is written out by peft as it saves."""
        if _named(self.exclude_modules, module) or not _named(self.target_modules, module):
            return False
        if any(re.match(rf"(^|.*\.){re.escape(saved)}($|\..*)", module) for saved in self.modules_to_save):
            return False
        if isinstance(self.target_modules, str) or not self.layers or module in self.target_modules:
            return True
        patterns = [rf"(?:^|.*?\.){re.escape(name)}\.(\d+)\." for name in self.layers_pattern]
        found = next(filter(None, (re.match(p, module) for p in patterns or [r".*?\.[^.]*\.(\d+)\."])), None)
        return found is not None and int(found[1]) in self.layers

    def is_feedforward(self, module: str) -> bool:
        """Whether IA3 scales what goes into this module rather than what comes out."""
        return _named(self.feedforward_modules, module)


def _named(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return bool(re.fullmatch(names, module))
    return module in names or any(module.endswith(f".{name}") for name in names)


def parsed(content: bytes, name: str) -> PeftConfig:
    """The config of the adapter called `name` in errors. Raises `WeightsCorrupt` for what cannot be computed here."""
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WeightsCorrupt(
            f"adapter_config.json of {name} is damaged: it is not a JSON object; choose another adapter"
        )
    kind = found.get("peft_type")
    if kind not in METHODS:
        raise WeightsCorrupt(
            f"{name} was made by the method {str(kind)[:60]!r}, which is not computed here; those are LoRA and IA3"
        )
    task_type = found.get("task_type")
    if task_type is not None and task_type not in TASK_TYPES:
        raise WeightsCorrupt(f"{name} is for {str(task_type)[:60]!r}; read here are {', '.join(TASK_TYPES)}")
    if kind == "LORA":
        _refuse_what_is_not_plain(found, name)
    try:
        return PeftConfig(
            method=METHODS[kind],
            task_type=task_type or "",
            base=str(found.get("base_model_name_or_path") or "")[:500],
            rank=int(found.get("r") or 0),
            alpha=float(found.get("lora_alpha") or 0),
            rank_stabilised=bool(found.get("use_rslora")),
            alpha_pattern={_safe(key, name): float(value) for key, value in (found.get("alpha_pattern") or {}).items()},
            target_modules=_names(found.get("target_modules"), name),
            exclude_modules=_names(found.get("exclude_modules"), name),
            feedforward_modules=_names(found.get("feedforward_modules"), name),
            layers=_layers(found.get("layers_to_transform")),
            layers_pattern=_as_tuple(found.get("layers_pattern")),
            modules_to_save=_as_tuple(found.get("modules_to_save")),
        )
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise WeightsCorrupt(f"adapter_config.json of {name} holds values that make no sense ({error})") from None


def _refuse_what_is_not_plain(found: dict[str, Any], name: str) -> None:
    for option in CHANGES_THE_COMPUTATION:
        if found.get(option):
            raise WeightsCorrupt(f"{name} uses {option}, which is not computed here; plain LoRA is")
    if (bias := found.get("bias", "none")) != "none":
        raise WeightsCorrupt(f"{name} changes the base's biases (bias={str(bias)[:40]!r}), which is not computed here")
    start = found.get("init_lora_weights", True)
    if start not in LEAVES_THE_BASE_AS_IT_IS:
        raise WeightsCorrupt(
            f"{name} was begun with init_lora_weights={str(start)[:40]!r}, which changes the base's own weights, and "
            "those are shared here; have peft convert it to a plain LoRA (path_initial_model_for_weight_conversion)"
        )


def _names(value: Any, name: str) -> str | tuple[str, ...]:
    """Ends of module names, or a regular expression."""
    return _safe(value, name) if isinstance(value, str) else _as_tuple(value)


def _as_tuple(value: Any) -> tuple[str, ...]:
    return tuple(map(str, [value] if isinstance(value, str) else value or ()))


def _layers(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(map(int, value or ()))


def _safe(pattern: str, name: str) -> str:
    """The regular expression, unless it is broken or could take for ever."""
    if len(pattern) > LONGEST_PATTERN or COSTLY.search(pattern) or len(re.findall("[+*{]", pattern)) > MOST_REPEATS:
        raise WeightsCorrupt(f"adapter_config.json of {name} has a pattern that could take for ever: {pattern[:80]!r}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise WeightsCorrupt(f"adapter_config.json of {name} has a broken pattern: {error}") from None
    return pattern
