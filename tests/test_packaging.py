"""The package as `pip install .` installs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SOURCES = ("ganvas", "pix2pix", "cyclegan", "dcgan", "data_scripts", "setup.py", "pyproject.toml", "README.md")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the installed package; built from a copy, as a build leaves files beside the sources."""
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("installed")
    for name in (*SOURCES, "LICENSE", "tests"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(copy)], check=True, capture_output=True)
    return target


def test_only_the_listed_packages_are_installed(installed):
    folders = {path.name for path in installed.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")}
    assert folders == {"ganvas", "pix2pix", "cyclegan", "dcgan", "data_scripts", "bin"}
    files = ("py.typed", "evaluation/report/templates/report.html", "inference/web/templates/pad.js")
    assert all((installed / "ganvas" / file).is_file() for file in files)
    assert (installed / "data_scripts" / "sets" / "earth_elevation.npz").is_file()
    assert not list(installed.rglob("test_*.py"))


@pytest.mark.parametrize("command", ["pix2pix", "cyclegan", "dcgan"])
@pytest.mark.essential
def test_commands_work_outside_the_checkout(installed, tmp_path, command):
    result = subprocess.run(
        [sys.executable, str(installed / "bin" / command), "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"usage: {command}" in result.stdout
    assert "receptive-field" in result.stdout


def test_the_installed_package_is_the_one_that_runs(installed, tmp_path):
    code = "import ganvas, sys; print(ganvas.__file__, 'torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [str(installed / "ganvas" / "__init__.py"), "False"]
