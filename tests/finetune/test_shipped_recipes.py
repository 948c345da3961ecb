"""Shipped recipes on their own rows, for a few real steps each."""

from __future__ import annotations

import random

import pytest

from finetune import train as training
from finetune.recipe import read_recipe
from finetune.runs import run_of
from finetune.train import train
from shared.context import Runtime
from tests.finetune.test_methods import losses


def test_spam_is_told_from_ham(mails: list[dict[str, str]], parts: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    few = random.Random(0).sample(mails, 200)
    monkeypatch.setattr(training.corpora, "read", lambda *_: iter(few))
    changes = ["training.max_steps=8", "training.evaluations=1", "training.max_length=48", "training.batch_size=8"]
    recipe = read_recipe("spam", changes)
    run = run_of(recipe, parts.settings)
    prepared, _ = train(recipe, run, parts)
    assert prepared.labels == ["ham", "spam"]
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3])
    senders = [{item.group for item in part if item.group} for part in (prepared.parts.train, prepared.parts.test)]
    assert not senders[0] & senders[1]
