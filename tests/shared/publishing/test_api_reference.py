"""docs/API.md is what the endpoints say, holds every endpoint of the API, and its commands are answered."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from shutil import which

import pytest

from shared.publishing.api_reference import FILE, HEAD, OUTPUTS, all_endpoints, reference
from shared.suite import Suite

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "tests" / "api_schema.json").read_text(encoding="utf-8"))
SHOWN_FIRST = re.findall(r"^```bash\n(curl .*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
COMMANDS = {e.name: e.curl for e in all_endpoints()} | {"README": "\n".join(SHOWN_FIRST)}
NOT_HERE = {"fill_mask"}
"""No package brings a checkpoint for it."""


def test_the_reference_is_up_to_date() -> None:
    [command] = re.findall(r"`(python -m \S+)`", HEAD)
    assert FILE.read_text(encoding="utf-8") == reference(), f"run {command}"


def test_every_endpoint_of_the_api_is_in_the_reference_with_its_inputs() -> None:
    assert {f"/{e.name}" for e in all_endpoints()} == set(SCHEMA)
    for endpoint in all_endpoints():
        committed = SCHEMA[f"/{endpoint.name}"]
        assert committed["description"].startswith(endpoint.summary)
        assert len(endpoint.outputs) + 1 == len(committed["returns"])
        assert [(p.name, p.default) for p in endpoint.parameters] == [
            (p["name"], f"`{json.dumps(p['default'], ensure_ascii=False)}`" if "default" in p else "required")
            for p in committed["parameters"]
        ]
        section = reference().partition(f"\n## {endpoint.name}\n")[2].partition("\n## ")[0]
        assert all(f"| `{name}` |" in section for name in [p.name for p in endpoint.parameters])


def test_every_output_is_described() -> None:
    assert [name for endpoint in all_endpoints() for name in endpoint.outputs if not OUTPUTS.get(name)] == []


@pytest.mark.skipif(which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_are_answered(suite: Suite, tmp_path: Path, name: str) -> None:
    (tmp_path / "spaces").symlink_to(ROOT / "spaces")
    command = COMMANDS[name].replace("http://127.0.0.1:7860/", suite.url)
    done = subprocess.run(["sh", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    ended = "event: complete" if name == "batch" else "event: done"
    assert (ended in done.stdout) != (name in NOT_HERE), done.stdout
    if name in NOT_HERE:
        assert json.loads(done.stdout)["status"] >= 400
