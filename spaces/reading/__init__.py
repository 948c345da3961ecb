"""Reading: the answer to a question in a text, and the word behind a mask."""

from reading.task import AnswerQuestion, FillMask, answer_question, fill_mask
from shared.serving.endpoint import Endpoint
from shared.serving.space import Space

SPACE = Space(
    name="reading",
    title="Reading",
    summary="Ask a text a question and see where the answer stands; cover a word and see what a model expects there.",
    order=15,
    endpoints=(
        Endpoint(answer_question, AnswerQuestion, {"answers": list}, hub_task="question-answering"),
        Endpoint(fill_mask, FillMask, {"masks": list}, hub_task="fill-mask"),
    ),
)
