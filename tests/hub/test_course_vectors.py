"""The real checkpoints of the course against what it publishes: `make test-hub`, where a Hub can be reached.

Not part of `make test`. Fetches about 5.3 GB into the Hub client's cache (`HF_HOME`) the first time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gradio_client import Client

from shared.settings import Settings
from shared.suite import serve
from tests.course_vectors import VECTORS, Vector


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    from huggingface_hub import constants

    suite = serve(Settings(port=0, profile="hub", warm_examples=False), block=False)
    try:
        asking = suite.runtime.hub.ask()
        if asking:
            asking.join()
        report = suite.runtime.hub.report()
        if report["state"] not in ("answers", "asking"):
            pytest.skip(f"no Hub answers at {constants.ENDPOINT}: {report['reason']}. Nothing was proved")
        yield Client(suite.url, verbose=False)
    finally:
        suite.close()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_published_result_comes_out(client: Client, vector: Vector) -> None:
    vector.check(client.predict(api_name=f"/{vector.endpoint}", **vector.inputs))
