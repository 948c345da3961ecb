"""The fast engine for encoder-decoder models: texts of all visitors are batched token by token.

Its weights are as small as they were published. The reference engine loads the architectures that are not in
`architectures`, and every checkpoint where the compiler is missing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from shared.checkpoints.catalog import Checkpoint
from shared.engines.packed.converted import GENERATION, converted_folder, read_network, with_padding
from shared.engines.packed.kernel_choice import why_not
from shared.engines.pretrained.loading import WEIGHTS, load_pretrained, read_config
from shared.engines.seq2seq import reference
from shared.engines.seq2seq.rules import Rules
from shared.engines.seq2seq.tokenizer import read_tokenizer
from shared.engines.seq2seq.translating import Translating
from shared.events import Progress
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.engines.seq2seq.network import Seq2SeqNetwork

__all__ = ["load", "memory_bytes", "offered", "prepare", "published", "why_not"]


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: the reference engine loads the architectures that this one lacks."""
    return with_padding(reference.memory_bytes(checkpoint))


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Translating:
    """Reads a verified folder. Raises as the reference engine does."""
    if not offered(checkpoint, folder, settings):
        return reference.load(checkpoint, folder, settings, progress)
    from shared.engines.seq2seq.batched_engine import BatchedSeq2Seq

    tokenizer = read_tokenizer(checkpoint, folder)
    ready = converted_folder(checkpoint, folder, settings, progress, _in_blocks)
    progress("reading weights", 0, checkpoint.parameters)
    rules = _rules(checkpoint, ready)
    engine = BatchedSeq2Seq(_network(checkpoint, ready), tokenizer, rules, checkpoint)
    progress("compiling for this processor, once", 0, 0)
    engine.writer.warm_up(rules)
    return engine


def offered(checkpoint: Checkpoint, folder: Path, settings: Settings) -> bool:
    """Whether this engine runs the checkpoint."""
    if why_not(settings):
        return False
    from shared.engines.seq2seq.architectures import architecture_of

    return architecture_of(read_config(checkpoint, folder)) is not None


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder with the weights as this engine reads them, or as the reference does; kernels compiled for them."""
    if not offered(checkpoint, folder, settings):
        return folder
    load(checkpoint, folder, settings, progress)
    return converted_folder(checkpoint, folder, settings, progress, _in_blocks)


def published(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder with the weights as transformers reads them, for training."""
    return folder


def _network(checkpoint: Checkpoint, folder: Path) -> Seq2SeqNetwork:
    from shared.engines.seq2seq.architectures import architecture_of

    return read_network(architecture_of(read_config(checkpoint, folder)), folder, checkpoint.context_window)


def _rules(checkpoint: Checkpoint, folder: Path) -> Rules:
    from transformers import GenerationConfig

    said = json.loads((folder / GENERATION).read_text(encoding="utf-8"))
    return Rules(GenerationConfig.from_dict(said), read_config(checkpoint, folder))


def _in_blocks(checkpoint: Checkpoint, source: Path, target: Path, progress: Progress) -> None:
    """The weights as `kernels` reads them, with the two configurations; the tokenizer is read where it was."""
    from safetensors.torch import save_file

    from shared.engines.seq2seq.architectures import architecture_of

    model = load_pretrained("AutoModelForSeq2SeqLM", checkpoint, source, progress)
    found = architecture_of(model.config)
    assert found is not None, "offered"
    network, shape = found
    shutil.copyfile(source / "config.json", target / "config.json")
    # What transformers makes of a checkpoint that has none, and without the checks that refuse to write some.
    said = model.generation_config.to_dict()
    (target / GENERATION).write_text(json.dumps(said), encoding="utf-8")
    weights = network.pack(model.state_dict(), shape)
    del model
    save_file(weights, target / WEIGHTS)
