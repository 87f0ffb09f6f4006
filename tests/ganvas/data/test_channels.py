"""Channels that trainings read from the data: what is chosen, what is said of others, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan.config import CycleGanConfig
from cyclegan.config import DataConfig as DomainData
from cyclegan.data import with_channels as domain_channels
from data_scripts.__main__ import main as data_scripts
from ganvas.data.channels import MAX_SAMPLED
from ganvas.data.paired import PairedDataset
from ganvas.data.unpaired import UnpairedDataset
from ganvas.errors import UserError
from pix2pix.config import DataConfig, Pix2PixConfig
from pix2pix.trainer import with_channels

MODES = {1: "L", 3: "RGB"}


def write(path, channels, size=(12, 8)):
    """A file of Pillow's or tifffile's with so many channels; "LA" and "RGBA" have alpha."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(channels, str) or channels in MODES:
        Image.new(MODES.get(channels, channels), size).save(path.with_suffix(".png"))
    else:
        bands = np.zeros((size[1], size[0], channels), np.uint16)
        tifffile.imwrite(path.with_suffix(".tif"), bands, photometric="minisblack", planarconfig="contig")


def pairs(root, a, b):
    for i, (one, two) in enumerate(zip(a, b, strict=True)):
        write(root / "trainA" / f"{i:02d}", one)
        write(root / "trainB" / f"{i:02d}", two)
    return root


def found(root, **options):
    config, notes = with_channels(Pix2PixConfig(data=DataConfig(data=root, **options)))
    return (config.data.source_channels, config.data.target_channels), " ".join(notes)


@pytest.mark.parametrize("channels", [(5, 1), (1, 3), (3, 1), (2, 7), (4, 4)])
def test_pairs_train_with_their_own_channels(tmp_path, channels):
    root = pairs(tmp_path, [channels[0]] * 2, [channels[1]] * 2)
    assert found(root) == (channels, f"Channels, as in the data: {channels[0]} to {channels[1]}.")
    assert found(root, direction="b2a")[0] == channels[::-1]
    assert found(root, source_channels=9)[0] == (9, channels[1])
    assert found(root, source_channels=8, target_channels=9) == ((8, 9), "")


def test_color_is_the_default(tmp_path):
    assert found(pairs(tmp_path, [3, 3], [3, 3])) == ((3, 3), "")


def test_side_by_side_shards_and_stacks(tmp_path):
    root = pairs(tmp_path / "two", [5, 5], [1, 1])
    assert data_scripts(["shards", str(root), str(tmp_path / "shards")]) == 0
    assert found(tmp_path / "shards")[0] == (5, 1)
    write(tmp_path / "one" / "train" / "x", 5, (16, 8))
    assert found(tmp_path / "one")[0] == (5, 5)
    for folder, channels in (("radar", 2), ("sun", "RGBA"), ("b", 1)):
        write(tmp_path / "stack" / "train" / folder / "x", channels)
    assert found(tmp_path / "stack", source=("radar", "sun"))[0] == (5, 1)


def test_ignored_alpha_is_reported_once_with_the_option_that_keeps_it(tmp_path):
    channels, notes = found(pairs(tmp_path, ["RGBA"] * 3, [3, "RGBA", "LA"]))
    assert channels == (3, 3)
    assert "3 of 3 source images looked at have alpha, and are composed over white" in notes
    assert "00.png). source_channels=4 keeps it." in notes
    assert "2 of 3 target images looked at have alpha" in notes
    assert "target_channels" not in notes
    assert "1 of 3 target images looked at are gray, and are repeated" in notes


def test_gray_images_among_color_ones_count_as_color(tmp_path):
    channels, notes = found(pairs(tmp_path, [1, 3, 1], [1, 1, 1]))
    assert channels == (3, 1)
    assert f"2 of 3 source images looked at are gray, and are repeated ({tmp_path / 'trainA' / '00.png'})." in notes


def test_mixed_channels_are_refused_with_counts_and_examples(tmp_path):
    root = pairs(tmp_path, [5, 3, 5, 1], [3] * 4)
    with pytest.raises(UserError) as caught:
        found(root)
    for message in ("1 have 1 (", "1 have 3 (", "2 have 5 (", "00.tif", "01.png", "03.png", "source_channels"):
        assert message in str(caught.value)
    assert found(root, source_channels=5)[0] == (5, 3)


def test_images_are_checked_evenly_over_the_dataset(tmp_path):
    count = 3 * MAX_SAMPLED
    root = pairs(tmp_path, [1] * (count - 1) + [3], [1] * count)
    channels, notes = found(root)
    assert channels == (3, 1)
    assert f"{MAX_SAMPLED - 1} of {MAX_SAMPLED} source images" in notes


def test_unreadable_images_are_ignored_unless_all_are(tmp_path):
    root = pairs(tmp_path, [5, 5, 5], [1, 1, 1])
    (root / "trainA" / "00.tif").write_bytes(b"no image")
    assert found(root)[0] == (5, 1)
    for path in (root / "trainA").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"00\.tif"):
        found(root)


def domains(root, a, b, *, identity=0.5, **options):
    pairs(root, a, b)
    default = CycleGanConfig(data=DomainData(data=root, **options))
    config, notes = domain_channels(replace(default, model=replace(default.model, lambda_identity=identity)))
    return (config.data.channels_a, config.data.channels_b), " ".join(notes)


@pytest.mark.parametrize(
    ("a", "b", "options", "expected"),
    [
        (3, 3, {}, (3, 3)),
        (5, 5, {}, (5, 5)),
        (1, 1, {}, (1, 1)),
        (1, 3, {}, (3, 3)),  # the identity loss sends images of b through the generator from a
        (3, 1, {}, (3, 3)),
        (1, 3, {"identity": 0}, (1, 3)),
        (1, 3, {"channels_a": 1}, (1, 3)),  # refused later, by the option
        (5, 3, {}, (5, 3)),
        (3, 3, {"channels_b": 4}, (3, 4)),
    ],
)
def test_domains(tmp_path, a, b, options, expected):
    channels, notes = domains(tmp_path, [a] * 2, [b] * 2, **options)
    assert channels == expected
    assert ("repeated to 3 channels" in notes) == ({a, b} == {1, 3} and not options)
    assert ("as in the data" in notes) == (expected != (3, 3))


def test_a_channel_mismatch_names_the_option_of_its_side(tmp_path):
    root = pairs(tmp_path, [3], [5])
    for direction, message in (("a2b", "2 are expected"), ("b2a", "9 are expected")):
        data = PairedDataset(
            root, "train", augmentation=None, direction=direction, source_channels=2, target_channels=9
        )
        option = "source_channels" if direction == "a2b" else "target_channels"
        with pytest.raises(UserError, match=rf"00\.png: has 3 channels, {message}\. Convert .* with {option}=3\."):
            data.pair(0)
    with pytest.raises(UserError, match=r"00\.tif: has 5 channels, 3 are expected\. .* target_channels=5\."):
        PairedDataset(root, "train", augmentation=None).pair(0)
    with pytest.raises(UserError, match=r"00\.tif: has 5 channels, 3 are expected\. .* channels_b=5\."):
        UnpairedDataset(root, "train", augmentation=None)[0, 0]
    write(tmp_path / "one" / "train" / "x", 5, (16, 8))
    with pytest.raises(UserError, match=r"x\.tif: has 5 channels, 1 are expected\. .* target_channels=5\."):
        PairedDataset(tmp_path / "one", "train", augmentation=None, source_channels=5, target_channels=1).pair(0)
