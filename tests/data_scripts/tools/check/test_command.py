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

from ganvas.data.encode import write_image

ROOT = Path(__file__).parents[4]
PALETTE = {"land": [242, 239, 228], "lake": [110, 165, 225]}


def image(path, seed, size=(16, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def images(root, *places, mode="RGB"):
    """Write noise, different in each place."""
    for place in places:
        image(root / place, int.from_bytes(place.encode()[-8:]), mode=mode)


def scene(path, seed, **options):
    """Write an image that is not mere noise, so that copies are similar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(values).resize((64, 64), Image.Resampling.BICUBIC).save(path, **options)


@pytest.fixture
def check(run):
    """Check a dataset, expect an exit code and texts in the report, and return the report."""

    def check(root, expected_code, *texts):
        code, out, err = run("check", root)
        assert code == expected_code, out + err
        for text in texts:
            assert text in out, out
        return out

    check.run = run
    check.json = lambda root: json.loads(run("check", root, "--json")[1])
    return check


@pytest.fixture
def clean(tmp_path):
    """Side-by-side pairs without a problem."""
    images(tmp_path, "train/0.png", "train/1.png", "val/2.png", "test/3.png")
    return tmp_path


def test_a_clean_dataset(check, clean):
    check(clean, 0, "side by side", "train: 2 images; all 16x8; all 8-bit color", "Nothing is wrong.")


def test_all_problems_are_reported(check, clean):
    (clean / "train" / "text.png").write_text("not an image")
    cut = clean / "train" / "cut.jpg"
    image(cut, 5, (160, 80))
    cut.write_bytes(cut.read_bytes()[:2000])
    image(clean / "train" / "odd.png", 6, (15, 8))
    image(clean / "train" / "gray.png", 7, mode="L")
    (clean / "test" / "copy.png").write_bytes((clean / "train" / "0.png").read_bytes())
    (clean / "train" / "again.png").write_bytes((clean / "train" / "1.png").read_bytes())
    check(
        clean,
        1,
        "6 problems",
        "train/text.png: is not a readable image",
        "train/cut.jpg: cannot be decoded",
        "train: 1 images have an odd width and do not split into A and B (odd.png)",
        "1 images are 8-bit grayscale among 8-bit color (gray.png)",
        "1 groups of images with the same content across splits (train/0.png = test/copy.png)",
        "1 groups of images with the same content within a split (train/1.png = train/again.png)",
    )
    report = check.json(clean)
    assert report["layout"] == "side by side"
    assert report["folders"]["train"]["pictures"] == 7
    assert report["folders"]["train"]["sizes"] == {"16x8": 4, "15x8": 1}
    assert len(report["problems"]) == 6


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such folder"), (".", "holds no dataset")])
def test_a_check_that_cannot_run(check, tmp_path, name, message):
    code, out, err = check.run("check", tmp_path / name)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.slow
def test_as_a_process(clean):
    command = [sys.executable, "-m", "data_scripts", "check", str(clean)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Nothing is wrong." in result.stdout


class TestLayouts:
    @pytest.mark.parametrize(
        "names", ["trainA trainB", "train/a train/b", "train/A train/B", "A/train B/train", "TRAINA TRAINB"]
    )
    def test_pairs_in_two_folders(self, check, tmp_path, names):
        a, b = names.split()
        images(tmp_path, *(f"{name}/{i}.{suffix}" for name, suffix in ((a, "png"), (b, "jpg")) for i in range(4)))
        check(tmp_path, 0, "paired folders", f"{a}: 4 images", f"{b}: 4 images")
        images(tmp_path, f"{a}/alone.png")
        image(tmp_path / b / "0.jpg", 31, (18, 8))
        partner = f"{a}: 1 images have no partner in {b} (alone)"
        check(tmp_path, 1, "paired folders", partner, f"{a} and {b}: 1 pairs differ in size (0)")

    def test_names_that_differ_only_in_the_suffix(self, check, tmp_path):
        images(tmp_path, "trainA/x.png", "trainA/x.bmp", "trainB/x.png")
        check(tmp_path, 1, "trainA: 1 names are used twice, with different suffixes or encodings of accents (x)", "1 p")

    def test_unpaired_folders_need_no_partners(self, check, tmp_path):
        images(tmp_path, *(f"trainA/horse{i}.png" for i in range(3)), *(f"trainB/zebra{i}.png" for i in range(3)))
        check(tmp_path, 0, "unpaired folders")

    @pytest.mark.parametrize(
        ("present", "missing"),
        [
            ("trainA", "trainB"),
            ("trainB", "trainA"),
            ("train/a", "train/b"),
            ("train/b", "train/a"),
            ("B/train", "A/train"),
        ],
    )
    def test_each_half_may_be_missing(self, check, tmp_path, present, missing):
        images(tmp_path, f"{present}/x.png")
        check(tmp_path, 1, f"{missing}: there is no such folder, while {present} exists")

    def test_empty_folders(self, check, tmp_path):
        (tmp_path / "train").mkdir()
        check(tmp_path, 1, "train: holds no images")
        images(tmp_path, "valA/x.png")
        (tmp_path / "valB").mkdir()
        check(tmp_path, 1, "valB: holds no images")

    def test_a_split_in_two_layouts(self, check, clean):
        images(clean, "trainA/x.png", "trainB/x.png")
        (clean / "val-000000.tar").touch()
        twice = "is there in more than one layout"
        check(clean, 1, f"train {twice} (trainA and trainB; train)", f"val {twice} (val-000000.tar; val)")

    def test_two_folders_next_to_a_split_of_pairs_are_pairs(self, check, clean):
        (clean / "test" / "3.png").unlink()
        (clean / "test").rmdir()
        images(clean, "testA/x.png", "testB/y.png")
        check(clean, 1, "paired folders", "testA: 1 images have no partner in testB (x)")

    def test_a_folder_next_to_images_is_ignored_as_in_training(self, check, clean):
        images(clean, "train/backup/x.png")
        assert "backup" not in check(clean, 0)

    def test_shards_are_checked_before_packing(self, check, tmp_path):
        (tmp_path / "train-000000.tar").write_bytes(b"")
        code, _, err = check.run("check", tmp_path)
        assert code == 2
        assert "shards; check the folder that they were packed from" in err

    def test_several_sources(self, check, tmp_path):
        images(tmp_path, *(f"train/{folder}/{i}.png" for folder in ("b", "radar", "sun") for i in range(3)))
        check(tmp_path, 0, "paired folders", "several sources: train with --source radar --source sun --target b")
        (tmp_path / "train" / "sun" / "1.png").unlink()
        images(tmp_path, "val/b/0.png", "val/radar/0.png")
        without = "train/radar: 1 images have no partner in train/sun (1)"
        check(tmp_path, 1, without, "val: has other folders than train", "2 problems")

    def test_classes_are_not_sources(self, check, tmp_path):
        images(tmp_path, "train/cat/felix.png", "train/dog/rex.png")
        check(tmp_path, 1, "the folders cat, dog are neither a and b")


class TestKinds:
    def test_splits_of_different_kinds(self, check, tmp_path):
        images(tmp_path, "trainA/a0.png", "trainA/a1.png")
        images(
            tmp_path, *(f"{name}/{name}{i}.png" for name in ("trainB", "testA", "testB") for i in range(2)), mode="L"
        )
        check(tmp_path, 1, "testA: images are 8-bit grayscale, while those of trainA are 8-bit color", "1 problems")

    def test_conversions_are_notes(self, check, tmp_path):
        for mode in ("RGBA", "P", "CMYK", "RGB"):
            images(tmp_path, f"train/{mode}.{'jpg' if mode == 'CMYK' else 'png'}", mode=mode)
        frames = [Image.fromarray(np.full((8, 16, 3), value, np.uint8)) for value in (3, 90)]
        folder = tmp_path / "train"
        frames[0].save(folder / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
        frames[1].save(folder / "profile.png", icc_profile=bytes(16) + b"RGB " + bytes(140))
        check(
            tmp_path,
            0,
            "train: 1 images are transparent, and composed over white",
            "1 images are CMYK, and become RGB (CMYK.jpg)",
            "1 images have a palette, and become RGB (P.png)",
            "1 images are animations, of which only the first frame is read (moves.webp)",
            "1 images have an ICC color profile other than sRGB",
        )
        converted = check.json(tmp_path)["folders"]["train"]["converted"]
        assert converted == {"transparency": 1, "CMYK": 1, "palette": 1, "animation": 1, "profile": 1}

    @pytest.mark.parametrize("channels", [2, 4, 6])
    def test_transparency_of_deep_images_is_noted(self, check, tmp_path, channels):
        values = np.random.default_rng(1).integers(0, 65536, (8, 16, channels), dtype=np.uint16)
        write_image(tmp_path / "train" / "x.tif", values, alpha="straight")
        write_image(tmp_path / "train" / "y.tif", values[::-1, :, :-1])
        check(tmp_path, 0, "train: 1 images are transparent", "(x.tif)")

    def test_a_transparent_gray_of_16_bits_is_noted(self, check, clean):
        deep = Image.fromarray(np.arange(128, dtype=np.uint16).reshape(8, 16) * 500)
        deep.save(clean / "train" / "deep.png", transparency=1000)
        check(clean, 1, "train: 1 images are transparent", "(deep.png)")

    def test_color_files_without_color_are_noted_unless_all_are(self, check, tmp_path):
        for i in range(2):
            gray = np.random.default_rng(i).integers(0, 256, (8, 16, 1), dtype=np.uint8)
            write_image(tmp_path / "train" / f"gray{i}.png", gray.repeat(3, axis=2))
        assert "show no color" not in check(tmp_path, 0)
        images(tmp_path, *(f"train/{i}.png" for i in range(5)))
        check(tmp_path, 0, "train: 2 color files show no color (gray0.png, gray1.png)")


class TestDuplicates:
    def test_duplicates_across_splits_are_problems_and_within_one_notes(self, check, tmp_path):
        for i, place in enumerate(["trainA/1", "trainA/2", "trainB/3", "trainB/4", "testA/5", "testB/6"]):
            scene(tmp_path / f"{place}.png", i)
        scene(tmp_path / "testA" / "copy.jpg", 1, quality=60)
        found = "1 pairs of near-duplicates across splits (trainA/2.png ~ testA/copy.jpg, "
        check(tmp_path, 1, found, "of 64 bits differ, likeness ")
        (tmp_path / "testA" / "copy.jpg").rename(tmp_path / "trainA" / "copy.jpg")
        check(tmp_path, 0, "1 pairs of near-duplicates within a split (trainA/2.png ~ trainA/copy.jpg, ")
        (found,) = check.json(tmp_path)["near_duplicates"]
        assert (found["first"], found["second"]) == ("trainA/2.png", "trainA/copy.jpg")
        assert 0 <= found["bits"] <= 16
        assert 0.75 <= found["likeness"] <= 1

    def test_side_by_side_both_halves_count(self, check, tmp_path):
        for split, seeds in (("train", (1, 2)), ("val", (1, 3))):
            for side, seed in enumerate(seeds):
                scene(tmp_path / f"{side}.png", seed)
            both = [np.asarray(Image.open(tmp_path / f"{side}.png")) for side in range(2)]
            (tmp_path / split).mkdir()
            Image.fromarray(np.hstack(both)).save(tmp_path / split / "x.jpg")
        check(tmp_path, 0)
        Image.open(tmp_path / "train" / "x.jpg").save(tmp_path / "val" / "y.jpg", quality=50)
        check(tmp_path, 1, "train/x.jpg ~ val/y.jpg")

    def test_equal_targets_of_different_sources_are_not_duplicates(self, check, tmp_path):
        for i in range(3):
            scene(tmp_path / "trainA" / f"{i}.png", i)
            scene(tmp_path / "trainB" / f"{i}.png", 50)
        check(tmp_path, 0)
        scene(tmp_path / "trainA" / "again.png", 1)
        scene(tmp_path / "trainB" / "again.png", 50)
        check(tmp_path, 1, "1 groups of images with the same content within a split (trainA/1.png = trainA/again.png)")

    def test_a_gray_source_is_not_a_duplicate_of_its_target(self, check, tmp_path):
        (tmp_path / "trainA").mkdir()
        for i in range(3):
            scene(tmp_path / "trainB" / f"{i}.png", i)
            Image.open(tmp_path / "trainB" / f"{i}.png").convert("L").save(tmp_path / "trainA" / f"{i}.png")
        assert "duplicates" not in check(tmp_path, 0)


@pytest.mark.slow
def test_published_maps(check, published_data):
    report = check.json(published_data / "maps")
    assert report["problems"] == []
    assert report["layout"] == "side by side"
    assert {name: folder["pictures"] for name, folder in report["folders"].items()} == {"train": 1096, "val": 100}
    assert report["folders"]["train"]["sizes"] == {"572x286": 1096}
    # By eye, seven tiles overlap others almost entirely; neighbors with less overlap are not among them.
    found = {(each["first"], each["second"]) for each in report["near_duplicates"]}
    assert {("train/289.jpg", "train/510.jpg"), ("train/180.jpg", "train/433.jpg")} <= found
    assert 5 <= len(found) <= 10


@pytest.mark.slow
def test_published_horses_and_zebras(check, published_data):
    report = check.json(published_data / "horse2zebra")
    assert report["layout"] == "unpaired folders"
    counts = {name: folder["pictures"] for name, folder in report["folders"].items()}
    assert counts == {"trainA": 1067, "trainB": 1334, "testA": 120, "testB": 140}
    assert report["folders"]["trainB"]["kinds"]["8-bit grayscale"] == 7
    assert len(report["identical"]) == 25  # byte-identical groups that exist upstream
    # Each of 24 pairs was inspected; three of them are in training and test.
    assert 22 <= len(report["near_duplicates"]) <= 27
    across = {(each["first"], each["second"]) for each in report["near_duplicates"] if each["across_splits"]}
    assert ("trainB/n02391049_2136.jpg", "testB/n02391049_5240.jpg") in across
    assert len(across) == 3


@pytest.mark.parametrize(
    ("suffix", "text"), [(".png", "; 2 of 4 images are drawn in its colors"), (".jpg", ", but no")]
)
def test_whether_images_use_the_palette(check, clean, suffix, text):
    (clean / "dataset.json").write_text(json.dumps({"legend": PALETTE}))
    for number in range(2):
        path = clean / "train" / f"{number}.png"
        values = np.array(Image.open(path))
        values[:, 8:], values[: number + 2, 8:12] = PALETTE["land"], PALETTE["lake"]
        path.unlink()
        Image.fromarray(values).save(path.with_suffix(suffix))
    check(clean, 0, f"dataset.json has a legend{text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not valid JSON"), ('{"legend": {"land": "green"}}', "the legend is {'land': 'green'}")],
)
def test_an_invalid_description(check, clean, text, message):
    (clean / "dataset.json").write_text(text)
    check(clean, 1, f"1 problems:\n  dataset.json: {message}")


class TestFloats:
    def write(self, folder, count, low, high, dtype=np.float32):
        """Write noise that reaches from ``low`` to ``high`` over all files, and not in each."""
        for number in range(count):
            values = np.random.default_rng([*folder.name.encode(), number]).uniform(low, high, (8, 16, 1))
            values[0, 0] = (low, high)[number % 2]
            write_image(folder / f"{number}.tif", values.astype(dtype))

    def test_values_that_are_not_finite_are_problems(self, check, tmp_path):
        for number, value in enumerate([0.5, np.nan, np.inf]):
            values = np.random.default_rng(number).uniform(0, 1, (8, 16, 1)).astype(np.float32)
            values[3, 4] = value
            write_image(tmp_path / "train" / f"{number}.tif", values)
        problem = "has values that are not finite"
        check(tmp_path, 1, "2 problems", f"train/1.tif: {problem}", f"train/2.tif: {problem}")

    def test_the_range_of_all_splits_is_named_as_an_option(self, check, tmp_path):
        self.write(tmp_path / "train", 4, -670, 1000)
        self.write(tmp_path / "val", 2, -20.5, 1420.1)
        check(tmp_path, 0, "  floats reach beyond 0 to 1; train (A to B) with --value-range=-670:1420.1\n")

    @pytest.mark.parametrize(
        ("kinds", "options"),
        [
            ({"A": (-10, 10), "B": (0, 255, np.uint8)}, "--value-range=-10:10 --target-range=0:255"),
            ({"A": (0, 255, np.uint8), "B": (-10, 10)}, "--target-range=-10:10"),
            ({"A": (-10, 10), "B": (0, 1)}, "--value-range=-10:10 --target-range=0:1"),
            ({"A": (-10, 10), "B": (0, 5)}, "--value-range=-10:10 --target-range=0:5"),
            ({"A": (-10, 10), "B": (-10, 10)}, "--value-range=-10:10"),
        ],
    )
    def test_each_side_of_a_pair_has_its_own(self, check, tmp_path, kinds, options):
        for side, (low, high, *dtype) in kinds.items():
            self.write(tmp_path / f"train{side}", 2, low, high, *dtype)
        assert f"train (A to B) with {options}\n" in check.run("check", tmp_path)[1]

    def test_an_unpaired_domain_has_its_own_option(self, check, tmp_path):
        self.write(tmp_path / "trainA", 2, 0, 1)
        assert "floats reach" not in check.run("check", tmp_path)[1]
        self.write(tmp_path / "trainB", 2, 0, 9000)
        for number in range(2):
            (tmp_path / "trainB" / f"{number}.tif").rename(tmp_path / "trainB" / f"other{number}.tif")
        check(tmp_path, 0, "with --value-range-b=0:9000\n")


class TestMissingData:
    HEIGHTS = 500 + np.random.default_rng(5).random((40, 50, 1), dtype=np.float32) * 900  # 500 to 1400

    def write(self, root, suffix=".tif", **marks):
        """Two domains, the target of floats; each mark lies in a corner of the target of its name."""
        for name, mark in {"plain": None, **marks}.items():
            target = self.HEIGHTS + np.float32(len(name))
            if mark is not None:
                target[:8, :10] = mark
            source = np.uint8(np.random.default_rng(len(name)).random((40, 50, 3)) * 255)
            write_image(root / "trainA" / f"{name}.png", source)
            write_image(root / "trainB" / f"{name}{suffix}", target)

    def target_range(self, out):
        return tuple(map(float, re.search(r"--target-range=(\S+):(\S+)", out).groups()))

    @pytest.mark.parametrize("mark", [-9999, -3.4028234663852886e38, 1e20, -32768, 9.969209968386869e36])
    def test_a_known_sentinel_is_named_and_excluded_from_the_range(self, check, tmp_path, mark):
        self.write(tmp_path, one=mark, two2=mark)
        found = (
            f"trainB: {mark} looks like a mark of missing data in 2 images, 0.04 of their pixels (one.tif, two2.tif)"
        )
        out = check(tmp_path, 1, found, f"gdal_edit.py -a_nodata {mark} {tmp_path / 'trainB' / 'one.tif'}")
        low, high = self.target_range(out)
        assert 503 <= low <= 504.5
        assert 1402 <= high <= 1405

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    @pytest.mark.parametrize("mark", [-9999, -3.4028234663852886e38])
    def test_the_suggested_command_fixes_it(self, check, tmp_path, mark):
        self.write(tmp_path, one=mark)
        command = re.search(r"rio edit-info --nodata=\S+ \S+\.tif", check(tmp_path, 1)).group()
        main_group(shlex.split(command)[1:], standalone_mode=False)
        assert "missing data" not in check(tmp_path, 0)

    def test_a_border_of_zeros_is_a_note(self, check, tmp_path):
        self.write(tmp_path, one=0)
        found = "trainB: 0 forms borders and may mark missing data in 1 images, 0.04 of their pixels (one.tif)"
        assert 503 <= self.target_range(check(tmp_path, 0, found))[0] <= 504.5
        write_image(tmp_path / "trainB" / "plain.tif", np.zeros((40, 50, 1), np.float32))  # entirely beyond the border
        check(tmp_path, 0, "in 2 images, 0.52 of their pixels (one.tif, plain.tif)")

    def test_other_formats_cannot_tag_it(self, check, tmp_path):
        self.write(tmp_path, ".npy", one=-9999)
        assert "gdal_edit" not in check(tmp_path, 1, "only TIFF can tag it")

    def test_an_image_of_sentinels_does_not_widen_the_range(self, check, tmp_path):
        self.write(tmp_path, one=-9999)
        write_image(tmp_path / "trainB" / "one.tif", np.full((40, 50, 1), -9999, np.float32))
        out = check(tmp_path, 1, "-9999 looks like a mark of missing data in 1 images, 1 of their pixels")
        assert "-9999:" not in out

    def test_heights_that_reach_the_sea_and_depths_below_are_data(self, check, tmp_path):
        self.write(tmp_path)
        slope = np.linspace(-12000, 1400, 2000, dtype=np.float32).reshape(40, 50, 1)
        slope[np.abs(slope + 9999) < 4] = -9999
        for values, expected in ((slope, "--target-range=-12000:1400"), (slope.clip(0), "--target-range=0:1400")):
            write_image(tmp_path / "trainB" / "plain.tif", values)
            assert "missing data" not in check(tmp_path, 0, expected)


def test_formats_that_are_not_read_are_noted(check, clean):
    for name in ("x.gif", "y.gif", "z.heic", "notes.txt"):
        (clean / "train" / name).touch()
    check(clean, 0, "train: Files in other formats are not read: 2 .gif, 1 .heic\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_broken_links_and_pages_that_are_other_images_are_problems(check, clean):
    os.mkfifo(clean / "train" / "pipe.png")
    (clean / "train" / "link.png").symlink_to("gone.png")
    tifffile.imwrite(clean / "train" / "pages.tif", np.zeros((8, 16), np.uint8))
    tifffile.imwrite(clean / "train" / "pages.tif", np.zeros((4, 4), np.uint8), append=True)
    check(
        clean,
        1,
        "train/pipe.png: cannot be read (it is a pipe, a device or a socket, not a file)",
        "train/link.png: is a broken symbolic link to gone.png",
        "train/pages.tif: holds 2 pages (16x8, 4x4)",
    )
