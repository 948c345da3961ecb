"""The requirements.txt of an assembled Space: ours, without what it never imports, and with every version pinned.

The build of a Space reads that one file, from a place of its own, so constraints.txt cannot be named in it: the
constraints of their own dependencies are written into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

IMPORT_NAMES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
"""By what name a package is imported, where that is another than its own."""

THROUGH_OTHERS = {"accelerate", "gguf", "safetensors", "sentencepiece", "tokenizers"}
"""Imported by transformers for some checkpoint or other, and not always by us."""

HEADING = "# Made from the suite's requirements.txt: without what this Space does not use."
BROUGHT = "# What those bring along, as tested."


def space_requirements(requirements: str, constraints: str, imports: Iterable[str]) -> str:
    """The text of the file. `imports` are the top-level names that the Space's code imports."""
    imports = set(imports)
    lines: list[str] = []
    for line in requirement_lines(requirements):
        name = package_name(line)
        imported_as = IMPORT_NAMES.get(name, name.replace("-", "_"))
        if imported_as in imports or (name in THROUGH_OTHERS and "transformers" in imports):
            lines.append(line)
    pins = {package_name(line): line for line in requirement_lines(constraints)}
    direct = {package_name(line) for line in lines}
    further = sorted(brought_along(lines) - direct)
    return "\n".join([HEADING, *lines, "", BROUGHT, *(pins[name] for name in further if name in pins), ""])


def requirement_lines(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def package_name(requirement: str) -> str:
    """In the one spelling of many: `PyYAML==6` is `pyyaml`, `rouge_score` is `rouge-score`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    if found is None:
        raise ValueError(f"{requirement!r} names no package")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pinned_version(requirements: str, package: str) -> str:
    """`6.31.0` of `gradio[mcp]==6.31.0`. Raises `ValueError` where it is not pinned."""
    for line in requirement_lines(requirements):
        if package_name(line) == package and "==" in line:
            return line.partition("==")[2].partition(";")[0].strip()
    raise ValueError(f"requirements.txt does not pin {package}")


def brought_along(requirements: Iterable[str]) -> set[str]:
    """Names of the packages that these need, directly or not, as the installed ones state it."""
    from packaging.requirements import Requirement

    waiting = [Requirement(line) for line in requirements]
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = package_name(requirement.name)
        names.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            environment = {"extra": extra}
            needed = map(Requirement, _stated(requirement.name))
            waiting += [one for one in needed if one.marker is None or one.marker.evaluate(environment)]
    return names


def _stated(package: str) -> list[str]:
    try:
        return distribution(package).requires or []
    except PackageNotFoundError:  # what is not installed here stays unpinned
        return []
