"""Models that come with ganvas."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import ganvas
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


def test_the_earth_model_draws_land_and_sea():
    """On a map of one coast the sea is pale blue and the land is green or brown; at any size, from Python."""
    translator = ganvas.load("earth")
    assert translator.config.kind == "pix2pix"
    assert sum(file.stat().st_size for file in (shipped.SHIPPED / "earth").iterdir()) < 8 * 2**20
    legend = translator.config.training["legend"]
    drawing = np.full((160, 200, 3), legend["land"], np.uint8)
    drawing[:, 100:] = legend["water"]
    output = translator.translate(drawing).astype(int)
    land, sea = output[40:120, 20:80].mean((0, 1)), output[40:120, 130:180].mean((0, 1))
    assert output.shape == drawing.shape
    assert sea[2] > sea[0] + 15  # blue above red
    assert land.sum() < sea.sum() - 60  # land is darker
    assert land[2] < sea[2] - 40
