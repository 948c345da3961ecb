"""The Dockerfile, without an engine: what it says holds together, and its steps are carried out in a clean folder."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from shared.serving.space import ROOT
from tests.served import free_port

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def steps() -> list[tuple[str, str]]:
    """Instructions in order: word and rest, comments left out, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def rest_of(word: str) -> list[str]:
    return [rest for found, rest in steps() if found == word]


def copies() -> list[tuple[list[str], str]]:
    return [(parts[:-1], parts[-1]) for parts in (rest.split() for rest in rest_of("COPY"))]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last line that fits decides, also for a folder above."""
    decision = False
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        pattern = line.removeprefix("!").removeprefix("**/")
        above = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]
        anywhere = "**/" in line
        if any(fnmatch.fnmatch(name.rpartition("/")[2] if anywhere else name, pattern) for name in above):
            decision = not line.startswith("!")
    return decision


# -- what it says --------------------------------------------------------------------------------------------------


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    sources = [source.rstrip("/") for found, _ in copies() for source in found]
    assert {"app.py", "requirements.txt", "constraints.txt", "shared", "spaces"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert not ignored(source)
    assert not ignored("shared/page/assets/suite.css")
    assert not ignored("spaces/translation/examples.yaml")


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".venv/bin/python", "tests/conftest.py", "shared/__pycache__/cli.pyc", "shared/.env"],
)
def test_what_is_not_needed_stays_out(path: str) -> None:
    assert ignored(path)


def test_its_steps_are_in_an_order_that_works() -> None:
    order = [f"{word} {rest}" for word, rest in steps()]

    def place(start: str, part: str) -> int:
        return next(i for i, step in enumerate(order) if step.startswith(start) and part in step)

    assert order[0].startswith("FROM python:3.11")
    assert place("COPY", "requirements.txt") < place("RUN", "pip install") < place("COPY", "shared/")
    assert place("COPY", "shared/") < place("RUN", "shared.fetch") < place("CMD", "app.py")
    assert place("RUN", "--uid 1000") < place("USER", "1000") < place("RUN", "shared.fetch")
    assert place("COPY", "spaces/") < place("USER", "1000")


def test_it_serves_as_docker_spaces_expect() -> None:
    assert rest_of("USER") == ["1000"]
    assert rest_of("EXPOSE") == ["7860"]
    assert json.loads(rest_of("CMD")[0])[0] == "python"
    assert "0.0.0.0" in rest_of("CMD")[0]
    assert rest_of("ARG") == ['TORCH_INDEX=""', 'WEIGHTS="yes"']


def test_what_it_writes_belongs_to_its_user_and_outlives_it() -> None:
    """One folder, made as the user's own before anything is mounted at it."""
    [made] = [rest for rest in rest_of("RUN") if "useradd" in rest]
    assert "install -d -o user -g user /home/user/.cache" in made
    settings = dict(pair.split("=", 1) for rest in rest_of("ENV") for pair in rest.split())
    assert settings["XDG_CACHE_HOME"] == "/home/user/.cache"
    assert settings["NUMBA_CACHE_DIR"].startswith("/home/user/.cache/")
    assert "-v demos:/home/user/.cache" in TEXT


def test_its_shell_commands_can_be_read() -> None:
    for command in rest_of("RUN"):
        read = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert read.returncode == 0, read.stderr


def test_it_names_no_host() -> None:
    assert "://" not in TEXT.replace("http://127.0.0.1", "")


# -- what it does --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_its_steps_lead_to_a_healthy_server(tmp_path: Path) -> None:
    """COPY, the RUN that fetches weights (here: finds them), CMD and HEALTHCHECK, with the packages of this Python."""
    app = tmp_path / "app"
    app.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for sources, target in copies():
        for source in sources:
            if source.endswith("/"):
                shutil.copytree(ROOT / source, app / target, ignore=ignore)
            else:
                shutil.copy(ROOT / source, app / target)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "python").chmod(0o755)
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("SUITE_", "GRADIO_", "PYTHON"))}
    environment = {
        **inherited,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SUITE_PORT": str(free_port()),
        "SUITE_PROFILE": "embedded",
        "SUITE_WARM_EXAMPLES": "false",
        "WEIGHTS": "yes",
    }
    [fetching] = [command for command in rest_of("RUN") if "shared.fetch" in command]
    fetched = subprocess.run(
        ["sh", "-c", fetching], cwd=app, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert "in place" in fetched.stdout, fetched.stderr
    [health] = [json.loads(rest[rest.index("[") :]) for rest in rest_of("HEALTHCHECK")]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(json.loads(rest_of("CMD")[0]), cwd=app, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while subprocess.run(health, env=environment, capture_output=True, check=False).returncode:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(1)
        address = socket.gethostbyname("localhost")
        answer = httpx.get(f"http://{address}:{environment['SUITE_PORT']}/health").json()
        assert (answer["status"], answer["profile"]) == ("ok", "embedded")
    finally:
        process.kill()
        process.wait()
    assert subprocess.run(health, env=environment, capture_output=True, check=False).returncode
