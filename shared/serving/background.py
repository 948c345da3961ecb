"""What a suite does in the background once it has started: asks the Hub, adds models, computes first examples."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from shared.errors import Cancelled, NeedsDownload, SuiteError, UnknownCheckpoint
from shared.events import result_of
from shared.fetching.hub_models import added
from shared.serving.context import Context
from shared.serving.runtime import Runtime
from shared.serving.space import BrokenSpace, Space
from shared.serving.traffic import Traffic

log = logging.getLogger(__name__)


def begin_asking_the_hub(runtime: Runtime) -> None:
    """In the background: whether a Hub answers, and what the models named in SUITE_MODELS are."""
    asking = runtime.hub.ask()
    wanted = runtime.settings.models
    if not wanted:
        return

    def add() -> None:
        if asking:
            asking.join()
        for problem in result_of(added(wanted, runtime.catalog, runtime.hub)):
            log.warning("SUITE_MODELS: %s", problem)

    threading.Thread(target=add, name="add-models", daemon=True).start()


def warm(spaces: Sequence[Space | BrokenSpace], runtime: Runtime, traffic: Traffic) -> None:
    """Computes each tab's first example, so that the first visitor sees a real answer at once, of weights in memory.

    In the order of the tabs. The log says which one fails and why, and the others are computed.
    """
    context = Context(runtime, visitor="warm-up", may_download=False)
    for endpoint, request in list(traffic.answers.pending()):
        for space in spaces:
            if not isinstance(space, Space) or endpoint not in {e.name for e in space.endpoints}:
                continue
            try:
                for _ in space.endpoint(endpoint).run(request, context, traffic):
                    pass
            except (UnknownCheckpoint, NeedsDownload):
                continue  # the page says what is missing
            except SuiteError as error:
                log.warning("the first example of %s could not be computed: %s", endpoint, error)
            except Cancelled:  # the suite was closed
                return
