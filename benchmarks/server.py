"""A server under measurement: a process of its own on a free loopback port, stopped whatever happens."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

from benchmarks import ROOT

START_SECONDS = 300.0
STOP_SECONDS = 10.0
LOG_TAIL = 2_000

# A proxy that the environment names must not come between us and this machine.
_direct = build_opener(ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`with Server([...]) as server:` runs a Python command line with `--port` added, until the end of the block."""

    def __init__(self, arguments: Sequence[str], **variables: str) -> None:
        self._arguments = list(arguments)
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.url = ""
        self.seconds_to_page = 0.0
        """From the start of the process until `GET /` was answered with 200."""

    def __enter__(self) -> Server:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()
        begun = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, *self._arguments, "--port", str(port)],
            cwd=ROOT,
            env={"SUITE_ANSWER_CACHE": "0", **os.environ, **self._variables},  # what is measured is computed
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait(begun + START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_page = time.perf_counter() - begun
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self, deadline: float) -> None:
        assert self._process is not None
        while time.perf_counter() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._arguments} ended with code {self._process.returncode}:\n{self.log_tail()}")
            with contextlib.suppress(URLError, OSError), _direct.open(self.url, timeout=60) as answer:
                if answer.status == 200:
                    answer.read()
                    return
            time.sleep(0.02)
        raise TimeoutError(f"{self._arguments} served no page within {START_SECONDS:.0f} s:\n{self.log_tail()}")

    def log_tail(self, size: int = LOG_TAIL) -> str:
        """The last bytes of what it printed."""
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - size))
        return self._log.read().decode(errors="replace")

    def resident(self) -> int:
        """Bytes of memory the process and its children hold now."""
        assert self._process is not None
        return resident(self._process.pid)

    def threads(self) -> int:
        """How many threads the process and its children have now."""
        assert self._process is not None
        return sum(process.num_threads() for process in family(self._process.pid))

    def stop(self) -> None:
        """Ends the process and its children; kills what does not end by itself."""
        if self._process is not None:
            end(self._process)
        if self._log is not None:
            self._log.close()


def resident(pid: int) -> int:
    total = 0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def family(pid: int) -> list[psutil.Process]:
    """The process and all its descendants."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def end(process: subprocess.Popen[bytes]) -> None:
    members = family(process.pid)
    for member in members:
        with contextlib.suppress(psutil.Error):
            member.terminate()
    _, alive = psutil.wait_procs(members, STOP_SECONDS)
    for member in alive:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait(STOP_SECONDS)
