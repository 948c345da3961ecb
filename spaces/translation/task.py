"""Translation, sentence by sentence, with the source's paragraphs, and the alignment."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from shared.checkpoints.catalog import Pair
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.events import Done, Event, Loading, Partial, Queued, Running
from shared.media.languages import language_name
from shared.media.text import KNOWN_LANGUAGES, Span, detect_language, sentences
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import Deterministic, Model, Text

SENTENCES_PER_STEP = 16
"""So that a long text shows progress."""

DETECT = "auto"
"""Source language that asks for detection."""

MOST_PAIRS_NAMED = 12

SURE = 0.6
"""Probability from which a detected language is worth a warning; short texts stay below it."""


def lower(code: str) -> str:
    return code.strip().lower()


Language = Annotated[str, AfterValidator(lower)]


class Translate(Deterministic):
    text: Text
    src_lang: Language = Field("en", description="Language of the text, ISO 639-1; `auto` detects it.")
    tgt_lang: Language = Field(
        "", description="Language to translate into, ISO 639-1. Empty: the first that there is a checkpoint for."
    )
    num_beams: int = Field(
        0, ge=0, le=8, description="1 is greedy; more search for a likelier sentence, slower. 0: as it prefers."
    )
    model: Model = ""

    @field_validator("tgt_lang")
    @classmethod
    def _another_language(cls, value: str, info: ValidationInfo) -> str:
        if value and value == info.data.get("src_lang"):
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
    pair: Pair
    """Source and target language, also where the request leaves them open."""
    warning: str = ""
    """Says which languages were taken where the request leaves them open, or that the text is not in the one it is said
    to be in."""

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)

    def row(self) -> dict[str, Any]:
        return {"translation": self.text}


def translate(request: Translate, context: Context) -> Iterator[Event]:
    """Translates a text. RunInfo warns when it is not in the language it is said to be in."""
    warning = wrong_language(request)
    request = detected_source(request)
    with (yield from borrow(request, context)) as lease:
        warning = f"{warning} {chosen_target(request, lease)}".strip()
        spans = sentences(request.text, request.src_lang)
        aligned: list[Aligned] = []
        read = new = 0
        for start in range(0, len(spans), SENTENCES_PER_STEP):
            if start:
                so_far = rebuilt(request.text[: spans[start - 1].end], aligned)
                yield Partial(Translation(so_far, aligned, lease.pair, warning))
            yield Running("translating", start, len(spans))
            batch = spans[start : start + SENTENCES_PER_STEP]
            texts = [span.text for span in batch]
            answers = lease.translator().translate(texts, request.num_beams, lease.compute, pair=lease.pair)
            for span, found in zip(batch, answers, strict=True):
                aligned.append(Aligned(span, found.text, found.log_probability))
                read, new = read + found.input_tokens, new + found.new_tokens
        result = Translation(rebuilt(request.text, aligned), aligned, lease.pair, warning)
        yield Done(result, lease.run_info(input_tokens=read, new_tokens=new, warning=warning))


def borrow(request: Translate, context: Context) -> Generator[Queued | Loading, None, Lease]:
    """A lease of the checkpoint for the pair.

    Raises `UnknownCheckpoint` for an unknown language or pair, naming the known ones, and `InvalidInput` for a batch
    that asks for detection: its rows are translated together, from one language.
    """
    if request.src_lang == DETECT:
        raise InvalidInput("cannot be detected in a batch; name the language of the texts", field="src_lang")
    catalog = context.catalog
    pair = request.src_lang, request.tgt_lang or catalog.default_target(request.src_lang)
    if not catalog.able("translation", pair):
        pairs = catalog.pairs() or catalog.pairs(usable=False)
        at_fault = "tgt_lang" if request.src_lang in {source for source, _ in pairs} else "src_lang"
        offered = ", ".join(f"{source}→{target}" for source, target in pairs[:MOST_PAIRS_NAMED])
        more = f" and {len(pairs) - MOST_PAIRS_NAMED:,} more" if len(pairs) > MOST_PAIRS_NAMED else ""
        named = "→".join(pair) if pair[1] else f"from {pair[0]!r}"
        raise UnknownCheckpoint(f"no checkpoint here translates {named}; the pairs are {offered}{more}", field=at_fault)
    return context.borrow(request.model, "translation", pair)


def detected_source(request: Translate) -> Translate:
    """The request with its source language, detected where it asks for that.

    Raises `InvalidInput` where the text is already in the target language.
    """
    if request.src_lang != DETECT:
        return request
    found = detect_language(request.text).language
    if found == request.tgt_lang:
        raise InvalidInput(
            f"is {found!r}, and the text was taken for {language_name(found)}; choose another, or name src_lang",
            field="tgt_lang",
        )
    return request.model_copy(update={"src_lang": found})


def chosen_target(request: Translate, lease: Lease) -> str:
    """A remark that names the target language where neither the request nor the checkpoint's one pair does, else ""."""
    if request.tgt_lang or len(lease.checkpoint.pairs) == 1:
        return ""
    return f"It was translated into {language_name(lease.pair[1])}, since tgt_lang is empty."


def rows(requests: Sequence[Translate], lease: Lease) -> Iterator[Translation]:
    """Many texts with the same languages; their sentences are translated together."""
    split = [sentences(request.text, request.src_lang) for request in requests]
    flat = [span.text for spans in split for span in spans]
    found = iter(lease.translator().translate(flat, requests[0].num_beams, lease.compute, pair=lease.pair))
    for request, spans in zip(requests, split, strict=True):
        aligned = []
        for span in spans:
            sentence = next(found)
            aligned.append(Aligned(span, sentence.text, sentence.log_probability))
        yield Translation(rebuilt(request.text, aligned), aligned, lease.pair, wrong_language(request))


def rebuilt(source: str, aligned: Sequence[Aligned]) -> str:
    """The translations with the source's own blanks and line ends between them."""
    pieces, place = [], 0
    for pair in aligned:
        pieces += [source[place : pair.source.start], pair.target]
        place = pair.source.end
    return "".join([*pieces, source[place:]])


def wrong_language(request: Translate) -> str:
    """A remark about the text's language, "" where there is nothing to remark."""
    detected = detect_language(request.text)
    if request.src_lang == DETECT:
        sure = "" if detected.probability >= SURE else ", which is little more than a guess"
        return f"The text was taken for {language_name(detected.language)}{sure}."
    if request.src_lang not in KNOWN_LANGUAGES:
        return ""
    if detected.language == request.src_lang or detected.probability < SURE:
        return ""
    return (
        f"This text looks like {language_name(detected.language)}, not {language_name(request.src_lang)}. "
        "The translation below may be meaningless."
    )
