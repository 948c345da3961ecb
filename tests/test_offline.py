"""The embedded suite needs no network: it starts and answers where there is none, and never tries to reach one."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client

from shared.settings import Settings
from shared.suite import serve

ROOT = Path(__file__).parent.parent

SWITCHES = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED")
# One request of every Space, and what the answer must hold.
REQUESTS: list[tuple[str, tuple[Any, ...], str]] = [
    ("/zero_shot", ("The striker scored twice.",), "sports"),
    ("/summarize", ("The bridge is closed. It will open on Friday.",), "bridge"),
    ("/translate", ("Good morning.",), "Bom dia."),
    ("/next_token", ("The capital of France is",), " Paris"),
]

SCRIPT = f"""
import os, socket, sys
sys.path[:0] = [".", "spaces"]
from shared.settings import Settings
from shared.suite import serve
interfaces = [name for _, name in socket.if_nameindex()]
assert interfaces == ["lo"], interfaces
suite = serve(Settings(port=0, warm_examples=False, profile="embedded"), block=False)
from gradio_client import Client
client = Client(suite.url, verbose=False)
for name, values, expected in {REQUESTS!r}:
    answer = client.predict(*values, api_name=name)
    assert expected in str(answer[0]), (name, answer)
print("all answered", flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_the_suite_answers_in_a_namespace_with_loopback_only() -> None:
    # -r lends root inside the namespace, which bringing loopback up needs.
    isolated = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("unshare and ip are not on this machine")
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us make a network namespace")
    done = subprocess.run(
        [*isolated, sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        # Nothing of this process's settings that keep libraries from asking the Hub: the suite sees to it itself.
        env={key: value for key, value in os.environ.items() if key not in SWITCHES},
    )
    assert done.returncode == 0, done.stderr
    assert "all answered" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuses every way out of this machine, and notes who was called."""
    tried: list[str] = []
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def local(host: Any) -> bool:
        try:
            return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
        except ValueError:
            return host in ("localhost", "", None)

    def check(address: Any) -> None:
        if isinstance(address, tuple) and not local(address[0]):
            tried.append(str(address))
            raise OSError(f"this test has no network: {address}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *rest: Any, **options: Any) -> Any:
        check((host.decode() if isinstance(host, bytes) else host,))
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)
    return tried


def test_the_suite_calls_nobody(attempts: list[str]) -> None:
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    attempts.clear()
    suite = serve(Settings(port=0, warm_examples=False, profile="embedded"), block=False)
    try:
        client = Client(suite.url, verbose=False)
        for name, values, expected in REQUESTS:
            assert expected in str(client.predict(*values, api_name=name)[0])
    finally:
        suite.close()
    assert attempts == []
