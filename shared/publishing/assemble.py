"""A Space as a folder that runs on its own: which files are copied, and which are generated. Uses no network.

Copied are the Space's own package, the modules of `shared/` that it reaches by importing, the engines of every
checkpoint that can do one of its tasks (they are imported by name, so they are found in the catalog), and the data
files beside them. Only files with the endings below are copied, so no cache, key or `.env` comes along.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource, Task
from shared.engines.choice import source_of
from shared.errors import SuiteError
from shared.publishing.card import SUITE_CARD, card, short_description, split, suite_body
from shared.publishing.import_closure import closure
from shared.publishing.requirements import pinned_version, space_requirements
from shared.serving.space import ROOT, Space, discover
from shared.version import PRODUCT, product_version

SUITE = "suite"
"""The name that stands for all Spaces together."""

KINDS = {
    *(".py", ".yaml", ".yml", ".json", ".jsonl", ".csv", ".txt", ".md", ".css", ".js", ".svg", ".png", ".jpg"),
    *(".wav", ".flac", ".ogg", ".mp3", ".safetensors"),
}
"""Endings of the files that are copied from a Space's folder and, but for `.py`, from `shared/`."""

TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")

FIRST_LINE = '"""Serves this Space; made by `python -m shared.publishing`. Change the suite it was made from instead.'
FIRST_LINES = (FIRST_LINE, FIRST_LINE.replace("shared.publishing", "shared.hub"))
"""How an assembled folder is recognised, also one that was made when the command had another name."""
APP = (
    FIRST_LINE
    + """

Variables of the Space (its settings on the Hub) override what is set here.
\"""

import os

os.environ.setdefault("SUITE_PROFILE", "hub")
os.environ.setdefault("SUITE_HOST", os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"))
os.environ.setdefault("SUITE_PORT", os.environ.get("GRADIO_SERVER_PORT", "7860"))
if "SPACE_ID" in os.environ:
    # Only the Hub's proxy reaches a Space, so visitors are told apart by the addresses that it reports.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")

from shared.cli import main  # noqa: E402 - after the variables that it reads

if __name__ == "__main__":
    from shared import fetch

    fetch.main(["--unmatched"] if os.environ["SUITE_PROFILE"] == "hub" else [])
    main()
"""
)


@dataclass(frozen=True)
class Assembled:
    """The files of a Space, by their path in its folder, and the checkpoints that it can use."""

    name: str
    files: dict[str, bytes]
    checkpoints: list[Checkpoint] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.files.values()))

    def listing(self) -> str:
        """Every file with its size, and the sum."""
        rows = [f"{len(data):>11,}  {path}" for path, data in sorted(self.files.items())]
        return "\n".join([*rows, f"{self.nbytes:>11,}  bytes in {len(self.files)} files"])

    def write(self, out: Path) -> None:
        """Writes the folder. Raises `SuiteError` for a folder that holds other files."""
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_assembled(out))):
            raise SuiteError(f"{out} holds something else already; name a new or an empty folder")
        if out.exists():
            shutil.rmtree(out)
        for path, data in self.files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(data)


def assemble(name: str, *, root: Path = ROOT, preload: Sequence[str] = (), thumbnail: str = "") -> Assembled:
    """The Space of this name, or the whole suite.

    `preload` are lines for the card's `preload_from_hub`, `thumbnail` the address under which the picture will be
    found, which is what the Hub wants ("" leaves it out). Raises `SuiteError` for a Space that is not there or cannot
    be imported.
    """
    spaces = chosen(name, root)
    folders = [root / "spaces" / space.name for space in spaces]
    tasks = tasks_of(spaces)
    checkpoints = [c for c in catalog_of(root) if tasks & set(c.tasks)]
    reached = closure(
        ["shared.cli", "shared.fetch", *_modules(folders), *_engines(checkpoints, root)], [root, root / "spaces"]
    )

    requirements = (root / "requirements.txt").read_text(encoding="utf-8")
    constraints = (root / "constraints.txt").read_text(encoding="utf-8")
    files: dict[str, bytes] = {"app.py": APP.encode()}
    files["requirements.txt"] = space_requirements(requirements, constraints, reached.others).encode()
    files |= {path: (root / path).read_bytes() for path in ("LICENSE", "NOTICE")}
    files["pyproject.toml"] = f'[project]\nname = "{PRODUCT}"\nversion = "{product_version()}"\n'.encode()
    for module, file in reached.modules.items():
        if module.partition(".")[0] == "shared":
            files[file.relative_to(root).as_posix()] = file.read_bytes()
    files |= {f"shared/{path}": data for path, data in _data(root / "shared", checkpoints).items()}
    for folder in folders:
        files |= {f"{folder.name}/{path}": data for path, data in copied(folder).items() if path != "README.md"}
    picture = root / "docs" / "screenshots" / f"{spaces[0].name}.png"
    if picture.is_file():
        files["thumbnail.png"] = picture.read_bytes()

    metadata, body = _own_card(name, spaces, root)
    files["README.md"] = card(
        metadata,
        body,
        checkpoints,
        sdk_version=pinned_version(requirements, "gradio"),
        preload=preload,
        thumbnail=thumbnail if picture.is_file() else "",
        tags=sorted(tasks),
    ).encode()
    for path, data in files.items():
        if TOKEN.search(data):
            raise SuiteError(f"{path} holds what looks like a token of the Hub; nothing was assembled. Remove it there")
    return Assembled(name, files, checkpoints)


def catalog_of(root: Path) -> Catalog:
    return Catalog.read(root / "shared" / "checkpoints" / "catalog.yaml")


def preloaded(name: str, root: Path = ROOT) -> list[Checkpoint]:
    """The default checkpoints of a Space in the hub profile, which its build may download beforehand."""
    tasks = tasks_of(chosen(name, root))
    return [c for c in catalog_of(root) if isinstance(c.source, HubSource) and tasks & set(c.default_for)]


def chosen(name: str, root: Path = ROOT) -> list[Space]:
    """The Space of this name, or all of them, in the order of their tabs."""
    found = discover(() if name == SUITE else (name,), root)
    for space in found:
        if not isinstance(space, Space):
            raise SuiteError(f"the Space {space.name} cannot be imported: {space.error}") from space.error
    return [space for space in found if isinstance(space, Space)]


def tasks_of(spaces: Sequence[Space]) -> set[Task]:
    """The Hub tasks that the Spaces' endpoints state."""
    return {task for space in spaces for task in space.hub_tasks}


def copied(folder: Path) -> dict[str, bytes]:
    """The files of a folder that may leave this machine: with the endings above, not hidden, no caches or tests."""
    found = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        left_out = any(part.startswith(".") or part in ("__pycache__", "tests") for part in path.parts)
        if file.is_file() and not file.is_symlink() and file.suffix in KINDS and not left_out:
            found[path.as_posix()] = file.read_bytes()
    return found


def _data(shared: Path, checkpoints: Sequence[Checkpoint]) -> dict[str, bytes]:
    """All data files, and of the heads that were trained here only those of these checkpoints."""
    heads = shared / "engines" / "audio" / "heads"
    of_others = {folder.name for folder in heads.iterdir()} - {checkpoint.id for checkpoint in checkpoints}
    others = {f"{heads.relative_to(shared).as_posix()}/{name}/" for name in of_others}
    found = copied(shared)
    return {path: found[path] for path in found if not path.endswith(".py") and not path.startswith(tuple(others))}


def _modules(folders: Sequence[Path]) -> list[str]:
    modules = []
    for folder in folders:
        for path in copied(folder):
            if path.endswith(".py"):
                name = ".".join([folder.name, *Path(path).with_suffix("").parts])
                modules.append(name.removesuffix(".__init__"))
    return modules


def _engines(checkpoints: Sequence[Checkpoint], root: Path) -> list[str]:
    names = sorted({checkpoint.engine for checkpoint in checkpoints})
    return [f"shared.engines.{name}" for name in names if source_of(name, root)]


def _own_card(name: str, spaces: Sequence[Space], root: Path) -> tuple[dict[str, object], str]:
    if name == SUITE:
        return dict(SUITE_CARD), suite_body(spaces)
    metadata, body = split((root / "spaces" / name / "README.md").read_text(encoding="utf-8"))
    metadata.setdefault("short_description", short_description(spaces[0].summary))
    return metadata, body


def _is_assembled(folder: Path) -> bool:
    app = folder / "app.py"
    return app.is_file() and app.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINES)
