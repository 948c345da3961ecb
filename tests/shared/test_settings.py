"""Every knob is read from its variable, checked, and safe where it is not set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared import settings as settings_module
from shared.machine import memory_limit, usable_cores
from shared.settings import Settings, parse_bytes, table


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SUITE_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("3GB", 3 * 10**9),
        ("3 GB", 3 * 10**9),
        ("1.5gb", 1_500_000_000),
        ("512MiB", 512 * 2**20),
        ("2GiB", 2 * 2**30),
        ("64 kb", 64_000),
        ("10KiB", 10_240),
        ("700b", 700),
        ("1000", 1000),
        (1000, 1000),
        (" 5 MB ", 5_000_000),
    ],
)
def test_bytes_are_read_as_people_write_them(given: object, expected: int) -> None:
    assert parse_bytes(given) == expected


@pytest.mark.parametrize("given", ["much", "3 apples", "GB", "", "1,5 GB", "-3GB", "3GBGB", "nan", "inf", "1e400 GB"])
def test_other_amounts_are_refused_by_name(given: str) -> None:
    with pytest.raises(ValidationError, match="memory_budget"):
        Settings.model_validate({"memory_budget": given})


def test_variables_set_the_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "SPACES": "translation, generation ,",
        "MEMORY_BUDGET": "3GB",
        "PORT": "9000",
        "SHARE": "true",
        "ADMIN": "no",
        "THREADS": "3",
        "CACHE_DIR": str(tmp_path),
        "MAX_CHARS": "",
    }.items():
        monkeypatch.setenv(f"SUITE_{name}", value)
    found = Settings()
    assert found.spaces == ("translation", "generation")
    assert (found.memory_budget, found.budget) == (3 * 10**9, 3 * 10**9)
    assert (found.port, found.share, found.admin, found.cores) == (9000, True, False, 3)
    assert found.weights_dir == tmp_path / "weights"
    assert found.converted_dir == tmp_path / "converted"
    assert found.max_chars == Settings.model_fields["max_chars"].default  # empty is as if unset


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("MAX_RUNNING", "0"),
        ("QUEUE_SIZE", "-1"),
        ("IDLE_UNLOAD", "-5"),
        ("LOAD_WAIT", "0"),
        ("PROFILE", "clown"),
        ("SHARE", "perhaps"),
        ("REQUESTS_PER_MINUTE", "-2"),
        ("MAX_UPLOAD", "0"),
        ("AUTH", "nocolon"),
        ("AUTH", ":password"),
        ("AUTH", "user:"),
    ],
)
def test_a_bad_value_is_refused_at_start_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SUITE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_secrets_are_not_shown() -> None:
    found = Settings.model_validate({"auth": "user:hunter2", "admin_token": "hunter2"})
    assert "hunter2" not in repr(found)
    assert found.auth.get_secret_value() == "user:hunter2"


def test_a_refused_secret_is_not_shown_either() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"auth": "hunter2"})
    assert "must be user:password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "share", "expected"),
    [
        ("127.0.0.1", False, True),
        ("127.8.9.10", False, True),
        ("::1", False, True),
        ("localhost", False, True),
        ("127.0.0.1", True, False),
        ("localhost", True, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("192.168.1.4", False, False),
        ("example.org", False, False),
        ("localhost.example.org", False, False),
        ("", False, False),
    ],
)
def test_what_only_this_machine_reaches(host: str, share: bool, expected: bool) -> None:
    found = Settings(host=host, share=share)
    assert found.on_loopback is expected
    assert found.everyone_is_admin is expected
    assert found.rate_limit == (0 if expected else 60)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_who_is_admin_and_the_rate_can_be_set(host: str) -> None:
    assert Settings(host=host, admin=True).everyone_is_admin is True
    assert Settings(host=host, admin=False).everyone_is_admin is False
    assert Settings(host=host, requests_per_minute=7).rate_limit == 7
    assert Settings(host=host, requests_per_minute=0).rate_limit == 0


def test_a_fresh_admin_token_each_start_unless_one_is_given() -> None:
    first, second = Settings().with_admin_token(), Settings().with_admin_token()
    tokens = first.admin_token.get_secret_value(), second.admin_token.get_secret_value()
    assert tokens[0] != tokens[1]
    assert min(map(len, tokens)) >= 24
    given = Settings.model_validate({"admin_token": "mine"})
    assert given.with_admin_token().admin_token.get_secret_value() == "mine"


def test_the_default_budget_is_a_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "memory_limit", lambda: 10_000_000_000)
    assert Settings().budget == 4_000_000_000


def test_limits_of_the_machine_are_sane() -> None:
    assert 10**8 < memory_limit() < 10**14
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_settings_cannot_be_changed_while_running() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_every_setting_is_in_the_table_with_a_description() -> None:
    rows = table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for name, row in zip(Settings.model_fields, rows, strict=True):
        assert row.startswith(f"| `SUITE_{name.upper()}` |")
        assert "None" not in row
        assert len(row.split("|")[3].strip()) > 10
