"""Text generation, chat and the next token."""

from generation.task import Chat, Generate, NextToken, chat, generate, next_token
from shared.serving.endpoint import Endpoint
from shared.serving.space import Space

SPACE = Space(
    name="generation",
    title="Text generation",
    summary="Let a language model continue a text or chat, and look at the choice it makes for every token.",
    order=40,
    endpoints=(
        Endpoint(generate, Generate, {"completion": str}, hub_task="text-generation"),
        Endpoint(chat, Chat, {"reply": str}, hub_task="conversational"),
        Endpoint(next_token, NextToken, {"distribution": dict}, hub_task="text-generation"),
    ),
)
