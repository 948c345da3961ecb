"""A checkpoint on loan to one request: its engine, the way to the compute lane, and what the request costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.catalog import Checkpoint, Pair
from shared.engines.compute import Kernel, all_of
from shared.engines.protocols import (
    AudioClassifier,
    CausalLM,
    Engine,
    MaskedLM,
    QuestionAnswerer,
    SentenceEncoder,
    Seq2SeqLM,
    SequenceClassifier,
    Translator,
)
from shared.errors import Cancelled, UnknownCheckpoint
from shared.events import RunInfo
from shared.scheduling.cache_entry import Borrowed
from shared.scheduling.lane import Lane, Timing

if TYPE_CHECKING:
    from shared.engines.adapters.adapted import Adapted

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")
E = TypeVar("E")


@dataclass(frozen=True)
class LaneCompute:
    """One request's way to the compute lane (`shared.engines.compute.Compute`)."""

    lane: Lane
    visitor: str
    cancel: threading.Event
    timing: Timing
    adapted: Adapted | None = None

    @property
    def owner(self) -> str:
        adapter = self.adapted.adapter if self.adapted else None
        return f"{self.visitor} {adapter.name}@{adapter.revision}" if adapter else self.visitor

    def __call__(self, step: Callable[[], T], /) -> T:
        if self.adapted is not None:
            step = self.adapted.active_during(step)
        return self.lane.run(self.visitor, step, self.cancel, self.timing)

    def submit(self, kernel: Kernel[P, R], item: P, /) -> Future[R]:
        around = self.adapted.active_during if self.adapted else None
        # Visitors with the same adapter share a batch, and visitors with none.
        group = (kernel, id(self.adapted.deltas) if self.adapted else None)
        return self.lane.submit(self.visitor, kernel, item, self.cancel, self.timing, group=group, around=around)

    def map(self, kernel: Kernel[P, R], items: Sequence[P], /) -> list[R]:
        return all_of([self.submit(kernel, item) for item in items])


@dataclass
class Lease:
    """A checkpoint on loan to one request, and what the request costs."""

    lane: Lane
    visitor: str
    cancel: threading.Event
    checkpoint: Checkpoint
    _borrowed: Borrowed
    _seconds_admission: float
    _seconds_loading: float
    _stack: ExitStack
    _adapted: Adapted | None = None
    pair: Pair = ("", "")
    """Source and target language of a translation; empty for any other task."""
    _timing: Timing = field(default_factory=Timing)

    @property
    def engine(self) -> Engine:
        """The engine as every kind has it. The methods below give what one kind of checkpoint can do."""
        return self._borrowed.engine if self._adapted is None else self._adapted.engine

    def engine_as(self, protocol: type[E], *kinds: str) -> E:
        """The engine of a checkpoint of these kinds, whose engines follow this Protocol.

        Raises `UnknownCheckpoint` (field `model`) for a checkpoint of another kind.
        """
        if self.checkpoint.kind not in kinds:
            raise UnknownCheckpoint(
                f"{self.checkpoint.id} is a {self.checkpoint.kind}, and this needs a {' or '.join(kinds)}; "
                "choose another model",
                field="model",
            )
        return cast(E, self.engine)

    def causal_lm(self) -> CausalLM:
        return self.engine_as(CausalLM, "causal-lm")

    def seq2seq(self) -> Seq2SeqLM:
        return self.engine_as(Seq2SeqLM, "seq2seq")

    def translator(self) -> Translator:
        return self.engine_as(Translator, "translator", "seq2seq")

    def sentence_encoder(self) -> SentenceEncoder:
        return self.engine_as(SentenceEncoder, "sentence-encoder")

    def sequence_classifier(self) -> SequenceClassifier:
        return self.engine_as(SequenceClassifier, "sequence-classifier")

    def masked_lm(self) -> MaskedLM:
        return self.engine_as(MaskedLM, "masked-lm")

    def question_answerer(self) -> QuestionAnswerer:
        return self.engine_as(QuestionAnswerer, "question-answerer")

    def audio_classifier(self) -> AudioClassifier:
        return self.engine_as(AudioClassifier, "audio-classifier")

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that this request uses on the checkpoint. Engines compute with it by themselves."""
        return self._adapted.adapter if self._adapted else None

    @property
    def compute(self) -> LaneCompute:
        """The `Compute` that engines are given."""
        return LaneCompute(self.lane, self.visitor, self.cancel, self._timing, self._adapted)

    def check(self) -> None:
        """Raises `Cancelled` when the visitor has gone."""
        if self.cancel.is_set():
            raise Cancelled

    def run_info(self, *, input_tokens: int = 0, new_tokens: int = 0, warning: str = "") -> RunInfo:
        """What this request cost so far."""
        running = self._timing.running
        return RunInfo(
            checkpoint=self.checkpoint.id,
            revision=self.checkpoint.revision,
            adapter=f"{self.adapter.name}@{self.adapter.revision}" if self.adapter else "",
            engine=f"{self.engine.name} + {self.adapter.method}" if self.adapter else self.engine.name,
            limits=self.checkpoint.limits,
            warning=warning,
            seconds_queued=round(self._seconds_admission + self._timing.queued, 4),
            seconds_loading=round(self._seconds_loading, 4),
            seconds_running=round(running, 4),
            input_tokens=input_tokens,
            new_tokens=new_tokens,
            tokens_per_second=round(new_tokens / running, 1) if new_tokens and running else None,
            loaded=self._borrowed.loaded,
        )

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
