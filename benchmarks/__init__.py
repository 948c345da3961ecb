"""What the suite costs and how well its models do: `make bench`, `make eval`, `make screenshots`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Before Gradio, its client or transformers are imported: nothing measured here may call any other host.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
# No stored answers, here and in every server and worker that is started from here: what is measured is computed.
os.environ["SUITE_ANSWER_CACHE"] = "0"
# Spaces are packages under their own names, as in the suite.
if str(ROOT / "spaces") not in sys.path:
    sys.path.append(str(ROOT / "spaces"))
