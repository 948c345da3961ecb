"""Checkpoints in Hugging Face's folder format: the one way engines read them, and what they refuse.

transformers is lenient where a demo must not be: weights that a file lacks are drawn at random, a tokenizer whose
files are missing comes out with a handful of tokens, and code that a folder brings along is offered to be run. Here
each of these is an error that says what is wrong.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from shared.checkpoints import kinds
from shared.checkpoints.catalog import Checkpoint
from shared.checkpoints.repository import refuse_unknown_architecture
from shared.errors import SuiteError, WeightsCorrupt
from shared.events import Progress

log = logging.getLogger(__name__)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"

WAY_OUT = "tell its owner, or choose another checkpoint"
"""The files were compared with what their source states before, so another copy would be the same."""

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Never a network, never code from a checkpoint: left unsaid, transformers asks on the console whether to run it."""


def load_pretrained(auto_class: str, checkpoint: Checkpoint, folder: Path, progress: Progress) -> Any:
    """The model in a verified folder, in float32 and ready to compute; `auto_class` is that of a kind in
    `kinds.py`.

    Raises `WeightsCorrupt` where a file is missing, damaged or lacks weights that the model needs, `SuiteError` where
    the installed transformers does not know the architecture or has no such head for it.
    """
    import torch
    import transformers

    purpose = kinds.purpose_of(auto_class)
    config = read_config(checkpoint, folder)
    auto = getattr(transformers, auto_class)
    if type(config) not in auto._model_mapping:
        raise SuiteError(
            f"{checkpoint.id} is of the architecture {config.model_type!r}, for which transformers "
            f"{transformers.__version__} has no model for {purpose}; choose another checkpoint"
        )
    _refuse_missing_weights(checkpoint, folder)
    progress("reading weights", 0, checkpoint.parameters * 4)
    try:
        # Always float32 here: for any other, from_pretrained changes torch's default dtype for the whole process while
        # it reads, and models that compute meanwhile come out wrong.
        model, found = auto.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    except Exception as error:
        log.warning("transformers cannot read the weights of %s: %s", checkpoint.id, error)
        raise WeightsCorrupt(
            f"the weights of {checkpoint.id} do not fit its config.json, or are damaged or cut short; they were not "
            "loaded. Tell its owner, or choose another checkpoint"
        ) from error
    _refuse_untrained_weights(checkpoint, model, found, purpose)
    return model.eval()


def read_config(checkpoint: Checkpoint, folder: Path) -> Any:
    """The model's configuration. Raises as `load_pretrained` does."""
    import transformers

    refuse_unknown_architecture(checkpoint.id, _read_json(checkpoint, folder, "config.json").get("model_type"))
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        # A config may name a repository of compute kernels, which transformers fetches and runs where it can.
        config._attn_implementation = None
        return config
    except Exception as error:
        log.warning("transformers cannot read config.json of %s: %s", checkpoint.id, error)
        raise WeightsCorrupt(
            f"config.json of {checkpoint.id} holds values that its architecture does not allow; {WAY_OUT}"
        ) from error


def load_text_model(auto: str, checkpoint: Checkpoint, folder: Path, progress: Progress) -> tuple[Any, Any, int]:
    """Model, tokenizer and longest input in tokens, of a model that reads texts in padded batches.

    Reads a verified folder with safetensors, `config.json` and a tokenizer. Raises as `load_pretrained` does, and
    `SuiteError` where the tokenizer has no padding token.
    """
    model = load_pretrained(auto, checkpoint, folder, progress)
    tokenizer = load_tokenizer(checkpoint, folder, model)
    if tokenizer.pad_token_id is None:
        raise SuiteError(f"{checkpoint.id} has no padding token, so texts cannot be read in batches; choose another")
    return model, tokenizer, input_window(checkpoint, model)


def load_tokenizer(checkpoint: Checkpoint, folder: Path, model: Any) -> Any:
    """The fast tokenizer of a model. Raises as `tokenizer_for` does."""
    return tokenizer_for(checkpoint, folder, model.config, model.get_input_embeddings().num_embeddings)


def tokenizer_for(checkpoint: Checkpoint, folder: Path, config: Any, known: int) -> Any:
    """The checkpoint's fast tokenizer, without truncation and padding. `known`: tokens that the weights know.

    Raises `WeightsCorrupt` where its files are missing or belong to another model, `SuiteError` where it has no fast
    form.
    """
    import transformers
    from tokenizers import Tokenizer

    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, config=config, **LOCAL)
        if (folder / TOKENIZER).is_file():
            # For a tokenizer of a class it knows, transformers 5 takes no more than the vocabulary from this file: a
            # Llama that names GPT2Tokenizer would no longer split numbers into digits, as it was trained to.
            own = Tokenizer.from_file(str(folder / TOKENIZER))
            added = (token for _, token in sorted(tokenizer.added_tokens_decoder.items()))
            own.add_tokens([token for token in added if own.token_to_id(token.content) is None])
            tokenizer._tokenizer = own
    except Exception as error:
        log.warning("transformers cannot read the tokenizer of %s: %s", checkpoint.id, error)
        raise WeightsCorrupt(
            f"the tokenizer of {checkpoint.id} is missing or damaged ({TOKENIZER}, or the vocabulary of its kind); "
            + WAY_OUT
        ) from error
    # Without a vocabulary file transformers makes a tokenizer that knows its special tokens and nothing else.
    needed = [name for key, name in tokenizer.vocab_files_names.items() if key in ("vocab_file", "merges_file")]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing and not (folder / TOKENIZER).is_file():
        raise WeightsCorrupt(
            f"the folder of {checkpoint.id} holds no tokenizer: neither {TOKENIZER} nor {' and '.join(missing)}; "
            + WAY_OUT
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise SuiteError(f"the tokenizer of {checkpoint.id} has no fast form, which this suite needs; choose another")
    if max(tokenizer.get_vocab().values(), default=-1) >= known:
        raise WeightsCorrupt(
            f"the tokenizer of {checkpoint.id} has more tokens than the {known:,} that its weights know: they do not "
            "belong together"
        )
    # Once and for all: two threads that set them at each call, as transformers does, fail with "Already borrowed".
    backend.no_truncation()
    backend.no_padding()
    return tokenizer


def labels_of(checkpoint: Checkpoint, config: Any) -> tuple[str, ...]:
    """The names of a classifier's labels, in the order of its logits. Raises `WeightsCorrupt` where one has no name."""
    try:
        return tuple(str(config.id2label[i]) for i in range(config.num_labels))
    except KeyError as error:
        raise WeightsCorrupt(
            f"config.json of {checkpoint.id} names {len(config.id2label)} labels, but none for number {error}"
        ) from None


def input_window(checkpoint: Checkpoint, model: Any) -> int:
    """Tokens of one input, special tokens included: the catalog's context window, within the positions that exist."""
    positions = getattr(model.config, "max_position_embeddings", None) or checkpoint.context_window
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from after the padding token's, so 514 positions are for 512 tokens.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = min(positions, module.num_embeddings) - module.padding_idx - 1
            break
    return min(checkpoint.context_window, positions)


def nbytes_of(model: Any) -> int:
    """Bytes of a model's parameters; those that two layers share count once."""
    return sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())


# -- what is refused -------------------------------------------------------------------------------


def _refuse_missing_weights(checkpoint: Checkpoint, folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    if (folder / INDEX).is_file():
        shards = _read_json(checkpoint, folder, INDEX).get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing or not names:
            raise WeightsCorrupt(
                f"the weights of {checkpoint.id} are incomplete: of {len(names)} files {len(missing)} are missing"
                f"{f' ({_first(missing)})' if missing else ''}; {WAY_OUT}"
            )
        return
    if next(folder.glob("*.bin"), None):
        raise WeightsCorrupt(
            f"the weights of {checkpoint.id} come as a pickle (.bin), which can run code while it is read; only "
            f"{WEIGHTS} is loaded. Choose a revision that has it"
        )
    raise WeightsCorrupt(f"the folder of {checkpoint.id} holds no {WEIGHTS}; {WAY_OUT}")


def _refuse_untrained_weights(checkpoint: Checkpoint, model: Any, found: dict[str, Any], head: str) -> None:
    """Weights that the file lacks were drawn at random just now, and what they say would be noise."""
    missing = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if not missing and not found["error_msgs"]:
        return
    of_head = [name for name in missing if not name.startswith(f"{model.base_model_prefix}.")]
    if of_head:
        raise WeightsCorrupt(
            f"{checkpoint.id} was not trained for {head}: its weights lack {_first(of_head)}. It must be fine-tuned "
            "first, or choose a checkpoint that was"
        )
    raise WeightsCorrupt(f"the weights of {checkpoint.id} are incomplete: they lack {_first(missing)}; {WAY_OUT}")


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _read_json(checkpoint: Checkpoint, folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsCorrupt(f"the folder of {checkpoint.id} holds no {name}; {WAY_OUT}") from None
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise WeightsCorrupt(f"{name} of {checkpoint.id} is damaged: it is not a JSON object; {WAY_OUT}")
    return content
