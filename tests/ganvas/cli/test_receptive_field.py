import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ganvas.cli.receptive_field import ReceptiveFieldOptions, run
from ganvas.errors import UserError
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from ganvas.nn.unet import UNetGenerator


def build(num_layers: int) -> Mapping[str, nn.Module]:
    with torch.device("meta"):
        discriminator = PatchDiscriminator(num_layers=num_layers) if num_layers else PixelDiscriminator()
        return {"discriminator": discriminator, "generator": UNetGenerator()}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def as_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict]:
    def call(**options: object) -> dict:
        run(ReceptiveFieldOptions(json=True, **options), build)
        return json.loads(capsys.readouterr().out)

    return call


def test_the_options_load_without_torch() -> None:
    code = "import sys, ganvas.cli.receptive_field; print({'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    run(ReceptiveFieldOptions(), build)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["layers.6", "conv", "4,", "pad", "1", "70", "8", "11.5", "30", "x", "30"] in rows
    assert "Each output of the discriminator sees 70 x 70 pixels." in lines
    assert "Each output of the generator sees 1278 x 1278 pixels: more than the whole image." in lines
    assert max(map(len, lines)) <= 90


def test_json(as_json: Callable[..., dict]) -> None:
    answer = as_json(layers=2)
    assert (answer["layers"], answer["target"], answer["picture_size"]) == (2, None, [256, 256])
    discriminator = answer["networks"]["discriminator"]
    assert [layer["size"] for layer in discriminator["layers"]] == [4, 10, 22, 34]
    assert {key: discriminator[key] for key in ("size", "jump", "first_centre", "output_size")} == {
        "size": 34,
        "jump": 4,
        "first_centre": 5.5,
        "output_size": [62, 62],
    }
    assert answer["networks"]["generator"]["size"] == 1278


@pytest.mark.parametrize(
    ("target", "layers", "exact", "size"),
    [(70, 3, True, 70), (100, 3, False, 70), (1, 0, True, 1), (286, 5, True, 286)],
)
def test_target_gives_the_layers(
    as_json: Callable[..., dict], target: int, layers: int, exact: bool, size: int
) -> None:
    answer = as_json(target=target)
    assert (answer["layers"], answer["exact"]) == (layers, exact)
    assert answer["networks"]["discriminator"]["size"] == size


@pytest.mark.parametrize(
    ("target", "words"),
    [(70, "--layers 3 sees 70 x 70 pixels, exactly."), (100, "--layers 3 sees 70 x 70 pixels, the nearest to 100")],
)
def test_target_in_words(capsys: pytest.CaptureFixture[str], target: int, words: str) -> None:
    run(ReceptiveFieldOptions(target=target), build)
    assert capsys.readouterr().out.startswith(words)


def test_drawing(as_json: Callable[..., dict], photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    answer = as_json(image=photo, out=out, row=5, column=9)
    assert answer["drawing"] == str(out)
    assert answer["picture_size"] == [96, 128]
    assert answer["networks"]["discriminator"]["output_size"] == [10, 14]
    # Row 5 sees rows 17 to 86, column 9 sees columns 49 to 118: all inside of the image.
    source, drawn = np.asarray(Image.open(photo)), np.asarray(Image.open(out))
    scale = drawn.shape[1] // 128
    enlarged = source.repeat(scale, 0).repeat(scale, 1)
    inner = np.s_[17 * scale : 40 * scale, 49 * scale : 119 * scale]
    np.testing.assert_array_equal(drawn[inner], enlarged[inner])
    outer = np.s_[: 14 * scale, : 40 * scale]
    assert (drawn[outer] != enlarged[outer]).mean() > 0.9


def test_the_middle_logit_is_drawn_by_default(as_json: Callable[..., dict], photo: Path, tmp_path: Path) -> None:
    as_json(image=photo, out=tmp_path / "default.png")
    as_json(image=photo, out=tmp_path / "middle.png", row=5, column=7)
    as_json(image=photo, out=tmp_path / "other.png", row=4, column=7)
    default, middle, other = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("default", "middle", "other"))
    np.testing.assert_array_equal(default, middle)
    assert default.shape != other.shape or (default != other).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 7}, "--layers is 7"),
        ({"layers": -1}, "--layers is -1"),
        ({"target": 0}, "--target is 0"),
        ({"image": Path("x.png")}, "--image and --out"),
        ({"out": Path("y.png")}, "--image and --out"),
        ({"row": 0}, "--row and --column"),
        ({"column": 0}, "--row and --column"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(ReceptiveFieldOptions(**options), build)


@pytest.mark.parametrize(
    ("unit", "message"), [({"row": 10}, "--row is 10; the output has 0 to 9"), ({"column": -1}, "--column is -1")]
)
def test_logits_out_of_range(unit: dict, message: str, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(ReceptiveFieldOptions(image=photo, out=tmp_path / "out.png", **unit), build)
    assert not (tmp_path / "out.png").exists()


def test_an_image_too_small_for_the_network(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"30x20.*at least 24"):
        run(ReceptiveFieldOptions(image=tmp_path / "small.png", out=tmp_path / "out.png"), build)


@pytest.mark.parametrize(("target", "layers"), [(4, 1), (10, 2), (22, 3), (46, 4), (94, 5)])
def test_dcgan_searches_among_stacks_of_stride_2(capsys, target, layers):
    from dcgan.__main__ import main

    assert main(["receptive-field", "--target", str(target), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["layers"], result["exact"]) == (layers, True)
    assert result["networks"]["discriminator"]["size"] == target
