"""A folder with an `app.py` in a process of its own, which imports from there and from the installed packages only."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shared.engines.kernels.compiling import sources
from shared.serving.space import ROOT

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


FORKER = """
import json, os, signal, socket, sys, threading
import gradio, torch
assert threading.active_count() == 1, "a thread would not be there after the fork"
door = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # which reaps who ended
for _ in iter(lambda: door.recv(1, socket.MSG_PEEK), b""):
    size = int.from_bytes(door.recv(4), "big")
    message, (output,), _, _ = socket.recv_fds(door, size, 1, socket.MSG_WAITALL)
    pid = os.fork()
    if pid == 0:
        break
    os.close(output)
    door.sendall(pid.to_bytes(4, "big"))
else:
    sys.exit()

door.close()
os.setsid()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.dup2(output, 1)
os.dup2(output, 2)
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(write_through=True)
child = json.loads(message)
os.environ.clear()
os.environ.update(child["environment"])
os.chdir(child["cwd"])
for name in [name for name in sys.modules if name.partition(".")[0] in child["told"]["blocked"]]:
    del sys.modules[name]
sys.argv = ["-c", json.dumps(child["told"])]
exec(child["program"])
"""


class Forker:
    """A process that has imported Gradio and PyTorch, and nothing of ours, and starts others by forking itself.

    They start within a second instead of ten. Who wants to see these libraries imported starts a fresh process.
    """

    def __enter__(self) -> Forker:
        self._door, theirs = socket.socketpair()
        self._lock = threading.Lock()
        environment = {**inherited(), "GRADIO_ANALYTICS_ENABLED": "False"}
        command = [sys.executable, "-I", "-c", FORKER, str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()  # at which it ends
        self._process.wait()

    def start(self, told: dict[str, Any], cwd: Path, environment: dict[str, str]) -> tuple[int, IO[str]]:
        """Its process id, and what it prints."""
        reading, writing = os.pipe()
        message = json.dumps({"told": told, "cwd": str(cwd), "environment": environment, "program": RUNNER}).encode()
        with self._lock:
            self._door.sendall(len(message).to_bytes(4, "big"))
            sent = socket.send_fds(self._door, [message], [writing])
            self._door.sendall(message[sent:])
            pid = int.from_bytes(self._door.recv(4), "big")
        os.close(writing)
        return pid, os.fdopen(reading, encoding="utf-8")


def start_afresh(told: dict[str, Any], cwd: Path, environment: dict[str, str]) -> tuple[int, IO[str]]:
    """The same in a process that has imported nothing."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", RUNNER, json.dumps(told)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # reaps it
    assert process.stdout is not None
    return process.pid, process.stdout


def inherited() -> dict[str, str]:
    """This process's environment, but for what would change a Space."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SUITE_", "GRADIO_", "PYTHON"))}


@contextmanager
def served(
    folder: Path,
    *,
    arguments: Sequence[str] = (),
    path: Sequence[Path] = (),
    blocked: Sequence[str] = (),
    cwd: Path,
    environment: dict[str, str],
    forker: Forker | None = None,
) -> Iterator[Served]:
    """Runs the folder's app until the end of the block. `path` comes after the folder, `blocked` cannot be imported."""
    told = {
        "path": [str(folder), *map(str, path)],
        "app": str(folder / "app.py"),
        "arguments": list(arguments),
        "blocked": list(blocked),
    }
    start = forker.start if forker else start_afresh
    pid, output = start(told, cwd, {**inherited(), "PYTHONUNBUFFERED": "1", **environment})
    with output:
        lines: list[str] = []
        rest = threading.Thread(target=lambda: lines.extend(output), daemon=True)
        try:
            for line in output:
                lines.append(line)
                if line.startswith("Serving at "):
                    break
            else:
                raise AssertionError("it ended without serving:\n" + "".join(lines))
            rest.start()
            port = lines[-1].strip().rstrip("/").rpartition(":")[2]
            yield Served(f"http://127.0.0.1:{port}/", lines)
        finally:
            # Workers it forked go too: they hold its output open, and the end of this block waits for that to close.
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(pid, signal.SIGKILL)
            if rest.ident:
                rest.join()


def with_compiled_kernels(folder: Path, *, but: str = "") -> Path:
    """Puts beside the folder's kernels what is compiled of the same files here, which would take it a minute again.

    All `but` the function that begins so, which is left for the folder to compile. Returns where they lie.
    """
    kernels = folder / "shared" / "engines" / "kernels"
    theirs, ours = kernels / "__pycache__", ROOT / "shared" / "engines" / "kernels" / "__pycache__"
    if not kernels.is_dir():  # a Space whose models need none
        return theirs
    digest = runpy.run_path(str(kernels / "compiling.py"))["sources"]()  # a Space has the kernels that it needs alone
    theirs.mkdir()
    for file in ours.glob(f"*.{sources()}.*.nbc"):
        if (kernels / f"{file.name.partition('.')[0]}.py").is_file() and not (but and file.name.startswith(but)):
            shutil.copy(file, theirs / file.name.replace(sources(), digest))
    return theirs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
