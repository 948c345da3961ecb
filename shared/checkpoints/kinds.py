"""The kinds of models: how a Hub's model of each is recognised, which files and inputs it needs, what it can do, and
which engine runs it. A new kind is one entry here (or a call of `register`) and one engine module.

Free of torch and transformers, so that the page can ask before any engine is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from shared.checkpoints.repository import WantedFile, has_whole_tokenizer, wanted_adapter_files, wanted_files

Task = Literal[
    "text-generation",
    "conversational",
    "text-classification",
    "zero-shot-classification",
    "few-shot-classification",
    "summarization",
    "translation",
    "fill-mask",
    "question-answering",
    "audio-classification",
    "feature-extraction",
]
Pair = tuple[str, str]
"""Source and target language, ISO 639-1."""


@dataclass(frozen=True)
class HubModel:
    """What a Hub states of a model: its `config.json`, and of its card what tells one kind from another."""

    config: Mapping[str, Any]
    pipeline_tag: str | None = None
    libraries: Collection[str] = ()
    """The card's library name and tags."""
    pairs: tuple[Pair, ...] = ()
    """What its config or its name says that it translates."""

    @property
    def model_type(self) -> Any:
        return self.config.get("model_type")

    @property
    def any_pair(self) -> bool:
        """Whether it translates between any two of its languages."""
        return self.model_type == "m2m_100"


@dataclass(frozen=True)
class Kind:
    """One kind of model. Its engines follow one Protocol of `shared.engines.protocols`."""

    name: str
    engine: str
    """Module of `shared.engines` that runs a Hub's model of this kind. A catalog entry may name another."""
    tasks: tuple[Task, ...] = ()
    """What a model of this kind can do."""
    tasks_of: Callable[[HubModel], tuple[Task, ...]] | None = None
    """What one Hub model can do, where that depends on its config or card; None where all can do all `tasks`."""
    architectures: tuple[str, ...] = ()
    """Ends of the class names under `architectures` in config.json. Of all kinds' ends that fit, the longest counts."""
    model_types: frozenset[str] = frozenset()
    """The `model_type`s that its engine runs; empty for all."""
    library: str = ""
    """Library on the card that makes a model of these `model_types` one of this kind, whatever its architecture."""
    auto_class: str = ""
    """transformers' class that reads its weights."""
    purpose: str = ""
    """What that class is for, in the words of an error: "no model for …"."""
    inputs: Literal["text", "sound"] = "text"
    """A model of text is refused where its repository has no vocabulary."""
    needed_files: Callable[[Iterable[Any], str], list[WantedFile]] = wanted_files
    """Of a repository's files, those to fetch; raises `SuiteError` where that cannot be a model of this kind."""
    is_whole: Callable[[Collection[str]], bool] = has_whole_tokenizer
    """Whether the named files, beside configuration and weights, are all it needs."""
    adaptable: bool = False
    """Whether its engine computes with adapters."""


_registry: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Makes a kind known. Raises `ValueError` where there is one of that name."""
    if kind.name in _registry:
        raise ValueError(f"there is a kind {kind.name!r} already")
    _registry[kind.name] = kind


@contextmanager
def registered(kind: Kind) -> Iterator[None]:
    """The kind is known until the end of the `with` block, as a test needs it."""
    register(kind)
    try:
        yield
    finally:
        del _registry[kind.name]


def get(name: str) -> Kind:
    """Raises `ValueError` for a name that no kind has."""
    if name not in _registry:
        raise ValueError(f"no kind of model is called {name!r}; there are {', '.join(_registry)}")
    return _registry[name]


KindName = Annotated[str, AfterValidator(lambda name: get(name).name)]


def adaptable() -> list[str]:
    """Names of the kinds that adapters are computed on."""
    return [kind.name for kind in _registry.values() if kind.adaptable]


def purpose_of(auto_class: str) -> str:
    """What a class of transformers is for. Raises `KeyError` where no kind is read by it."""
    return {kind.auto_class: kind.purpose for kind in _registry.values()}[auto_class]


def architectures() -> dict[str, Kind]:
    """End of a model class's name → kind."""
    return {end: kind for kind in _registry.values() for end in kind.architectures}


def kind_of(model: HubModel) -> Kind | None:
    """The kind of a Hub's model; None where no engine here runs it."""
    for kind in _registry.values():
        if kind.library and kind.library in model.libraries and model.model_type in kind.model_types:
            return kind
    ends = architectures()
    for architecture in model.config.get("architectures") or []:
        fitting = [end for end in ends if str(architecture).endswith(end)]
        if fitting:
            kind = ends[max(fitting, key=len)]
            return kind if not kind.model_types or model.model_type in kind.model_types else None
    return None


# -- the kinds -------------------------------------------------------------------------------------


def _of_language_model(model: HubModel) -> tuple[Task, ...]:
    chat: tuple[Task, ...] = ("conversational", "summarization") if model.pipeline_tag == "text-generation" else ()
    return ("text-generation", "few-shot-classification", "zero-shot-classification", *chat)


def _of_encoder_decoder(model: HubModel) -> tuple[Task, ...]:
    translation: tuple[Task, ...] = ("translation",) if model.pairs or model.any_pair else ()
    summarizes = not translation or "summarization" in (model.config.get("task_specific_params") or {})
    return ("summarization", *translation) if summarizes else translation


def _of_classifier(model: HubModel) -> tuple[Task, ...]:
    labels = {str(label).lower() for label in (model.config.get("id2label") or {}).values()}
    entails = any(label.startswith("entail") for label in labels)
    return ("zero-shot-classification",) if entails else ("text-classification",)


for _kind in (
    Kind(
        "causal-lm",
        "decoders.batched",
        tasks=(
            "text-generation",
            "conversational",
            "text-classification",
            "zero-shot-classification",
            "few-shot-classification",
            "summarization",
        ),
        tasks_of=_of_language_model,
        architectures=("ForCausalLM", "LMHeadModel"),
        auto_class="AutoModelForCausalLM",
        purpose="text generation",
        adaptable=True,
    ),
    Kind(
        "seq2seq",
        "seq2seq.batched",
        tasks=("summarization", "translation"),
        tasks_of=_of_encoder_decoder,
        architectures=("ForConditionalGeneration", "MTModel"),
        # `ForConditionalGeneration` also ends the names of models of images and speech.
        model_types=frozenset({"t5", "mt5", "marian", "m2m_100", "bart", "mbart", "pegasus"}),
        auto_class="AutoModelForSeq2SeqLM",
        purpose="rewriting one text as another",
        adaptable=True,
    ),
    Kind(
        "sentence-encoder",
        "encoders.reference",
        tasks=(
            "feature-extraction",
            "zero-shot-classification",
            "few-shot-classification",
            "text-classification",
            "summarization",
            "question-answering",
        ),
        model_types=frozenset({"bert"}),
        library="sentence-transformers",
        adaptable=True,
    ),
    Kind(
        "sequence-classifier",
        "encoders.sequence_classifier",
        tasks=("text-classification", "zero-shot-classification"),
        tasks_of=_of_classifier,
        architectures=("ForSequenceClassification",),
        auto_class="AutoModelForSequenceClassification",
        purpose="text classification",
    ),
    Kind(
        "masked-lm",
        "encoders.masked_lm",
        tasks=("fill-mask",),
        architectures=("ForMaskedLM",),
        auto_class="AutoModelForMaskedLM",
        purpose="filling masks",
    ),
    Kind(
        "question-answerer",
        "encoders.question_answering",
        tasks=("question-answering",),
        architectures=("ForQuestionAnswering",),
        auto_class="AutoModelForQuestionAnswering",
        purpose="question answering",
    ),
    Kind(
        "audio-classifier",
        "audio.audio_classifier",
        tasks=("audio-classification",),
        architectures=("Wav2Vec2ForSequenceClassification",),
        auto_class="AutoModelForAudioClassification",
        purpose="audio classification",
        inputs="sound",
        is_whole=lambda names: "preprocessor_config.json" in names,
    ),
    Kind("translator", "firefox.batched", tasks=("translation",)),
    # None by itself, and in no catalog: what an adapter on a Hub is where its files are fetched and its memory counted.
    Kind("adapter", "adapters.deltas", needed_files=wanted_adapter_files, is_whole=lambda names: True),
):
    register(_kind)
