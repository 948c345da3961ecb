"""Quality of what is written: summaries by ROUGE, translations by chrF, each beside a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from benchmarks.quality import MINILM, SMOLLM, Row, clock, in_points, items, on_loan, points
from benchmarks.report import say
from benchmarks.stats import RESAMPLES, Interval, bootstrap
from shared.media.text import lines, sentences
from shared.serving.context import Context
from shared.serving.requests import validate
from summarization.task import Summarize, rouge
from summarization.task import rows as summary_rows
from translation.task import Translate, borrow
from translation.task import rows as translation_rows

QUICK_SUMMARIES = 1
QUICK_TOKENS = 24
"""Writing a summary takes seconds."""

ROUGES = ("rouge1", "rouge2", "rougeL")


def lead(text: str, style: str) -> str:
    """The first two sentences, or turns."""
    if style == "dialogue":
        return "\n".join(span.text for span in lines(text)[:2])
    return " ".join(span.text for span in sentences(text)[:2])


def summaries(context: Context, quick: bool) -> Iterator[Row]:
    for name, style in (("articles", "article"), ("dialogues", "dialogue")):
        found = items(name, quick)[: QUICK_SUMMARIES if quick else None]
        references = [item["summary"] for item in found]
        stated = {"lead-2": 36.7, MINILM: 42.8} if style == "article" else {}
        task = f"summaries of {name}"
        yield summarized(task, "baseline: lead-2", [lead(item["text"], style) for item in found], references,
                         stated=stated.get("lead-2"))  # fmt: skip
        for method, model in ((f"extractive, {MINILM}", MINILM), (f"abstractive, greedy, {SMOLLM}", SMOLLM)):
            say(f"{task}, {model}, {context.settings.engines} engine")
            fixed: dict[str, Any] = {"style": style, "model": model}
            if quick:
                fixed["max_new_tokens"] = QUICK_TOKENS
            asked = [validate(Summarize, {"text": item["text"], **fixed}, context.settings) for item in found]
            with on_loan(context, context.borrow(model, "summarization")) as lease:
                with clock() as taken:
                    texts = [summary.text for summary in summary_rows(asked, lease)]
                yield summarized(
                    task, method, texts, references, seconds=taken[0], stated=stated.get(model), model=model,
                    engine=lease.engine.name, judged_with="summaries",
                )  # fmt: skip


def summarized(task: str, method: str, texts: Sequence[str], references: Sequence[str], **more: Any) -> Row:
    scores = [rouge(text, reference) for text, reference in zip(texts, references, strict=True)]
    columns = [[score[kind] for score in scores] for kind in ROUGES]
    intervals = tuple(in_points(bootstrap(column)) for column in columns)
    values = tuple(map(points, columns))
    return Row(task, method, "ROUGE-1 / 2 / L", len(texts), values, intervals, answers=tuple(texts), **more)


def translations(context: Context, quick: bool) -> Iterator[Row]:
    found = items("en_pt", quick)
    for source, target, stated in (("en", "pt", 89.7), ("pt", "en", 88.6)):
        task = f"translation {source}→{target}"
        texts, references = [item[source] for item in found], [item[target] for item in found]
        yield translated(task, "baseline: the source, copied", texts, references)
        for beams in (1, 4):
            how = "greedy" if beams == 1 else f"{beams} beams"
            say(f"{task}, {how}, {context.settings.engines} engine")
            fixed = {"src_lang": source, "tgt_lang": target, "num_beams": beams}
            asked = [validate(Translate, {"text": text, **fixed}, context.settings) for text in texts]
            with on_loan(context, borrow(asked[0], context)) as lease:
                with clock() as taken:
                    answers = [answer.text for answer in translation_rows(asked, lease)]
                model = lease.checkpoint.id
                yield translated(
                    task, f"{model}, {how}", answers, references, seconds=taken[0], stated=stated, model=model,
                    engine=lease.engine.name, judged_with=f"{task}, {how}",
                )  # fmt: skip


def translated(task: str, method: str, texts: Sequence[str], references: Sequence[str], **more: Any) -> Row:
    value, interval = chrf(texts, references)
    return Row(task, method, "chrF", len(texts), (value,), (interval,), answers=tuple(texts), **more)


def chrf(answers: Sequence[str], references: Sequence[str]) -> tuple[float, Interval]:
    """Corpus chrF2 (Popović 2015, sacrebleu's defaults), and its 95 % bootstrap interval."""
    score = CHRF().corpus_score(list(answers), [list(references)], n_bootstrap=RESAMPLES)
    # sacrebleu gives the half-width, around the mean of the resamples, under these names only.
    half: float = getattr(score, "_ci", 0.0) or 0.0
    mean: float = getattr(score, "_mean", score.score) or score.score
    return score.score, (mean - half, mean + half)


PARTS: Sequence[Callable[[Context, bool], Iterator[Row]]] = (summaries, translations)
