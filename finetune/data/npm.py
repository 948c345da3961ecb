"""Packages of npm's registry as data: fetched by npm itself, checked by hash, never installed or run.

npm says where a package lies, so that registry, proxy and credentials are the ones the user configured for npm, and no
address is written down here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from shared.events import Progress
from shared.fetching.wheel import FetchFailed
from shared.settings import Settings

UNINFORMATIVE_PREFIXES = ("code ", "syscall ", "path ", "errno ", "A complete log")
"""How lines of npm's errors begin that do not name the cause."""
TIMEOUT_MINUTES = 20
"""npm tries again by itself; after so long it is ended."""


@dataclass(frozen=True)
class NpmPackage:
    """One version of a package."""

    package: str
    """`name@version`."""
    sha512: str
    """Of its archive (.tgz), in hex."""
    size: int

    @property
    def file_name(self) -> str:
        return re.sub(r"[^\w.]+", "-", self.package).strip("-") + ".tgz"


def tarball(source: NpmPackage, settings: Settings, progress: Progress) -> Path:
    """The package's archive on this machine, fetched the first time. Raises `FetchFailed`."""
    folder = settings.cache_dir / "corpora"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / source.file_name
    with FileLock(final.with_suffix(".lock")):
        if not final.is_file():
            progress(f"fetching {source.package}", 0, source.size)
            with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder) as temporary:
                fetched = npm_pack(source, Path(temporary))
                check(fetched, source)
                fetched.rename(final)
            progress(f"fetching {source.package}", source.size, source.size)
    return final


def npm_pack(source: NpmPackage, folder: Path) -> Path:
    """What `npm pack` puts into the folder. Raises `FetchFailed`."""
    npm = shutil.which("npm")
    if npm is None:
        raise FetchFailed(
            f"npm is needed to fetch {source.package}, and this machine has none; install Node.js, or take another "
            "source in the recipe (data.source)"
        )
    command = [npm, "pack", source.package, "--pack-destination", ".", "--ignore-scripts", "--no-update-notifier"]
    try:
        ran = subprocess.run(
            command,
            cwd=folder,  # and no package.json or .npmrc of a project
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "npm_config_audit": "false", "npm_config_fund": "false"},
            timeout=60 * TIMEOUT_MINUTES,
            check=False,
        )
        said = ran.stderr
    except subprocess.TimeoutExpired:
        said = f"nothing for {TIMEOUT_MINUTES} minutes"
    found = list(folder.glob("*.tgz"))
    if len(found) != 1:
        raise FetchFailed(
            f"{source.package} could not be fetched: the registry that npm is set up with could not be reached, or "
            f"does not have it. npm says: {cause(said)} Check the network, the proxy and npm's own settings "
            "(`npm config list`), then try again."
        )
    return found[0]


def check(file: Path, source: NpmPackage) -> None:
    """Raises `FetchFailed` where the archive is not the pinned one."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha512").hexdigest()
    if found != source.sha512:
        raise FetchFailed(
            f"{source.package} arrived with the wrong content (SHA-512 {found[:12]}…, expected "
            f"{source.sha512[:12]}…) and was thrown away. Something between this machine and the registry altered it; "
            "try again or from another network."
        )


def cause(stderr: str) -> str:
    """The line of npm's output that names the cause, without credentials."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [re.sub(r"^npm (error|ERR!)\s*", "", line) for line in lines if re.match(r"npm (error|ERR!)", line)]
    causes = [line for line in errors if not line.startswith(UNINFORMATIVE_PREFIXES)]
    words = re.sub(r"//[^/@\s]*@", "//", (causes or lines or ["nothing."])[0])
    return words if len(words) <= 300 else words[:300] + "…"
