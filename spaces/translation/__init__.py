"""Translation, sentence by sentence."""

from shared.serving.endpoint import Endpoint, Rows
from shared.serving.space import Space
from translation.task import Translate, borrow, rows, translate

SPACE = Space(
    name="translation",
    title="Translation",
    summary="Translate text between languages and see which sentence became which.",
    order=30,
    endpoints=(Endpoint(translate, Translate, {"translation": str}, Rows(borrow, rows), hub_task="translation"),),
)
