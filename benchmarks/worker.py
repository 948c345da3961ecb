"""An engine in a process of its own, so that several can take turns and none meets the others' threads or memory.

The parent writes a JSON line `{"do": method, ...arguments}` and reads a JSON line back. Run by `python -m benchmarks`
as `python -m benchmarks.worker MODULE CONTESTANT`, where MODULE of `benchmarks.peers` has a dict `CONTESTANTS`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import ROOT
from benchmarks.server import end

LOG_TAIL = 1_500


class Absent(Exception):
    """The contestant cannot take part; the text says why."""


class Worker:
    """`with Worker("decoders", "suite") as worker: worker.do("generate", ...)`; raises `Absent` on entering."""

    def __init__(self, module: str, contestant: str) -> None:
        self.contestant = contestant
        self._command = [sys.executable, "-m", "benchmarks.worker", module, contestant]
        self.facts: dict[str, Any] = {}
        """What the contestant says of itself."""

    def __enter__(self) -> Worker:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=quiet()
        )
        try:
            self.facts = self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def do(self, method: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": method, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, self._log.tell() - LOG_TAIL))
            raise Absent("failed: " + self._log.read().decode(errors="replace").strip().rpartition("\n")[2])
        answer = json.loads(line)
        if "absent" in answer:
            raise Absent(answer["absent"])
        return answer["result"]


def quiet() -> dict[str, str]:
    return {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "SUITE_PROFILE": "embedded"}


def main() -> None:
    # Libraries print where they like; the answers' pipe is for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    module, name = sys.argv[1:]
    try:
        contestant = importlib.import_module(f"benchmarks.peers.{module}").CONTESTANTS[name]()
    except ModuleNotFoundError as error:
        answer(absent=f"not installed ({error.name})")
        return
    except Absent as error:
        answer(absent=str(error))
        return
    answer(result=contestant.facts())
    for line in sys.stdin:
        asked = json.loads(line)
        answer(result=getattr(contestant, asked.pop("do"))(**asked))


if __name__ == "__main__":
    main()
