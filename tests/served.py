"""A folder with an `app.py` in a process of its own, which imports from there and from the installed packages only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RUNNER = """
import importlib.util, json, runpy, sys
told = json.loads(sys.argv[1])

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in told["blocked"]:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by this test)")

sys.meta_path.insert(0, Blocked())
find_spec = importlib.util.find_spec
# Libraries ask this whether a package is there; of one that is not, it says None.
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in told["blocked"] else find_spec(name, package)
)
sys.path[:0] = told["path"]
sys.argv = ["app.py", *told["arguments"]]
runpy.run_path(told["app"], run_name="__main__")
"""


@dataclass
class Served:
    url: str
    lines: list[str]
    """What it has printed so far."""

    @property
    def log(self) -> str:
        return "".join(self.lines)


@contextmanager
def served(
    folder: Path,
    *,
    arguments: Sequence[str] = (),
    path: Sequence[Path] = (),
    blocked: Sequence[str] = (),
    cwd: Path,
    environment: dict[str, str],
) -> Iterator[Served]:
    """Runs the folder's app until the end of the block. `path` comes after the folder, `blocked` cannot be imported."""
    told = {
        "path": [str(folder), *map(str, path)],
        "app": str(folder / "app.py"),
        "arguments": list(arguments),
        "blocked": list(blocked),
    }
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("SUITE_", "GRADIO_", "PYTHON"))
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-c", RUNNER, json.dumps(told)],
        cwd=cwd,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("Serving at "):
                    break
            else:
                raise AssertionError("it ended without serving:\n" + "".join(lines))
            threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True).start()
            port = lines[-1].strip().rstrip("/").rpartition(":")[2]
            yield Served(f"http://127.0.0.1:{port}/", lines)
        finally:
            # Workers it forked go too: they hold its output open, and the end of this block waits for that to close.
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
