"""The fast engine for causal language models: requests are batched token by token.

Its weights are as small as they were published. The reference engine loads the architectures that are not in
`architectures`, and every checkpoint where the compiler is missing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from shared.checkpoints.catalog import Checkpoint
from shared.engines.decoders import reference
from shared.engines.decoders.causal_text import CausalText
from shared.engines.packed.converted import GENERATION, converted_folder, read_network, with_padding
from shared.engines.packed.kernel_choice import why_not
from shared.engines.pretrained.loading import WEIGHTS, load_pretrained, read_config, tokenizer_for
from shared.errors import SuiteError
from shared.events import Progress
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.engines.decoders.network import DecoderNetwork

__all__ = ["load", "memory_bytes", "offered", "prepare", "published", "why_not"]


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: the reference engine loads the architectures that this one lacks."""
    return with_padding(reference.memory_bytes(checkpoint))


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> CausalText:
    """Reads a verified folder. Raises as the reference engine does."""
    if not offered(checkpoint, folder, settings):
        return reference.load(checkpoint, folder, settings, progress)
    from shared.engines.decoders.batched_engine import BatchedCausalLM

    ready = converted_folder(checkpoint, folder, settings, progress, _in_blocks)
    progress("reading weights", 0, checkpoint.parameters)
    network = _network(checkpoint, ready)
    config = read_config(checkpoint, ready)
    tokenizer = tokenizer_for(checkpoint, ready, config, network.shape.vocabulary)
    if checkpoint.chat_template and not tokenizer.chat_template:
        tokenizer.chat_template = checkpoint.chat_template
    ends = json.loads((ready / GENERATION).read_text(encoding="utf-8")).get("eos_token_id")
    engine = BatchedCausalLM(
        network,
        tokenizer,
        min(checkpoint.context_window, network.shape.positions),
        [ends] if isinstance(ends, int) else ends or [],
        checkpoint_id=checkpoint.id,
        system_prompt=checkpoint.system_prompt,
    )
    progress("compiling for this processor, once", 0, 0)
    engine.decoder.warm_up()
    return engine


def offered(checkpoint: Checkpoint, folder: Path, settings: Settings) -> bool:
    """Whether this engine runs the checkpoint."""
    if why_not(settings):
        return False
    if next(folder.glob("*.gguf"), None):
        return True  # the conversion finds out its architecture
    from shared.engines.decoders.architectures import architecture_of

    return architecture_of(read_config(checkpoint, folder)) is not None


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder with the weights as this engine reads them, or as the reference does; kernels compiled for them."""
    if not offered(checkpoint, folder, settings):
        return reference.prepare(checkpoint, folder, settings, progress)
    from shared.engines.decoders.decoding import Decoder

    ready = converted_folder(checkpoint, folder, settings, progress, _in_blocks)
    progress("compiling for this processor, once", 0, 0)
    Decoder(_network(checkpoint, ready)).warm_up()
    return ready


def published(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder with the weights as transformers reads them, for training."""
    return reference.prepare(checkpoint, folder, settings, progress)


def _network(checkpoint: Checkpoint, folder: Path) -> DecoderNetwork:
    from shared.engines.decoders.architectures import architecture_of

    return read_network(architecture_of(read_config(checkpoint, folder)), folder)


def _in_blocks(checkpoint: Checkpoint, source: Path, target: Path, progress: Progress) -> None:
    """The weights as `kernels` reads them, with everything else that a checkpoint's folder has."""
    from safetensors.torch import save_file

    from shared.engines.decoders.architectures import architecture_of

    if next(source.glob("*.gguf"), None):
        reference.gguf_to_safetensors(source, target)
    else:
        for file in source.iterdir():
            if file.is_file() and file.suffix in (".json", ".txt", ".jinja", ".model"):
                shutil.copyfile(file, target / file.name)
    read = target if (target / WEIGHTS).exists() else source
    model = load_pretrained("AutoModelForCausalLM", checkpoint, read, progress)
    found = architecture_of(model.config)
    if found is None:
        raise SuiteError(f"this GGUF is of an architecture ({model.config.model_type!r}) that is not computed here")
    network, shape = found
    model.generation_config.save_pretrained(target)
    weights = network.pack(model.state_dict(), shape)
    del model
    save_file(weights, target / WEIGHTS)
