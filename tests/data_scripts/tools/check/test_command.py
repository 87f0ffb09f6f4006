import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from rasterio.rio.main import main_group

from data_scripts.__main__ import main
from ganvas.data.encode import write_image

ROOT = Path(__file__).parents[4]


def picture(path, seed, size=(16, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def check(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main(["check", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def clean(tmp_path):
    """Side-by-side pairs without a fault."""
    for i, split in enumerate(["train", "train", "val", "test"]):
        picture(tmp_path / split / f"{i}.png", i)
    return tmp_path


def test_a_clean_set(check, clean):
    code, out, _ = check(clean)
    assert code == 0
    assert "side by side" in out
    assert "train: 2 images; all 16x8; all 8-bit color" in out
    assert "Nothing is wrong." in out


def test_everything_that_is_wrong_is_said(check, clean):
    (clean / "train" / "text.png").write_text("not a image")
    whole = clean / "train" / "cut.jpg"
    picture(whole, 5, (160, 80))
    whole.write_bytes(whole.read_bytes()[:2000])
    picture(clean / "train" / "odd.png", 6, (15, 8))
    picture(clean / "train" / "gray.png", 7, mode="L")
    (clean / "test" / "copy.png").write_bytes((clean / "train" / "0.png").read_bytes())
    (clean / "train" / "again.png").write_bytes((clean / "train" / "1.png").read_bytes())
    code, out, _ = check(clean)
    assert code == 1
    for said in (
        "6 problems",
        "train/text.png: is no image",
        "train/cut.jpg: cannot be decoded",
        "1 images have an odd width and do not split into A and B (odd.png)",
        "1 images are 8-bit grayscale among 8-bit color (gray.png)",
        "1 groups of images with the same content across splits (train/0.png = test/copy.png)",
        "1 groups of images with the same content within a split (train/1.png = train/again.png)",
    ):
        assert said in out.replace("\\", "/"), said


@pytest.mark.parametrize("names", [("trainA", "trainB"), ("train/a", "train/b")])
def test_paired_folders(check, tmp_path, names):
    a, b = (tmp_path / name for name in names)
    for i in range(4):
        picture(a / f"{i}.png", i)
        picture(b / f"{i}.jpg", 10 + i)
    assert check(tmp_path)[0] == 0
    picture(a / "alone.png", 30)
    picture(b / "0.jpg", 31, (18, 8))
    code, out, _ = check(tmp_path)
    assert code == 1
    assert "paired folders" in out
    assert f"{names[0]}: 1 images have no partner in {names[1]} (alone)" in out
    assert f"{names[0]} and {names[1]}: 1 pairs differ in size (0)" in out


def test_names_that_differ_only_in_the_suffix(check, tmp_path):
    for i, name in enumerate(["A/x.png", "A/x.bmp", "B/x.png"]):
        picture(tmp_path / f"train{name}", i)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert "trainA: 1 names are used twice, with different suffixes or encodings of accents (x)" in out
    assert "1 problems" in out


def test_a_missing_domain(check, tmp_path):
    picture(tmp_path / "trainA" / "x.png", 0)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert "trainB: there is no such folder, while trainA exists" in out


def test_unpaired_folders_need_no_partners(check, tmp_path):
    for i in range(3):
        picture(tmp_path / "trainA" / f"horse{i}.png", i)
        picture(tmp_path / "trainB" / f"zebra{i}.png", 10 + i)
    code, out, _ = check(tmp_path)
    assert code == 0
    assert "unpaired folders" in out


def test_json(check, clean):
    picture(clean / "train" / "odd.png", 6, (15, 8))
    code, out, _ = check(clean, "--json")
    report = json.loads(out)
    assert code == 1
    assert report["layout"] == "side by side"
    assert report["folders"]["train"]["sizes"] == {"16x8": 2, "15x8": 1}
    assert len(report["problems"]) == 1


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_cannot_be_looked_at(check, tmp_path, name):
    code, out, err = check(tmp_path / name)
    assert code == 2
    assert out == ""
    assert ("no such folder" if name == "nowhere" else "holds no dataset") in err


@pytest.mark.slow
def test_as_a_process(clean):
    command = [sys.executable, "-m", "data_scripts", "check", str(clean)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Nothing is wrong." in result.stdout


def test_unknown_script():
    command = [sys.executable, "-m", "data_scripts", "eart"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "there is no command 'eart'" in result.stderr
    assert "earth" in result.stderr


class TestLayouts:
    def test_several_sources_of_one_name_belong_together(self, check, tmp_path):
        for i in range(3):
            for folder in ("b", "radar", "sun"):
                picture(tmp_path / "train" / folder / f"{i}.png", 10 * i + len(folder))
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "paired folders" in out
        (tmp_path / "train" / "sun" / "1.png").unlink()
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "train/radar: 1 images have no partner in train/sun (1)" in out
        assert "1 problems" in out

    def test_a_split_in_two_layouts(self, check, clean):
        picture(clean / "trainA" / "x.png", 20)
        picture(clean / "trainB" / "x.png", 21)
        code, out, _ = check(clean)
        assert code == 1
        assert "train is there in more than one layout (trainA and trainB; train)" in out

    def test_a_folder_beside_pictures_is_passed_over_as_in_training(self, check, clean):
        picture(clean / "train" / "backup" / "x.png", 20)
        code, out, _ = check(clean)
        assert code == 0
        assert "backup" not in out

    @pytest.mark.parametrize("present", ["trainA", "trainB", "train/a", "train/b"])
    def test_each_half_may_be_missing(self, check, tmp_path, present):
        picture(tmp_path / present / "x.png", 0)
        other = {"A": "B", "B": "A", "a": "b", "b": "a"}[present[-1]]
        code, out, _ = check(tmp_path)
        assert code == 1
        assert f"{present[:-1]}{other}: there is no such folder, while {present} exists" in out

    def test_an_empty_half(self, check, tmp_path):
        picture(tmp_path / "trainA" / "x.png", 0)
        (tmp_path / "trainB").mkdir()
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "trainB: holds no images" in out

    def test_a_set_without_any_picture(self, check, tmp_path):
        (tmp_path / "train").mkdir()
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "train: holds no images" in out

    def test_shards_are_to_be_checked_before_packing(self, check, tmp_path):
        (tmp_path / "train-000000.tar").write_bytes(b"")
        code, _, err = check(tmp_path)
        assert code == 2
        assert "shards; check the folder that they were packed from" in err


class TestKinds:
    def test_splits_of_different_kinds(self, check, tmp_path):
        for i in range(2):
            picture(tmp_path / "trainA" / f"a{i}.png", i)
            picture(tmp_path / "trainB" / f"b{i}.png", 10 + i, mode="L")
            picture(tmp_path / "testA" / f"c{i}.png", 20 + i, mode="L")
            picture(tmp_path / "testB" / f"d{i}.png", 30 + i, mode="L")
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "testA: images are 8-bit grayscale, while those of trainA are 8-bit color" in out
        assert "1 problems" in out

    def test_what_is_converted_is_a_note(self, check, tmp_path):
        for i, mode in enumerate(["RGBA", "P", "CMYK", "RGB"]):
            picture(tmp_path / "train" / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}", i, mode=mode)
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "train: 1 images are transparent" in out
        assert "(RGBA.png)" in out
        assert "1 images are CMYK, and become RGB (CMYK.jpg)" in out
        assert "1 images have a palette, and become RGB (P.png)" in out
        report = json.loads(check(tmp_path, "--json")[1])
        assert report["folders"]["train"]["converted"] == {"transparency": 1, "CMYK": 1, "palette": 1}

    def test_colour_files_without_colour_are_a_note_unless_all_are(self, check, tmp_path):
        for i in range(5):
            picture(tmp_path / "train" / f"{i}.png", i)
        for i in range(2):
            gray = np.random.default_rng(i).integers(0, 256, (8, 16, 1), dtype=np.uint8)
            Image.fromarray(gray.repeat(3, axis=2)).save(tmp_path / "train" / f"gray{i}.png")
        code, out, _ = check(tmp_path)
        assert code == 0
        assert "train: 2 color files show no color (gray0.png, gray1.png)" in out
        for i in range(5):
            (tmp_path / "train" / f"{i}.png").unlink()
        assert "show no color" not in check(tmp_path)[1]


def test_unreadable_pictures_are_all_named(check, clean):
    for i in range(7):
        (clean / "train" / f"broken{i}.png").write_text("not a image")
    code, out, _ = check(clean)
    assert code == 1
    assert "7 problems" in out
    for i in range(7):
        assert f"train/broken{i}.png: is no image" in out


class TestDuplicates:
    def scene(self, path, seed, **options):
        """A image that is no mere noise, so that copies are alike."""
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(values).resize((64, 64), Image.Resampling.BICUBIC).save(path, **options)

    def test_across_splits_they_are_wrong_and_within_one_a_note(self, check, tmp_path):
        for i, place in enumerate(["trainA/1", "trainA/2", "trainB/3", "trainB/4", "testA/5", "testB/6"]):
            self.scene(tmp_path / f"{place}.png", i)
        self.scene(tmp_path / "testA" / "copy.jpg", 1, quality=60)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "1 pairs of near-duplicates across splits (trainA/2.png ~ testA/copy.jpg, " in out
        assert "of 64 bits differ, likeness " in out
        (tmp_path / "testA" / "copy.jpg").rename(tmp_path / "trainA" / "copy.jpg")
        code, out, _ = check(tmp_path)
        assert code == 0
        assert "1 pairs of near-duplicates within a split (trainA/2.png ~ trainA/copy.jpg, " in out
        (found,) = json.loads(check(tmp_path, "--json")[1])["near_duplicates"]
        assert (found["first"], found["second"]) == ("trainA/2.png", "trainA/copy.jpg")
        assert 0 <= found["bits"] <= 16
        assert 0.75 <= found["likeness"] <= 1

    def test_side_by_side_both_halves_count(self, check, tmp_path):
        for split, seeds in (("train", (1, 2)), ("val", (1, 3))):
            for side, seed in enumerate(seeds):
                self.scene(tmp_path / f"{side}.png", seed)
            both = [np.asarray(Image.open(tmp_path / f"{side}.png")) for side in range(2)]
            (tmp_path / split).mkdir()
            Image.fromarray(np.hstack(both)).save(tmp_path / split / "x.jpg")
        code, out, _ = check(tmp_path)
        assert code == 0, out
        Image.open(tmp_path / "train" / "x.jpg").save(tmp_path / "val" / "y.jpg", quality=50)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "train/x.jpg ~ val/y.jpg" in out

    def test_equal_targets_of_different_sources_are_no_duplicates(self, check, tmp_path):
        for i in range(3):
            self.scene(tmp_path / "trainA" / f"{i}.png", i)
            self.scene(tmp_path / "trainB" / f"{i}.png", 50)
        assert check(tmp_path)[0] == 0
        self.scene(tmp_path / "trainA" / "again.png", 1)
        self.scene(tmp_path / "trainB" / "again.png", 50)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "1 groups of images with the same content within a split (trainA/1.png = trainA/again.png)" in out

    def test_a_gray_source_of_its_target_is_no_duplicate(self, check, tmp_path):
        for i in range(3):
            self.scene(tmp_path / "trainB" / f"{i}.png", i)
            (tmp_path / "trainA").mkdir(exist_ok=True)
            Image.open(tmp_path / "trainB" / f"{i}.png").convert("L").save(tmp_path / "trainA" / f"{i}.png")
        code, out, _ = check(tmp_path)
        assert code == 0
        assert "duplicates" not in out


def test_published_maps(check, published_data):
    code, out, _ = check(published_data / "maps", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["layout"] == "side by side"
    assert {name: folder["pictures"] for name, folder in report["folders"].items()} == {"train": 1096, "val": 100}
    assert report["folders"]["train"]["sizes"] == {"572x286": 1096}
    # Seven tiles overlap others almost wholly, seen by eye; neighbors that overlap less are none of them.
    found = {(each["first"], each["second"]) for each in report["near_duplicates"]}
    assert {("train/289.jpg", "train/510.jpg"), ("train/180.jpg", "train/433.jpg")} <= found
    assert 5 <= len(found) <= 10


def test_published_horses_and_zebras(check, published_data):
    code, out, _ = check(published_data / "horse2zebra", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["layout"] == "unpaired folders"
    counts = {name: folder["pictures"] for name, folder in report["folders"].items()}
    assert counts == {"trainA": 1067, "trainB": 1334, "testA": 120, "testB": 140}
    assert report["folders"]["trainB"]["kinds"]["8-bit grayscale"] == 7
    assert len(report["identical"]) == 25  # byte-identical groups that exist upstream
    # Each of 24 pairs was looked at; three of them are in training and test.
    assert 22 <= len(report["near_duplicates"]) <= 27
    across = {(each["first"], each["second"]) for each in report["near_duplicates"] if each["across_splits"]}
    assert ("trainB/n02391049_2136.jpg", "testB/n02391049_5240.jpg") in across
    assert len(across) == 3


LEGEND = {"land": [242, 239, 228], "lake": [110, 165, 225]}


@pytest.mark.parametrize(("suffix", "said"), [(".png", "2 of 4 images are drawn in its colors"), (".jpg", "but no")])
def test_whether_a_legend_is_heeded(check, clean, suffix, said):
    (clean / "dataset.json").write_text(json.dumps({"legend": LEGEND}))
    for number in range(2):
        path = clean / "train" / f"{number}.png"
        values = np.array(Image.open(path))
        values[:, 8:], values[: number + 2, 8:12] = LEGEND["land"], LEGEND["lake"]
        path.unlink()
        Image.fromarray(values).save(path.with_suffix(suffix))
    code, out, _ = check(clean)
    assert code == 0, out
    assert f"dataset.json has a legend{';' if suffix == '.png' else ','} {said}" in out


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is no JSON"), ('{"legend": {"land": "green"}}', "the legend is {'land': 'green'}")]
)
def test_a_description_that_is_none(check, clean, text, said):
    (clean / "dataset.json").write_text(text)
    code, out, _ = check(clean)
    assert code == 1
    assert f"1 problems:\n  dataset.json: {said}" in out


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_transparency_is_noted_where_pillow_cannot_read(check, tmp_path, channels):
    values = np.random.default_rng(1).integers(0, 65536, (8, 16, channels), dtype=np.uint16)
    write_image(tmp_path / "train" / "x.tif", values, alpha="straight")
    write_image(tmp_path / "train" / "y.tif", values[::-1, :, :-1])
    code, out, _ = check(tmp_path)
    assert code == 0, out
    assert "train: 1 images are transparent" in out
    assert "(x.tif)" in out


class TestFloats:
    def write(self, folder, count, low, high, dtype=np.float32):
        """Write noise that reaches from ``low`` to ``high`` over all files, and not in each."""
        for number in range(count):
            values = np.random.default_rng([*folder.name.encode(), number]).uniform(low, high, (8, 16, 1))
            values[0, 0] = (low, high)[number % 2]
            write_image(folder / f"{number}.tif", values.astype(dtype))

    def test_values_that_are_no_numbers_are_wrong(self, check, tmp_path):
        for number, value in enumerate([0.5, np.nan, np.inf]):
            values = np.random.default_rng(number).uniform(0, 1, (8, 16, 1)).astype(np.float32)
            values[3, 4] = value
            write_image(tmp_path / "train" / f"{number}.tif", values)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "2 problems" in out
        for number in (1, 2):
            assert f"train/{number}.tif: has values that are not finite" in out

    def test_the_range_of_the_whole_set_is_named_as_an_option(self, check, tmp_path):
        self.write(tmp_path / "train", 4, -670, 1000)
        self.write(tmp_path / "val", 2, -20.5, 1420.1)
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "  floats reach beyond 0 to 1; train (A to B) with --value-range=-670:1420.1\n" in out

    @pytest.mark.parametrize(
        ("kinds", "said"),
        [
            ({"A": (-10, 10), "B": (0, 255, np.uint8)}, "--value-range=-10:10 --target-range=0:255"),
            ({"A": (0, 255, np.uint8), "B": (-10, 10)}, "--target-range=-10:10"),
            ({"A": (-10, 10), "B": (0, 1)}, "--value-range=-10:10 --target-range=0:1"),
            ({"A": (-10, 10), "B": (0, 5)}, "--value-range=-10:10 --target-range=0:5"),
            ({"A": (-10, 10), "B": (-10, 10)}, "--value-range=-10:10"),
        ],
    )
    def test_each_side_of_a_pair_has_its_own(self, check, tmp_path, kinds, said):
        for side, (low, high, *dtype) in kinds.items():
            self.write(tmp_path / f"train{side}", 2, low, high, *dtype)
        out = check(tmp_path)[1]
        assert f"train (A to B) with {said}\n" in out

    def test_two_domains_have_options_of_their_own(self, check, tmp_path):
        self.write(tmp_path / "trainA", 2, 0, 1)
        self.write(tmp_path / "trainB", 2, 0, 9000)
        for number in range(2):
            (tmp_path / "trainB" / f"{number}.tif").rename(tmp_path / "trainB" / f"other{number}.tif")
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "with --value-range-b=0:9000\n" in out

    def test_floats_in_0_to_1_need_no_word(self, check, tmp_path):
        self.write(tmp_path / "train", 2, 0, 1)
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "floats reach" not in out


class TestMissingData:
    HEIGHTS = 500 + np.random.default_rng(5).random((40, 50, 1), dtype=np.float32) * 900  # 500 to 1400

    def write(self, root, suffix=".tif", **marks):
        """Two domains of floats; each mark lies in a corner of the target of its name."""
        for name, mark in {"plain": None, **marks}.items():
            target = self.HEIGHTS + np.float32(len(name))
            if mark is not None:
                target[:8, :10] = mark
            write_image(
                root / "trainA" / f"{name}.png", np.uint8(np.random.default_rng(len(name)).random((40, 50, 3)) * 255)
            )
            write_image(root / "trainB" / f"{name}{suffix}", target)

    @pytest.mark.parametrize(
        ("mark", "written"),
        [
            (-9999, "-9999"),
            (-3.4028234663852886e38, "-3.4028234663852886e+38"),
            (1e20, "1e+20"),
            (-32768, "-32768"),
            (9.969209968386869e36, "9.969209968386869e+36"),
        ],
    )
    def test_a_known_mark_is_named_and_left_out_of_the_range(self, check, tmp_path, mark, written):
        self.write(tmp_path, one=mark, two2=mark)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert (
            f"trainB: {written} looks like a mark of missing data in 2 images, 0.04 of their pixels (one.tif, two2.tif)"
            in out
        )
        assert f"gdal_edit.py -a_nodata {written} {tmp_path / 'trainB' / 'one.tif'}" in out
        low, high = re.search(r"--target-range=(\S+):(\S+)", out).groups()
        assert 503 <= float(low) <= 504.5
        assert 1402 <= float(high) <= 1405

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    @pytest.mark.parametrize("mark", [-9999, -3.4028234663852886e38])
    def test_the_command_that_it_names_makes_it_right(self, check, tmp_path, mark):
        self.write(tmp_path, one=mark)
        out = check(tmp_path)[1]
        command = re.search(r"rio edit-info --nodata=\S+ \S+\.tif", out).group()
        main_group(shlex.split(command)[1:], standalone_mode=False)
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "missing data" not in out

    def test_a_border_of_zeros_is_a_note(self, check, tmp_path):
        self.write(tmp_path, one=0)
        code, out, _ = check(tmp_path)
        assert code == 0
        assert "trainB: 0 forms borders and may mark missing data in 1 images, 0.04 of their pixels (one.tif)" in out
        low, _ = re.search(r"--target-range=(\S+):(\S+)", out).groups()
        assert 503 <= float(low) <= 504.5

    def test_other_formats_cannot_tag_it(self, check, tmp_path):
        self.write(tmp_path, ".npy", one=-9999)
        out = check(tmp_path)[1]
        assert "only TIFF can tag it" in out
        assert "gdal_edit" not in out

    def test_a_whole_image_of_it_does_not_widen_the_range(self, check, tmp_path):
        self.write(tmp_path, one=-9999)
        write_image(tmp_path / "trainB" / "one.tif", np.full((40, 50, 1), -9999, np.float32))
        out = check(tmp_path)[1]
        assert "-9999 looks like a mark of missing data in 1 images, 1 of their pixels" in out
        assert "-9999:" not in out

    def test_heights_that_reach_the_sea_and_depths_below_are_data(self, check, tmp_path):
        self.write(tmp_path)
        slope = np.linspace(-12000, 1400, 2000, dtype=np.float32).reshape(40, 50, 1)
        slope[np.abs(slope + 9999) < 4] = -9999
        write_image(tmp_path / "trainB" / "plain.tif", slope)
        code, out, _ = check(tmp_path)
        assert code == 0
        assert "--target-range=-12000:1400" in out
        write_image(tmp_path / "trainB" / "plain.tif", slope.clip(0))
        code, out, _ = check(tmp_path)
        assert code == 0
        assert "missing data" not in out
        assert "--target-range=0:1400" in out


class TestOtherFiles:
    def test_formats_that_are_not_read_are_a_note(self, check, clean):
        for name in ("x.gif", "y.gif", "z.heic", "notes.txt"):
            (clean / "train" / name).touch()
        code, out, _ = check(clean)
        assert code == 0
        assert "train: Files in other formats are not read: 2 .gif, 1 .heic\n" in out

    def test_a_broken_link_says_where_it_points(self, check, clean):
        (clean / "train" / "x.png").symlink_to("../gone.png")
        code, out, _ = check(clean)
        assert code == 1
        assert "train/x.png: is a broken symbolic link to ../gone.png" in out


class TestOtherLayouts:
    @pytest.mark.parametrize("names", ["train/A train/B", "A/train B/train", "TRAINA TRAINB"])
    def test_of_other_tools(self, check, tmp_path, names):
        for number, name in enumerate(names.split()):
            for i in range(2):
                picture(tmp_path / name / f"{i}.png", 10 * number + i)
        code, out, _ = check(tmp_path)
        assert code == 0, out
        assert "paired folders" in out
        for name in names.split():
            assert f"{name}: 2 images" in out

    def test_one_side_of_them(self, check, tmp_path):
        picture(tmp_path / "B" / "train" / "x.png", 0)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "A/train: there is no such folder, while B/train exists. Both are needed" in out

    def test_several_sources_come_with_the_options_that_they_need(self, check, tmp_path):
        for number, folder in enumerate(["b", "radar", "sun"]):
            picture(tmp_path / "train" / folder / "0.png", number)
        assert "several sources: train with --source radar --source sun --target b" in check(tmp_path)[1]
        picture(tmp_path / "val" / "b" / "0.png", 10)
        picture(tmp_path / "val" / "radar" / "0.png", 11)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "val: has other folders than train" in out

    def test_classes_are_no_sources(self, check, tmp_path):
        for number, name in enumerate(["cat/felix", "dog/rex"]):
            picture(tmp_path / "train" / f"{name}.png", number)
        code, out, _ = check(tmp_path)
        assert code == 1
        assert "the folders cat, dog are neither a and b" in out

    def test_shards_beside_folders_are_named(self, check, clean):
        (clean / "val-000000.tar").touch()
        code, out, _ = check(clean)
        assert code == 1
        assert "val is there in more than one layout (val-000000.tar; val)" in out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_broken_links_and_pages_that_are_other_images_are_problems(check, clean):
    os.mkfifo(clean / "train" / "pipe.png")
    (clean / "train" / "link.png").symlink_to("gone.png")
    tifffile.imwrite(clean / "train" / "pages.tif", np.zeros((8, 16), np.uint8))
    tifffile.imwrite(clean / "train" / "pages.tif", np.zeros((4, 4), np.uint8), append=True)
    code, out, _ = check(clean)
    assert code == 1
    assert "train/pipe.png: cannot be read (it is a pipe, a device or a socket, not a file)" in out
    assert "train/link.png: is a broken symbolic link to gone.png" in out
    assert "train/pages.tif: holds 2 pages (16x8, 4x4)" in out


def test_what_is_left_out_is_noted(check, clean):
    frames = [Image.fromarray(np.full((8, 16, 3), value, np.uint8)) for value in (3, 90)]
    frames[0].save(clean / "train" / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[1].save(clean / "train" / "profile.png", icc_profile=bytes(16) + b"RGB " + bytes(140))
    code, out, _ = check(clean)
    assert code == 0
    assert "train: 1 images are animations, of which only the first frame is read (moves.webp)" in out
    assert "train: 1 images have an ICC color profile other than sRGB" in out
    assert "(profile.png)" in out


def test_a_transparent_gray_of_16_bits_is_noted(check, clean):
    deep = Image.fromarray(np.arange(128, dtype=np.uint16).reshape(8, 16) * 500)
    deep.save(clean / "train" / "deep.png", transparency=1000)
    _, out, _ = check(clean)
    assert "train: 1 images are transparent, and composed over white" in out
    assert "(deep.png)" in out
