"""What an assembled Space holds: all it needs, nothing else, and a card that the Hub accepts."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from shared.checkpoints.catalog import HubSource, Task
from shared.engines.choice import engine_module
from shared.errors import SuiteError
from shared.publishing.assemble import SUITE, Assembled, assemble, preloaded
from shared.publishing.card import SHORT, short_description, split
from shared.publishing.requirements import package_name, pinned_version, requirement_lines, space_requirements
from shared.serving.space import ROOT

NAMES = sorted(file.parent.name for file in (ROOT / "spaces").glob("*/examples.yaml"))


@pytest.fixture(scope="module")
def translation() -> Assembled:
    return assemble("translation")


def front_matter(assembled: Assembled) -> dict[str, Any]:
    return split(assembled.files["README.md"].decode())[0]


# -- files ---------------------------------------------------------------------------------------------------


def test_a_space_takes_its_package_and_what_it_imports(translation: Assembled) -> None:
    paths = set(translation.files)
    assert {"app.py", "README.md", "requirements.txt", "LICENSE", "NOTICE", "thumbnail.png"} <= paths
    assert {"translation/__init__.py", "translation/task.py", "translation/ui.py", "translation/examples.yaml"} <= paths
    assert {
        "shared/suite.py",
        "shared/checkpoints/catalog.yaml",
        "shared/page/assets/suite.css",
        "shared/engines/firefox/reference.py",
    } <= paths
    assert (
        translation.files["shared/checkpoints/catalog.yaml"]
        == (ROOT / "shared" / "checkpoints" / "catalog.yaml").read_bytes()
    )


def test_it_leaves_out_other_spaces_their_engines_and_what_only_developers_use(translation: Assembled) -> None:
    folders = {path.partition("/")[0] for path in translation.files if "/" in path}
    assert folders == {"shared", "translation"}
    for module in ("engines/causal_lm", "engines/sentence_encoder", "assemble", "deploy", "hub", "pin"):
        assert f"shared/{module}.py" not in translation.files
    assert not any("/heads/" in path for path in translation.files)


def test_a_head_that_was_trained_here_goes_where_it_is_used() -> None:
    assert "shared/engines/audio/heads/latin-five/head.safetensors" in assemble("audio_genre").files


def test_the_card_names_what_the_space_can_use(translation: Assembled) -> None:
    text = translation.files["README.md"].decode()
    _, of_the_hub, embedded = text.split("\n## ")
    assert "- Helsinki-NLP/opus-mt-en-es (Apache-2.0), the default\n" in of_the_hub
    assert "- alirezamsh/small100 (MIT)\n" in of_the_hub
    assert "- firefox-translations-en-pt (MPL-2.0)\n" in embedded
    assert "thumbnail" not in split(text)[0], "the Hub wants its address, which is known where it is deployed to"


def test_the_defaults_of_the_hub_fit_together_into_the_smallest_space() -> None:
    memory = sum(engine_module(checkpoint).memory_bytes(checkpoint) for checkpoint in preloaded(SUITE))
    assert memory <= 0.4 * 16e9, "ZeroGPU has them all in memory at once"


@pytest.mark.parametrize("name", [*NAMES, SUITE])
def test_nothing_hidden_cached_or_for_tests_is_taken(name: str) -> None:
    for path in assemble(name).files:
        parts = path.split("/")
        assert not any(part.startswith(".") or part in ("tests", "__pycache__", "docs", "benchmarks") for part in parts)
        assert path.endswith(
            (".py", ".yaml", ".css", ".js", ".txt", ".md", ".png", ".json", ".svg", ".ogg", ".safetensors")
        ) or path in (
            "LICENSE",
            "NOTICE",
            "pyproject.toml",
        )


def test_the_suite_takes_every_space() -> None:
    files = assemble(SUITE).files
    assert all(f"{name}/task.py" in files for name in NAMES)
    assert "# Foundation Model Demo Suite" in files["README.md"].decode()


@pytest.fixture
def own_root(tmp_path: Path) -> Iterator[Path]:
    """A copy of the repository's sources that may be changed."""
    root = tmp_path / "root"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("shared", "spaces"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for name in ("requirements.txt", "constraints.txt", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, root)
    yield root
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(tmp_path))]


def test_keys_caches_and_links_beside_the_code_stay_here(own_root: Path) -> None:
    folder = own_root / "spaces" / "translation"
    for name in (".env", ".git/config", "__pycache__/task.pyc", "server.pem", "tests/test_it.py", "notes.sqlite"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("private")
    (folder / "link.txt").symlink_to("/etc/hostname")
    (folder / "glossary.csv").write_text("en,pt\n")
    files = assemble("translation", root=own_root).files
    assert files["translation/glossary.csv"] == b"en,pt\n"
    assert not any(b"private" in data for path, data in files.items() if path.startswith("translation/"))
    assert "translation/link.txt" not in files
    assert "thumbnail.png" not in files
    assert "thumbnail" not in split(files["README.md"].decode())[0]


def test_a_token_in_a_file_is_refused(own_root: Path) -> None:
    (own_root / "spaces" / "translation" / "settings.yaml").write_text("token: hf_" + "a1B2" * 9)
    with pytest.raises(SuiteError, match=r"translation/settings\.yaml holds what looks like a token"):
        assemble("translation", root=own_root)


def test_a_new_space_needs_no_mention_anywhere(own_root: Path) -> None:
    new = own_root / "spaces" / "brand_new"
    new.mkdir()
    (new / "__init__.py").write_text(
        "from brand_new.task import Ask, guess\n"
        "from shared.serving.endpoint import Endpoint\nfrom shared.serving.space import Space\n\n"
        "ENDPOINTS = (Endpoint(guess, Ask, {}, hub_task='fill-mask'),)\n"
        "SPACE = Space('brand_new', 'Brand new', 'Says what is new.', ENDPOINTS)\n"
    )
    (new / "task.py").write_text(
        "from shared.media.text import sentences\nfrom shared.serving.requests import Request as Ask\n\n"
        "def guess(request, context): ...\n"
    )
    (new / "examples.yaml").write_text("{}")
    (new / "README.md").write_text("---\ntitle: Brand new\nemoji: 🆕\nlicense: mit\n---\n\n# Brand new\n")
    assembled = assemble("brand_new", root=own_root)
    card = front_matter(assembled)
    assert (card["title"], card["short_description"], card["license"]) == ("Brand new", "Says what is new", "mit")
    assert {checkpoint.kind for checkpoint in assembled.checkpoints} == {"masked-lm"}
    assert "shared/media/text.py" in assembled.files


def test_unknown_and_broken_spaces_are_named(own_root: Path) -> None:
    with pytest.raises(SuiteError, match="no Space called 'nope'"):
        assemble("nope")
    broken = own_root / "spaces" / "broken_here"
    broken.mkdir()
    (broken / "__init__.py").write_text("import no_such_module_anywhere")
    (broken / "examples.yaml").write_text("{}")
    with pytest.raises(SuiteError, match="broken_here cannot be imported: No module named 'no_such_module_anywhere'"):
        assemble("broken_here", root=own_root)


# -- the folder ----------------------------------------------------------------------------------------------


def test_the_folder_is_written_as_listed_and_made_anew(translation: Assembled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    translation.write(out)
    (out / "stale.py").write_text("old")
    translation.write(out)
    written = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert written == translation.files
    listing = translation.listing().splitlines()
    assert len(listing) == len(written) + 1
    assert listing[-1].split()[0] == f"{sum(map(len, written.values())):,}"


def test_a_folder_of_somebody_else_is_not_touched(translation: Assembled, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SuiteError, match="holds something else"):
        translation.write(tmp_path)
    with pytest.raises(SuiteError, match="holds something else"):
        translation.write(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


# -- the card ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, SUITE])
def test_the_card_says_what_the_hub_wants_to_know(name: str) -> None:
    assembled = assemble(name)
    card = front_matter(assembled)
    pins = dict(line.split("==") for line in assembled.files["requirements.txt"].decode().splitlines() if "==" in line)
    assert card["sdk"] == "gradio"
    assert card["sdk_version"] == pins["gradio[mcp]"]
    assert re.fullmatch(r"3\.\d+", card["python_version"])
    assert card["app_file"] in assembled.files
    assert card["license"]
    assert card["emoji"]
    assert 0 < len(card["short_description"]) <= SHORT
    assert card.get("models", []) == sorted(
        {c.source.repo for c in assembled.checkpoints if isinstance(c.source, HubSource)}
    )
    code = [(ROOT / "spaces" / one / "task.py").read_text() for one in (NAMES if name == SUITE else [name])]
    named = {match for text in code for match in re.findall(r'"([a-z-]+)"', text)} & set(get_args(Task))
    assert card["tags"] == sorted(named), "the endpoints state the tasks for which their functions borrow"
    assert "preload_from_hub" not in card
    if name != SUITE:
        assert split((ROOT / "spaces" / name / "README.md").read_text(encoding="utf-8"))[1].strip() in (
            assembled.files["README.md"].decode()
        )


def test_what_is_preloaded_and_the_picture_are_written_into_it() -> None:
    line = "openai-community/gpt2 config.json,model.safetensors 607a30d783dfa663caf39e06633721c8d4cfcd7e"
    card = front_matter(assemble("generation", preload=[line], thumbnail="http://127.0.0.1/thumbnail.png"))
    assert card["preload_from_hub"] == [line]
    assert card["thumbnail"] == "http://127.0.0.1/thumbnail.png"


def test_preloaded_are_the_defaults_of_the_hub_profile() -> None:
    assert {c.id for c in preloaded("generation")} == {
        "openai-community/gpt2",
        "microsoft/DialoGPT-medium",
    }


@pytest.mark.parametrize(
    ("sentence", "short"),
    [
        ("Say it.", "Say it"),
        ("Translate text between languages and see which sentence became which.", "Translate text between languages"),
        (
            "One two three four five six seven eight nine ten eleven twelve.",
            "One two three four five six seven eight nine ten eleven…",
        ),
        ("x" * 80, "x" * 60),
    ],
)
def test_short_descriptions(sentence: str, short: str) -> None:
    assert short_description(sentence) == short
    assert len(short) <= SHORT


# -- requirements --------------------------------------------------------------------------------------------


def test_requirements_are_ours_without_what_is_never_imported(translation: Assembled) -> None:
    ours = set(requirement_lines((ROOT / "requirements.txt").read_text()))
    constraints = set(requirement_lines((ROOT / "constraints.txt").read_text()))
    lines = requirement_lines(translation.files["requirements.txt"].decode())
    direct, brought = lines[: lines.index("py3langid==0.4.0") + 1], lines[lines.index("py3langid==0.4.0") + 1 :]
    assert set(direct) < ours
    assert set(brought) < constraints
    names = {package_name(line) for line in lines}
    assert {"gradio", "torch", "transformers", "sentencepiece", "starlette", "mcp", "pandas"} <= names
    assert not names & {"rouge-score", "sacrebleu", "pytest", "playwright", "hypothesis", "ruff"}
    assert "rouge-score" in {
        package_name(n) for n in requirement_lines(assemble("summarization").files["requirements.txt"].decode())
    }


def test_every_line_pins_and_none_names_an_index(translation: Assembled) -> None:
    text = translation.files["requirements.txt"].decode()
    assert all("==" in line for line in requirement_lines(text))
    assert not re.search(r"^\s*-|://", text, re.M)


def test_requirements_of_transformers_come_with_it() -> None:
    ours = "transformers==5.23.0\nsentencepiece==0.2.3\ngguf==0.19.0  # for quantised files\nPyYAML==6.0.3\n"
    assert requirement_lines(space_requirements(ours, "", {"yaml"})) == ["PyYAML==6.0.3"]
    assert requirement_lines(space_requirements(ours, "", {"transformers"})) == [
        *("transformers==5.23.0", "sentencepiece==0.2.3", "gguf==0.19.0")
    ]
    with pytest.raises(ValueError, match="does not pin gradio"):
        pinned_version(ours, "gradio")
