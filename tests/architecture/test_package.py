"""The package installs whole: `pip install .` and the set-up's promises."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_wheel_holds_every_file_of_the_package_and_the_licence(tmp_path):
    if util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools; pip install '.[test]' brings it")
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "src" / "semgan", source / "src" / "semgan", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(source), *options], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("semgan-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(source / "src")) for path in (source / "src" / "semgan").rglob("*") if path.is_file()
    }
    missing = sorted(expected - packed)
    assert not missing
    assert any(name.endswith("LICENSE") for name in packed)
    assert any(name.endswith("entry_points.txt") for name in packed)


def test_the_licence_is_apache_2():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def run_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """scripts/setup.sh in a copy of the project's outer files."""
    (folder / "scripts").mkdir()
    for name in ("pyproject.toml", "Makefile", "scripts/setup.sh"):
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(
        ["make", "venv"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def interpreter(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_setup_with_an_old_python_says_which_one_is_needed(tmp_path):
    old = interpreter(tmp_path / "old_python", "exit 1")
    done = run_setup(tmp_path, PYTHON=old)
    assert done.returncode != 0 and "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_setup_without_venv_says_how_to_get_it(tmp_path):
    bare = interpreter(tmp_path / "bare_python", f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"')
    done = run_setup(tmp_path, PYTHON=bare)
    assert done.returncode != 0 and "python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"make test", script.read_text(encoding="utf-8"))
