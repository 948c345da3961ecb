"""Summarization: sentences chosen from a text, or written anew."""

from shared.serving.endpoint import Endpoint, Rows
from shared.serving.space import Space
from summarization.task import Summarize, rows, summarize

SPACE = Space(
    name="summarization",
    title="Summarization",
    summary="Shorten an article or a dialogue: pick its most central sentences, or have a model write new ones.",
    order=20,
    endpoints=(
        Endpoint(
            summarize,
            Summarize,
            {"summary": str},
            Rows(lambda request, context: context.borrow(request.model, "summarization"), rows),
            hub_task="summarization",
        ),
    ),
)
