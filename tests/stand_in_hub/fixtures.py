"""Fixtures: a stand-in Hub, and this process's real clients turned to it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.stand_in_hub.hub import StandInHub

LIBRARIES = ("huggingface_hub", "transformers", "datasets", "peft")
SETTLED_AT_IMPORT = ("huggingface_hub.constants", "datasets.config")
"""Modules that read the environment once, when they are imported."""
NOT_OURS = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_OFFLINE", "TRANSFORMERS_CACHE")


@dataclass(frozen=True)
class HubEnv:
    endpoint: str
    home: Path
    """HF_HOME, empty at first."""
    cache_dir: Path
    """Where the clients keep what they download."""


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    """An empty Hub with the tokens `hf_writer` and `hf_reader` (of "user") and `hf_other` (of "other")."""
    with StandInHub() as hub:
        yield hub


@pytest.fixture
def hub_env(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubEnv]:
    """The clients of this process, and of those it starts, are online, know no other Hub and no token, and own an
    empty cache."""
    import huggingface_hub

    home = tmp_path_factory.mktemp("hf-home")
    turn_clients_to(hub.endpoint, home, monkeypatch)
    huggingface_hub.close_session()
    yield HubEnv(hub.endpoint, home, home / "hub")
    huggingface_hub.close_session()


def turn_clients_to(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything as if these variables had been set before the libraries were imported."""
    # What is imported only now would keep the changed values for good.
    import datasets.config  # noqa: F401
    import huggingface_hub.hf_api
    import huggingface_hub.utils
    import transformers.dynamic_module_utils
    import transformers.utils.hub
    from huggingface_hub.utils import _http

    for module in pkgutil.iter_modules(huggingface_hub.utils.__path__, "huggingface_hub.utils."):
        importlib.import_module(module.name)

    for name in [name for name in os.environ if name.startswith(NOT_OURS)]:
        monkeypatch.delenv(name)
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1"])))

    # Libraries may have values of their own under one name.
    changed: list[tuple[str, object, object]] = [
        ("HF_MODULES_CACHE", transformers.utils.hub.HF_MODULES_CACHE, str(home / "modules"))
    ]
    for module in [sys.modules[name] for name in SETTLED_AT_IMPORT if name in sys.modules]:
        fresh = _imported_afresh(module)
        for name, old in vars(module).items():
            new = getattr(fresh, name, old)
            if isinstance(new, str | bool | int | float | Path | frozenset | None) and new != old:
                changed.append((name, old, new))
    _set_everywhere(changed, monkeypatch)
    monkeypatch.setattr(sys, "path", sys.path.copy())  # transformers adds its folder of modules

    # Objects that hold an address, or what an earlier Hub answered.
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "_whoami_cache", {})
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
    monkeypatch.setattr(_http, "_HUB_ORIGINS", _http._HUB_ORIGINS | {_http._url_origin(endpoint)})


def _imported_afresh(module: ModuleType) -> ModuleType:
    """The module as it would be had it been imported now; the one in use stays."""
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


def _set_everywhere(changed: list[tuple[str, object, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Old values become new ones under their names, also where a module took one over by `from … import`."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").split(".")[0] in LIBRARIES:
            held = vars(module)
            for name in {name for name, _, _ in changed} & held.keys():
                fitting = (
                    n for key, o, n in changed if key == name and type(held[name]) is type(o) and held[name] == o
                )
                for new in itertools.islice(fitting, 1):
                    monkeypatch.setattr(module, name, new)
