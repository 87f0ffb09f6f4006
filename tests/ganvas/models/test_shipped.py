"""Models that come with ganvas."""

import shutil
from pathlib import Path

import pytest

from ganvas.errors import UserError
from ganvas.models import shipped
from ganvas.models.folder import local_model


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of two shipped models in place of the package's, and another folder to work in."""
    folder = tmp_path / "package"
    for name in ("earth", "mars"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setattr(shipped, "SHIPPED", folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.mark.parametrize("name", ["mars", "ganvas:mars", Path("mars"), Path("ganvas:mars")])
def test_a_name_is_the_packages_folder(models, name):
    assert local_model(name) == models / "mars"


@pytest.mark.parametrize("name", ["venus", "runs/mars", "./venus", Path("/mars")])
def test_other_paths_stay(models, name):
    assert local_model(name) == Path(name)


def test_a_name_that_is_also_a_folder_here_is_ambiguous(models):
    Path("mars").mkdir()
    with pytest.raises(UserError, match=r"^mars: is a name here and also .* ganvas:mars .* full path /.*/work/mars\.$"):
        local_model("mars")
    assert local_model("ganvas:mars") == models / "mars"
    assert local_model(Path("mars").absolute()) == Path("mars").absolute()


def test_unknown_shipped_models_are_refused(models):
    with pytest.raises(UserError, match=r"^ganvas:venus: ganvas comes with no such model\. It has: earth, mars\.$"):
        local_model("ganvas:venus")


def test_a_package_without_models(models):
    shutil.rmtree(models)
    assert local_model("earth") == Path("earth")
    with pytest.raises(UserError, match="It has: none"):
        local_model("ganvas:earth")
