"""Classification: zero-shot, few-shot and sentiment."""

from classification.requests import FewShot, Sentiment, ZeroShot
from classification.task import few_shot, few_shot_rows, sentiment, sentiment_rows, zero_shot, zero_shot_rows
from shared.serving.endpoint import Endpoint, Rows
from shared.serving.space import Space

SPACE = Space(
    name="classification",
    title="Classification",
    summary="Sort text into labels of your own, with no examples, with one, or with a few.",
    order=10,
    endpoints=(
        Endpoint(
            zero_shot,
            ZeroShot,
            {"scores": dict},
            Rows(lambda request, context: context.borrow(request.model, "zero-shot-classification"), zero_shot_rows),
            hub_task="zero-shot-classification",
        ),
        Endpoint(
            few_shot,
            FewShot,
            {"scores": dict, "prompt": str},
            Rows(lambda request, context: context.borrow(request.model, "few-shot-classification"), few_shot_rows),
            hub_task="few-shot-classification",
        ),
        Endpoint(
            sentiment,
            Sentiment,
            {"scores": dict},
            Rows(lambda request, context: context.borrow(request.model, "text-classification"), sentiment_rows),
            hub_task="text-classification",
        ),
    ),
)
