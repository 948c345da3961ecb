"""Audio genre: what music sounds like, over a whole recording and from moment to moment."""

from audio_genre.task import AudioGenre, audio_genre
from shared.serving.endpoint import Endpoint
from shared.serving.space import Space

SPACE = Space(
    name="audio_genre",
    title="Audio genre",
    summary="Play a model some music and see which genres it hears, over the whole recording and from moment to "
    "moment.",
    order=50,
    endpoints=(Endpoint(audio_genre, AudioGenre, {"genres": dict, "timeline": list}, hub_task="audio-classification"),),
)
