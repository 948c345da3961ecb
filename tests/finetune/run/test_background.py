"""Who gives way to whom: a process that steps aside takes nobody with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.run.background import AUTOGROUP, LOWEST

ROOT = Path(__file__).parents[3]

ASIDE = """
import os
from finetune.run.background import AUTOGROUP, lower_priority

if (child := os.fork()) == 0:
    lower_priority()
    os._exit(os.nice(0))
own, session = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), AUTOGROUP.read_text()
lower_priority()
print(own, session.split()[-1], AUTOGROUP.read_text().split()[-1])
"""


@pytest.mark.skipif(not AUTOGROUP.is_file(), reason="this system does not weigh sessions")
def test_only_a_run_in_a_session_of_its_own_has_the_session_give_way() -> None:
    """An estimate, which is a child of the suite, must not slow the suite down, nor the shell it was started from."""
    done = subprocess.run(
        [sys.executable, "-c", ASIDE],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert done.stdout.split() == [str(LOWEST), "0", str(LOWEST)]
