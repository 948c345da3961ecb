"""Tables in Markdown, the facts about the machine, and the file that keeps both."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks import ROOT
from shared.engines.pretrained.precision import cpu_has_bfloat16
from shared.machine import memory_limit, usable_cores

PACKAGES = ("torch", "transformers", "gradio", "gradio_client")

HEADING = (
    "# Results\n\nWritten by `make bench`, `make bench-hub` and `make eval` with "
    '`ARGS="--write docs/RESULTS.md"`; do not edit.\n'
)


def say(text: str) -> None:
    """Progress, beside the report and not in it."""
    print(f"[{datetime.now():%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; all but the first `left` columns are right-aligned."""
    rules = ["---" if i < left else "---:" for i in range(len(columns))]
    lines = [columns, rules, *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def milliseconds(seconds: float) -> str:
    """With a decimal only where it matters."""
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.0f} MB"


def machine() -> str:
    """One paragraph: processor, cores, memory, how busy it is already, versions, commit and date."""
    parts = [
        f"{processor()}, {usable_cores()} cores" + (" with bfloat16 instructions" if cpu_has_bfloat16() else ""),
        f"{memory_limit() / 2**30:.0f} GiB",
        f"{platform.system()} {platform.machine()}",
        f"load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "",
        f"Python {platform.python_version()}",
        *(f"{name} {installed(name)}" for name in PACKAGES),
        f"commit {commit()}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    ]
    return " · ".join(part for part in parts if part)


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def commit() -> str:
    """The commit that was measured; `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        return "unknown"


def write_section(path: Path, name: str, text: str) -> None:
    """Puts `text` between `<!-- name -->` and `<!-- /name -->`, and leaves the rest of the file as it is."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{start}\n{text.strip()}\n{end}"
    old = path.read_text(encoding="utf-8") if path.exists() else HEADING
    if start in old and end in old:
        new = old[: old.index(start)] + section + old[old.index(end) + len(end) :]
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new, encoding="utf-8")
    say(f"wrote the {name} section of {path}")


def free_memory() -> str:
    return megabytes(psutil.virtual_memory().available)
