"""Summaries of articles and dialogues: sentences chosen from the text, or a text written anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import InvalidInput
from shared.events import Done, Event, Partial, Running
from shared.media.text import Span, lines
from shared.media.text import sentences as split_sentences
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import Deterministic, Model, Text, row_of
from summarization.abstractive import Draft, Writer, chat_writer, parts, seq2seq_writer, shortened_to_fit, written
from summarization.extractive import choose


class Example(BaseModel):
    """A text with the summary it should get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text
    summary: Text


class Summarize(Deterministic):
    text: Text
    style: Literal["article", "dialogue"] = Field("article", description="A dialogue is read turn by turn.")
    max_new_tokens: int = Field(96, ge=8, le=512, description="Length of the summary at most, in tokens.")
    num_beams: int = Field(
        0,
        ge=0,
        le=8,
        description="1 writes greedily; more search for a likelier text, slower. 0: as the model prefers.",
    )
    model: Model = ""
    examples: tuple[Annotated[Example, row_of("text", "summary")], ...] = Field(
        (), max_length=16, description="Rows of a text and its summary, shown to the model first. None is zero-shot."
    )


EXTRACTIVE = "extractive: the sentences closest to the meaning of the whole, without repeating each other"
ABSTRACTIVE = "abstractive: written by the language model; check names and numbers against the source"


@dataclass
class Summary:
    """A summary, and where it comes from."""

    text: str
    method: str
    source: str
    parts: int = 1
    chosen: list[Span] = field(default_factory=list)
    """Sentences of the source that make up an extractive summary, in their order."""
    scores: list[tuple[Span, float]] = field(default_factory=list)
    """How central each sentence of the source is: cosine similarity to the whole, -1 to 1."""
    prompt: str = ""

    @property
    def compression(self) -> float:
        """Words of the summary per word of the source."""
        return len(self.text.split()) / max(len(self.source.split()), 1)

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)

    def row(self) -> dict[str, Any]:
        return {"summary": self.text}


def summarize(request: Summarize, context: Context) -> Iterator[Event]:
    """Shortens an article or a dialogue. A sentence encoder picks sentences, a language model writes new ones."""
    with (yield from context.borrow(request.model, "summarization")) as lease:
        yield from summary_events(request, lease)


def rows(requests: Sequence[Summarize], lease: Lease) -> Iterator[Summary]:
    """Many texts, one after another, on one loan."""
    for request in requests:
        for event in summary_events(request, lease):
            if isinstance(event, Done):
                yield event.result


def summary_events(request: Summarize, lease: Lease) -> Iterator[Event]:
    """Summarizes in the way that the kind of the checkpoint can. Raises `UnknownCheckpoint` for any other kind."""
    if lease.checkpoint.kind == "sentence-encoder":
        return extract(request, lease)
    writer = seq2seq_writer if lease.checkpoint.kind == "seq2seq" else chat_writer
    return abstract(request, writer(lease, request.style, request.examples), lease)


def extract(request: Summarize, lease: Lease) -> Iterator[Event]:
    """The most central sentences (or turns), as many as fit `max_new_tokens`, in their order."""
    if request.num_beams > 1:
        raise InvalidInput(
            f"{lease.checkpoint.id} picks sentences and has no beams; leave this at 1 or choose a language model",
            field="num_beams",
        )
    if request.examples:
        raise InvalidInput(
            f"{lease.checkpoint.id} picks sentences and learns from no examples; leave them out or choose a language "
            "model",
            field="examples",
        )
    pieces = lines(request.text) if request.style == "dialogue" else split_sentences(request.text)
    encoder = lease.sentence_encoder()
    chosen, scores = choose(pieces, request.max_new_tokens, encoder, lease)
    joint = "\n" if request.style == "dialogue" else " "
    result = Summary(
        joint.join(piece.text for piece in chosen),
        EXTRACTIVE,
        request.text,
        chosen=chosen,
        scores=list(zip(pieces, scores, strict=True)),
    )
    yield Done(result, lease.run_info(input_tokens=sum(encoder.count_tokens([request.text]))))


def abstract(request: Summarize, writer: Writer, lease: Lease) -> Iterator[Event]:
    """A summary in new words; of a long text part by part, and then of the parts' summaries together."""
    beams = request.num_beams or writer.num_beams
    pieces = parts(request.text, request.max_new_tokens, writer)
    result = Summary("", ABSTRACTIVE, request.text, parts=len(pieces))
    read = new = 0
    drafts: list[str] = []
    if len(pieces) > 1:
        for number, piece in enumerate(pieces, 1):
            yield Running(f"reading part {number} of {len(pieces)}", number - 1, len(pieces))
            prompt = writer.prompt(piece)
            draft = Draft()
            for draft in written(prompt, request.max_new_tokens, beams, writer):
                yield Partial(replace(result, text="\n".join([*drafts, draft.text])))
            drafts.append(draft.text)
            read, new = read + len(prompt), new + draft.tokens
        yield Running(f"joining {len(pieces)} parts", len(pieces), len(pieces))
        prompt = writer.prompt(shortened_to_fit(drafts, request.max_new_tokens, writer))
    else:
        prompt = writer.prompt(request.text)
    result.prompt = writer.model.detokenize(prompt, special_tokens=True)
    draft = Draft()
    for draft in written(prompt, request.max_new_tokens, beams, writer):
        result.text = draft.text
        yield Partial(result)
    yield Done(result, lease.run_info(input_tokens=read + len(prompt), new_tokens=new + draft.tokens))


LONGEST_REFERENCE = 2_000
"""Words of a reference summary; the longest common subsequence takes their number times the summary's."""


def rouge(summary: str, reference: str) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 of a summary against a reference (Lin 2004), 0 to 1.

    Raises `InvalidInput` for a reference of more than `LONGEST_REFERENCE` words.
    """
    words = len(reference.split())
    if words > LONGEST_REFERENCE or len(reference) > 20 * LONGEST_REFERENCE:
        raise InvalidInput(f"is {words:,} words long; at most {LONGEST_REFERENCE:,} are compared", field="reference")
    from rouge_score.rouge_scorer import RougeScorer

    found = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(reference, summary)
    return {name: score.fmeasure for name, score in found.items()}
