"""The Space contract, and how Spaces are found.

A Space is one folder: a package whose `__init__.py` has `SPACE`, with `task.py`, `ui.py`, `examples.yaml` and
`README.md` beside it. Folders lie in `spaces/`, or beside `shared/` where one Space was copied out alone.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from shared.checkpoints.kinds import Task
from shared.errors import SuiteError
from shared.serving.endpoint import Endpoint
from shared.settings import Settings
from shared.yaml_text import read_yaml

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Space:
    """One demo."""

    name: str
    """Folder, package and URL name."""
    title: str
    summary: str
    """One sentence that says what the tab shows."""
    endpoints: tuple[Endpoint, ...]
    order: int = 100
    """Place among the tabs."""

    @property
    def hub_tasks(self) -> set[Task]:
        """The Hub tasks that its endpoints state."""
        return {endpoint.hub_task for endpoint in self.endpoints if endpoint.hub_task}

    @cached_property
    def folder(self) -> Path:
        return Path(str(sys.modules[self.name].__file__)).parent

    @cached_property
    def examples(self) -> dict[str, list[dict[str, Any]]]:
        """Endpoint name → examples, each with `title` and `inputs`. An input `./name` is the path of a file here."""
        found = read_yaml((self.folder / "examples.yaml").read_text(encoding="utf-8"))
        for example in (example for some in found.values() for example in some):
            for name, value in example["inputs"].items():
                if isinstance(value, str) and value.startswith("./") and (self.folder / value).is_file():
                    example["inputs"][name] = str(self.folder / value)
        return found

    @property
    def build(self) -> Callable[..., Any]:
        """`ui.build(tab)` of this Space; importing it imports Gradio."""
        return importlib.import_module(f"{self.name}.ui").build

    def endpoint(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.endpoints if endpoint.name == name)


@dataclass(frozen=True)
class BrokenSpace:
    """A folder whose Space could not be imported; its tab says so and the others work."""

    name: str
    error: Exception

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").capitalize()


def fine_tuning_offered(settings: Settings) -> bool:
    """Whether the suite trains here: allowed, and the package `finetune` lies beside `shared/`."""
    return settings.training_allowed and (ROOT / "finetune" / "__init__.py").is_file()


def _refuse_taken_names(folder: str, space: Space, others: Sequence[Space | BrokenSpace]) -> Space:
    """The Space. Raises `SuiteError` if its folder or endpoints have the names of others, as in a copied folder."""
    if space.name != folder:
        raise SuiteError(f"the Space in spaces/{folder} is called {space.name!r}; its name must be the folder's")
    taken = {endpoint.name: other.name for other in others if isinstance(other, Space) for endpoint in other.endpoints}
    for endpoint in space.endpoints:
        if endpoint.name in taken:
            raise SuiteError(f"{folder} and {taken[endpoint.name]} both have an endpoint called {endpoint.name!r}")
    return space


def discover(wanted: tuple[str, ...] = (), root: Path = ROOT) -> list[Space | BrokenSpace]:
    """The Spaces under `root`, in the order of their tabs; only those in `wanted`, where it names any.

    Raises `SuiteError` when a wanted one does not exist.
    """
    sources = [folder for folder in (root / "spaces", root) if folder.is_dir()]
    folders = {
        file.parent.name: source
        for source in reversed(sources)
        for file in source.glob("*/examples.yaml")
        if (file.parent / "__init__.py").is_file()
    }
    unknown = [name for name in wanted if name not in folders]
    if unknown:
        raise SuiteError(f"there is no Space called {unknown[0]!r}; there are {', '.join(sorted(folders))}")
    found: list[Space | BrokenSpace] = []
    for name, source in sorted(folders.items()):
        if wanted and name not in wanted:
            continue
        if str(source) not in sys.path:
            sys.path.append(str(source))
        try:
            space: Space = importlib.import_module(name).SPACE
            found.append(_refuse_taken_names(name, space, found))
        except Exception as error:
            log.exception("the Space %s could not be imported", name)
            found.append(BrokenSpace(name, error))
    return sorted(found, key=lambda space: (space.order if isinstance(space, Space) else 1000, space.name))
