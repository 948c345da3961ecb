"""Translation, sentence by sentence, with paragraphs kept and the alignment shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from shared.context import Context, Lease
from shared.errors import UnknownCheckpoint
from shared.events import Done, Event, Partial, Running
from shared.requests import Model, Request, Text
from shared.text import Span, detect_language, language_name, sentences

SENTENCES_PER_STEP = 16
"""So that a long text shows progress."""

SURE = 0.6
"""Probability from which a detected language is worth a warning; short texts stay below it."""


def lower(code: str) -> str:
    return code.strip().lower()


Language = Annotated[str, AfterValidator(lower)]


class Translate(Request):
    text: Text
    src_lang: Language = Field("en", description="Language of the text, ISO 639-1.")
    tgt_lang: Language = Field("pt", description="Language to translate into, ISO 639-1.")
    num_beams: int = Field(1, ge=1, le=8, description="1 is greedy; more search for a likelier sentence, slower.")
    model: Model = ""

    @field_validator("tgt_lang")
    @classmethod
    def _another_language(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("src_lang"):
            raise ValueError(f"is {value!r}, and so is src_lang; choose two languages")
        return value


@dataclass(frozen=True, slots=True)
class Aligned:
    """A sentence of the source, its translation, and the log-probability per token (natural log)."""

    source: Span
    target: str
    log_probability: float


@dataclass
class Translation:
    text: str
    alignment: list[Aligned]
    warning: str = ""
    """Says so when the text is not in the source language."""

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)

    def row(self) -> dict[str, Any]:
        return {"translation": self.text}


def translate(request: Translate, context: Context) -> Iterator[Event]:
    """Translates a text. RunInfo warns when it is not in the language it is said to be in."""
    with (yield from borrow(request, context)) as lease:
        warning = wrong_language(request)
        spans = sentences(request.text, request.src_lang)
        aligned: list[Aligned] = []
        read = new = 0
        for start in range(0, len(spans), SENTENCES_PER_STEP):
            if start:
                yield Partial(Translation(rebuilt(request.text[: spans[start - 1].end], aligned), aligned, warning))
            yield Running("translating", start, len(spans))
            batch = spans[start : start + SENTENCES_PER_STEP]
            texts = [span.text for span in batch]
            answers = lease.engine.translate(texts, request.num_beams, lease.compute, pair=pair_of(request))
            for span, found in zip(batch, answers, strict=True):
                aligned.append(Aligned(span, found.text, found.log_probability))
                read, new = read + found.input_tokens, new + found.new_tokens
        result = Translation(rebuilt(request.text, aligned), aligned, warning)
        yield Done(result, lease.run_info(input_tokens=read, new_tokens=new, warning=warning))


def borrow(request: Translate, context: Context) -> Any:
    """The checkpoint for the pair; an unknown language or pair is named together with those there are."""
    pairs = context.catalog.pairs()
    if (request.src_lang, request.tgt_lang) not in pairs:
        known = {source for source, _ in pairs}
        offered = ", ".join(f"{source}→{target}" for source, target in pairs)
        at_fault = "tgt_lang" if request.src_lang in known else "src_lang"
        raise UnknownCheckpoint(
            f"no checkpoint here translates {request.src_lang}→{request.tgt_lang}; the pairs are {offered}",
            field=at_fault,
        )
    return context.borrow(request.model, "translation", (request.src_lang, request.tgt_lang))


def pair_of(request: Translate) -> tuple[str, str]:
    return request.src_lang, request.tgt_lang


def rows(requests: Sequence[Translate], lease: Lease) -> Iterator[Translation]:
    """Many texts with the same languages; their sentences are translated together."""
    split = [sentences(request.text, request.src_lang) for request in requests]
    flat = [span.text for spans in split for span in spans]
    found = iter(lease.engine.translate(flat, requests[0].num_beams, lease.compute, pair=pair_of(requests[0])))
    for request, spans in zip(requests, split, strict=True):
        aligned = []
        for span in spans:
            sentence = next(found)
            aligned.append(Aligned(span, sentence.text, sentence.log_probability))
        yield Translation(rebuilt(request.text, aligned), aligned, wrong_language(request))


def rebuilt(source: str, aligned: Sequence[Aligned]) -> str:
    """The translations with the source's own blanks and line ends between them."""
    pieces, place = [], 0
    for pair in aligned:
        pieces += [source[place : pair.source.start], pair.target]
        place = pair.source.end
    return "".join([*pieces, source[place:]])


def wrong_language(request: Translate) -> str:
    detected = detect_language(request.text)
    if detected.language == request.src_lang or detected.probability < SURE:
        return ""
    return (
        f"This text looks like {language_name(detected.language)}, not {language_name(request.src_lang)}. "
        "The translation below may be meaningless."
    )
