"""Spaces as folders: each runs alone, a broken one spoils nothing, and the command line says what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from shared.cli import main
from shared.errors import SuiteError
from shared.serving.runtime import Runtime
from shared.serving.space import BrokenSpace, Space, discover
from shared.settings import Settings
from shared.suite import serve
from tests.served import free_port, with_compiled_kernels

ROOT = Path(__file__).parent.parent

ENDPOINTS = {
    "classification": {"zero_shot", "few_shot", "sentiment"},
    "reading": {"answer_question", "fill_mask"},
    "summarization": {"summarize"},
    "translation": {"translate"},
    "generation": {"generate", "chat", "next_token"},
    "audio_genre": {"audio_genre"},
}


def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """This Python with these arguments, in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# -- alone -------------------------------------------------------------------------------------------------


def test_every_space_is_found_in_the_order_of_its_tab() -> None:
    found = [(space.name, isinstance(space, Space)) for space in discover()]
    assert found == [(name, True) for name in ENDPOINTS]


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_space_alone_serves_its_own_endpoints(name: str) -> None:
    suite = serve(Settings(port=0, warm_examples=False, spaces=(name,)), block=False)
    try:
        named = httpx.get(f"{suite.url}gradio_api/info").json()["named_endpoints"]
        assert {path.strip("/") for path in named} - {"models", "batch"} == ENDPOINTS[name]
        assert ("/batch" in named) == (name not in ("generation", "reading", "audio_genre"))
        if name == "translation":
            assert Client(suite.url, verbose=False).predict("Good morning.", api_name="/translate")[0] == "Bom dia."
    finally:
        suite.close()


def copied_out(name: str, folder: Path) -> Path:
    """A folder with `app.py`, `shared/` and one Space, as a deployed Space has it."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copy(ROOT / "app.py", folder)
    shutil.copytree(ROOT / "shared", folder / "shared", ignore=ignored)
    shutil.copytree(ROOT / "spaces" / name, folder / name, ignore=ignored)
    return folder


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_space_is_found_beside_shared(name: str, tmp_path: Path) -> None:
    code = (
        "from shared.serving.space import Space, discover\n"
        "for space in discover():\n"
        "    print(space.name, isinstance(space, Space), bool(space.examples), space.folder)"
    )
    done = run("-c", code, cwd=copied_out(name, tmp_path), PYTHONPATH="")
    assert done.stdout.split() == [name, "True", "True", str(tmp_path / name)], done.stderr


@pytest.mark.slow
def test_a_space_copied_out_runs(tmp_path: Path) -> None:
    port, folder = free_port(), copied_out("translation", tmp_path)
    compiled = with_compiled_kernels(folder, but="sources.cache_sources")
    with subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "SUITE_WARM_EXAMPLES": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            told = next((line for line in lines if "Serving at" in line), "it ended without serving")
            assert f"http://127.0.0.1:{port}/" in told
            client = Client(f"http://127.0.0.1:{port}/", verbose=False)
            assert client.predict("Good morning.", api_name="/translate")[0] == "Bom dia."
            assert list(compiled.glob("sources.cache_sources*.nbc")), (
                "it compiles what it lacks, and keeps it beside itself"
            )
        finally:
            process.kill()


# -- broken ------------------------------------------------------------------------------------------------

BROKEN_IMPORT = "raise RuntimeError('this Space cannot be imported')\n"
BROKEN_UI = """
from shared.serving.space import Space

SPACE = Space(name="broken_ui", title="Half a tab", summary="Fails while it is built.", endpoints=(), order=1)
"""
HALF_A_TAB = """
import gradio as gr


def build(page):
    gr.Textbox("half a form", label="half a form")
    raise LookupError("no such thing, said <b>ui.py</b>")
"""


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[list[Space | BrokenSpace]]:
    """A Space whose import fails, one whose tab does, and a copy of the second in another folder."""
    for name, files in {
        "broken_import": {"__init__.py": BROKEN_IMPORT, "examples.yaml": "{}"},
        "broken_ui": {"__init__.py": BROKEN_UI, "ui.py": HALF_A_TAB, "examples.yaml": "{}"},
        "broken_copy": {"__init__.py": BROKEN_UI, "examples.yaml": "{}"},
    }.items():
        folder = tmp_path / "spaces" / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_text(content, encoding="utf-8")
    yield discover(root=tmp_path)
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(tmp_path))]
    for module in [module for module in sys.modules if module.startswith("broken_")]:
        del sys.modules[module]


def test_a_broken_space_shows_why_and_the_others_work(
    broken: list[Space | BrokenSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [(space.name, isinstance(space, BrokenSpace)) for space in broken] == [
        ("broken_ui", False),
        ("broken_copy", True),
        ("broken_import", True),
    ]
    assert "spaces/broken_copy is called 'broken_ui'" in str(getattr(broken[1], "error", ""))
    monkeypatch.setattr("shared.suite.discover", lambda wanted: [*discover(("translation",)), *broken])
    suite = serve(Settings(port=0, warm_examples=False), block=False)
    try:
        config = httpx.get(f"{suite.url}config").json()
        components = {c["id"]: c for c in config["components"]}
        tabs = {c["props"]["label"]: key for key, c in components.items() if c["type"] == "tabitem"}
        assert {"Translation", "Half a tab", "Broken import", "Models"} <= set(tabs)
        shown = {title: html_of(below(config["layout"], tabs[title]), components) for title in tabs}
        assert "could not be built (LookupError)" in shown["Half a tab"]
        assert "could not be built (RuntimeError)" in shown["Broken import"]
        assert "could not be built" not in shown["Translation"] + shown["Models"]
        inside = below(config["layout"], tabs["Half a tab"])
        assert [key for key in inside if components[key]["type"] == "textbox"] == []
        assert Client(suite.url, verbose=False).predict("Good morning.", api_name="/translate")[0] == "Bom dia."
    finally:
        suite.close()


def test_a_tab_whose_models_cannot_be_used_is_there_and_a_request_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known_to_be_offline(runtime: Runtime) -> None:
        asking = runtime.hub.ask()
        assert asking
        asking.join()
        assert runtime.hub.state == "offline"

    monkeypatch.setattr("shared.suite.begin_asking_the_hub", known_to_be_offline)
    settings = Settings(port=0, warm_examples=False, profile="hub", cache_dir=tmp_path, spaces=("translation",))
    suite = serve(settings, block=False)
    try:
        assert suite.runtime.catalog.pairs() == []
        components = [component["props"] for component in httpx.get(f"{suite.url}config").json()["components"]]
        menus = {props.get("label"): props for props in components if props.get("choices")}
        assert (menus["From"]["value"], menus["To"]["value"]) == ("en", "es")
        assert ["Hindi (hi)", "hi"] in menus["From"]["choices"]
        why = "from en to es needs Helsinki-NLP/opus-mt-en-es, which cannot be used: .*HF_HUB_OFFLINE is set"
        with pytest.raises(AppError, match=why):
            Client(suite.url, verbose=False).predict("Good morning.", api_name="/translate")
    finally:
        suite.close()


def below(layout: dict, key: int) -> list[int]:
    """Ids of the components under the one of this id."""

    def walk(node: dict, inside: bool) -> Iterator[int]:
        for child in node.get("children") or []:
            if inside:
                yield child["id"]
            yield from walk(child, inside or child["id"] == key)

    return list(walk(layout, False))


def html_of(keys: list[int], components: dict[int, dict]) -> str:
    return "".join(str(components[key]["props"].get("value")) for key in keys if components[key]["type"] == "html")


# -- what imports what ---------------------------------------------------------------------------------------


def test_task_functions_know_no_gradio() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(f'{name}.task')\n"
        "    print(name, 'gradio' in sys.modules)"
    )
    done = run("-c", code, *ENDPOINTS, PYTHONPATH=".:spaces")
    assert done.stdout.splitlines() == [f"{name} False" for name in ENDPOINTS], done.stderr


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    code = (
        "import sys, shared.settings, shared.checkpoints.catalog\n"
        "import shared.serving.space, shared.serving.runtime, shared.suite\n"
        "shared.serving.space.discover()\n"
        "print([name for name in ('torch', 'transformers', 'gradio') if name in sys.modules])"
    )
    done = run("-c", code, PYTHONPATH=".:spaces")
    assert done.stdout.strip() == "[]", done.stderr


def test_our_spaces_folder_is_not_taken_for_hugging_faces_package() -> None:
    code = (
        "from shared.settings import Settings\n"
        "from shared.suite import create_app\n"
        "create_app(Settings(spaces=('translation',)))\n"
        "print('built')"
    )
    done = run("-c", code, SYSTEM="spaces", SPACE_ID="somebody/suite")
    assert done.stdout.strip() == "built", done.stderr


# -- the command line ------------------------------------------------------------------------------------------


def test_help_lists_the_options() -> None:
    done = run("app.py", "--help")
    assert done.returncode == 0
    for option in ("--spaces", "--profile", "--host", "--port", "--share", "--mcp", "--memory-budget"):
        assert option in done.stdout
    assert "SUITE_PORT" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--port", "99999"], {}, ("--port", "SUITE_PORT", "65535")),
        (["--port", "-1"], {}, ("--port", "SUITE_PORT")),
        (["--port", "http"], {}, ("--port", "integer")),
        (["--profile", "none"], {}, ("--profile", "embedded")),
        (["--memory-budget", "lots"], {}, ("--memory-budget", "SUITE_MEMORY_BUDGET")),
        (["--no-such-option"], {}, ("--no-such-option",)),
        (["--spaces", "translation,nope"], {}, ("nope", "classification")),
        ([], {"SUITE_PORT": "http"}, ("SUITE_PORT",)),
        ([], {"SUITE_MAX_CHARS": "0"}, ("SUITE_MAX_CHARS", "1")),
        ([], {"SUITE_AUTH": "no colon"}, ("SUITE_AUTH", "user:password")),
        ([], {"SUITE_SPACES": "nope"}, ("nope", "translation")),
    ],
)
def test_a_bad_option_or_variable_is_named(
    arguments: list[str],
    variables: dict[str, str],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", *arguments])
    for name, value in {"COLUMNS": "200", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2)
    out, err = capsys.readouterr()
    for word in words:
        assert word in err
    assert "Serving" not in out


def test_a_port_in_use_is_said_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("app.py", "--spaces", "translation", "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_space_is_refused_by_name() -> None:
    with pytest.raises(SuiteError, match="'nope'"):
        discover(("nope",))


# -- the repository ----------------------------------------------------------------------------------------------


def test_no_file_names_a_registrys_host_or_this_machines_folders() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    # Put together here, so that this file is not its own finding.
    forbidden = re.compile(
        "|".join(["pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "/wor" + "k/", "/roo" + "t/"])
    )
    found = []
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if file.is_file() and (hit := forbidden.search(file.read_text(encoding="utf-8", errors="replace"))):
            found.append(f"{name}: {hit.group()}")
    assert found == []
