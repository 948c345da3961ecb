"""Which examples a page shows, and which comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from shared.checkpoints.catalog import Catalog, Checkpoint, Origin
from shared.page.showcase import Showcase
from shared.serving.space import Space, discover

CATALOG = Catalog.read()
MARIAN, SMALL100 = "Helsinki-NLP/opus-mt-en-es", "alirezamsh/small100"

WhyNot = Callable[[Checkpoint, bool], str]


def embedded_alone(checkpoint: Checkpoint, named: bool) -> str:
    return "" if checkpoint.profile == "embedded" else "no Hub"


def hub_alone(checkpoint: Checkpoint, named: bool) -> str:
    return "" if checkpoint.profile == "hub" else "not on this machine"


def everything(checkpoint: Checkpoint, named: bool) -> str:
    return ""


def showcase(
    preferred: Origin, why_not: WhyNot, examples: Sequence[dict[str, Any]], on_disk: Sequence[str] = ()
) -> Showcase:
    """Of translations, where these are on disk; packages always are."""
    catalog = Catalog(CATALOG.checkpoints, preferred, why_not)

    def bytes_to_fetch(checkpoint: Checkpoint) -> int:
        here = checkpoint.profile == "embedded" or checkpoint.id in on_disk
        return 0 if here else checkpoint.download_bytes

    def able(inputs: dict[str, Any]) -> Sequence[Checkpoint]:
        source, target = inputs["pair"].split("-")
        return catalog.able("translation", (source, target))

    runtime: Any = SimpleNamespace(catalog=catalog, bytes_to_fetch=bytes_to_fetch)
    return Showcase(runtime, examples, able)


def pairs(*names: str) -> list[dict[str, Any]]:
    return [{"title": name, "inputs": {"pair": name}} for name in names]


def titles(found: Showcase) -> list[str]:
    return [example["title"] for example in found.examples]


ANY = pairs("en-yi", "en-es", "pt-en", "zh-en", "en-pt")


def test_where_no_hub_is_its_pairs_are_not_shown_and_the_default_is_first() -> None:
    found = showcase("embedded", embedded_alone, ANY)
    assert titles(found)[:2] == ["en-pt", "pt-en"]
    assert [example["title"] for example in found.examples if found.shown(example)] == ["en-pt", "pt-en"]


def test_with_a_hub_what_fetches_most_is_last() -> None:
    found = showcase("embedded", everything, ANY)
    assert titles(found) == ["en-pt", "pt-en", "en-es", "zh-en", "en-yi"]
    assert all(map(found.shown, found.examples))


@pytest.mark.parametrize("on_disk", [(), (MARIAN,), (SMALL100,), (MARIAN, SMALL100)])
def test_in_the_hub_profile_its_own_default_is_first_whatever_is_on_disk(on_disk: tuple[str, ...]) -> None:
    found = showcase("hub", hub_alone, ANY, on_disk)
    assert titles(found)[0] == "en-es"
    assert all(map(found.shown, found.examples))


def test_the_order_is_the_files_where_nothing_else_decides() -> None:
    names = ("he-en", "hi-fr", "en-yi")
    assert titles(showcase("hub", hub_alone, pairs(*names))) == list(names)


def test_what_can_be_answered_now_comes_before_a_default_that_cannot() -> None:
    found = showcase("hub", embedded_alone, ANY)
    assert titles(found)[:2] == ["pt-en", "en-pt"]
    assert not found.shown(next(example for example in found.examples if example["title"] == "en-es"))


def test_a_pair_that_nothing_translates_is_never_shown() -> None:
    found = showcase("embedded", everything, pairs("en-tlh", "en-pt"))
    assert [found.shown(example) for example in found.examples] == [True, False]


@pytest.mark.parametrize(("why_not", "shown"), [(embedded_alone, False), (hub_alone, True)])
def test_an_example_that_names_a_model_is_shown_where_that_can_be_used(why_not: WhyNot, shown: bool) -> None:
    runtime: Any = SimpleNamespace(catalog=Catalog(CATALOG.checkpoints, "hub", why_not), bytes_to_fetch=lambda _: 1)
    plain, named = {"inputs": {"text": "a"}}, {"inputs": {"text": "a", "model": "google/flan-t5-base"}}
    found = Showcase(runtime, [named, plain])
    assert found.examples == [plain, named]
    assert [found.shown(example) for example in found.examples] == [True, shown]
    assert [found.depends(example) for example in found.examples] == [False, True]


def test_every_example_of_ours_can_be_answered_by_a_checkpoint_of_the_catalog() -> None:
    spaces = [space for space in discover() if isinstance(space, Space)]
    inputs = [example["inputs"] for space in spaces for some in space.examples.values() for example in some]
    assert all(CATALOG.choose_by_id(one["model"]) for one in inputs if "model" in one)
    asked = [(one["src_lang"], one["tgt_lang"]) for one in inputs if "src_lang" in one]
    assert {("hi", "fr"), ("zh", "en"), ("he", "en"), ("he", "yi"), ("en", "yi"), ("en", "fr")} <= set(asked)
    assert all(CATALOG.able("translation", pair) for pair in asked)
