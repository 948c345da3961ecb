"""Which modules a program reaches through its imports, read from the source: nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass
class Closure:
    """Our modules by name with their files, and the names of other people's packages."""

    modules: dict[str, Path] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    """Top-level names such as `torch`; those of the standard library are left out."""


def closure(modules: Iterable[str], roots: Sequence[Path]) -> Closure:
    """Everything that these modules import, wherever in the file, directly or through each other.

    `roots` are the folders in which our packages lie. A name that is built at run time is not seen: give it with
    `modules`. Raises `FileNotFoundError` for one of `modules` that is not there.
    """
    found = Closure()
    waiting = list(modules)
    for name in waiting:
        if source_of(name, roots) is None:
            raise FileNotFoundError(f"there is no module {name}")
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = source_of(name, roots)
        if file is None:
            top = name.partition(".")[0]
            if top not in found.others and top not in sys.stdlib_module_names and not _is_ours(top, roots):
                found.others.add(top)
            continue
        found.modules[name] = file
        waiting += imported(file, name)
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


def imported(file: Path, module: str) -> set[str]:
    """Names that a file imports. Of `from a import b` both `a` and `a.b`, since `b` may be a module."""
    return _imported(file.read_text(encoding="utf-8"), module if file.stem == "__init__" else module.rpartition(".")[0])


@cache
def _imported(source: str, package: str) -> set[str]:
    """Cached: Spaces share most modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def source_of(module: str, roots: Sequence[Path]) -> Path | None:
    """The file of one of our modules; None for any other name."""
    for root in roots:
        path = root.joinpath(*module.split("."))
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _is_ours(top: str, roots: Sequence[Path]) -> bool:
    return source_of(top, roots) is not None
