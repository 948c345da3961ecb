"""The servers that are compared: the suite, and what it is compared with."""

from __future__ import annotations

from benchmarks.quality import MINILM, SMOLLM
from benchmarks.server import Server
from shared.checkpoints.catalog import Catalog
from shared.checkpoints.weights import verified_folder
from shared.engines.decoders import reference
from shared.settings import Settings

MARIAN = "firefox-translations-en-pt"


def suite(*arguments: str, warm: bool = False, **variables: str) -> Server:
    """The suite as a user starts it; without `warm` it computes nothing before it is asked."""
    return Server(["app.py", *arguments], SUITE_WARM_EXAMPLES=str(warm).lower(), SUITE_PROFILE="embedded", **variables)


def suite_with_noop() -> Server:
    return Server(["-m", "benchmarks.suite_with_noop"], SUITE_WARM_EXAMPLES="false", SUITE_PROFILE="embedded")


def trivial() -> Server:
    return Server(["-m", "benchmarks.peers.trivial"])


def naive() -> Server:
    """The naive peer, given the same weights from the same folders."""
    from classification.scoring import SIMILARITY_SCALE
    from summarization.abstractive import INSTRUCTION

    return Server(
        ["-m", "benchmarks.peers.naive", "--minilm", weights(MINILM), "--smollm", float_weights(), "--marian",
         weights(MARIAN), "--scale", str(SIMILARITY_SCALE), "--instruction", INSTRUCTION]
    )  # fmt: skip


def weights(checkpoint_id: str) -> str:
    """Folder of a checkpoint's files as they were fetched."""
    return str(verified_folder(Catalog.read().choose_by_id(checkpoint_id), Settings(), silent))


def float_weights() -> str:
    """Folder of SmolLM2's float32 safetensors, which transformers reads faster than the GGUF."""
    checkpoint, settings = Catalog.read().choose_by_id(SMOLLM), Settings()
    return str(reference.prepare(checkpoint, verified_folder(checkpoint, settings, silent), settings, silent))


def silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""
