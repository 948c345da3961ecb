"""A Hub on this machine, for the real Hub clients to talk to in tests.

    with StandInHub() as hub:
        hub.add("user/tiny", {"config.json": "{}", "model.safetensors": weights})
        HfApi(endpoint=hub.endpoint).model_info("user/tiny", files_metadata=True)

It speaks the HTTP API as huggingface_hub 2.4 asks for it: repositories with branches and commits, regular files and
large ones (LFS, kept on a storage server of its own), tokens, private and gated repositories, Spaces. `hub.faults`
makes it fail on demand and `hub.requests` is what it was asked. The fixture `hub_env` turns this process's clients to
it. Not there: pull requests, discussions, Xet, uploads in parts, listings in pages, `.gitignore`.
"""

from tests.stand_in_hub.faults import Faults
from tests.stand_in_hub.hub import StandInHub, Token
from tests.stand_in_hub.wire import Request

__all__ = ["Faults", "Request", "StandInHub", "Token"]
