import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_scripts.__main__ import main

ROOT = Path(__file__).parents[2]


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
    assert "train: 2 pictures; all 16x8; all 8-bit colour" in out
    assert "Nothing is wrong." in out


def test_everything_that_is_wrong_is_said(check, clean):
    (clean / "train" / "text.png").write_text("not a picture")
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
        "train/text.png: is no picture",
        "train/cut.jpg: cannot be decoded",
        "1 pictures have an odd width and do not split into A and B (train/odd.png)",
        "1 pictures are 8-bit grayscale among 8-bit colour (gray.png)",
        "1 groups of pictures with the same content across splits (train/0.png = test/copy.png)",
        "1 groups of pictures with the same content within a split (train/1.png = train/again.png)",
    ):
        assert said.replace("/", "/") in out.replace("\\", "/"), said


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
    assert f"{names[0]}: 1 pictures have no partner in {names[1]} (alone)" in out
    assert f"{names[0]} and {names[1]}: 1 pairs differ in size (0)" in out


def test_names_that_differ_only_in_the_suffix(check, tmp_path):
    for i, name in enumerate(["A/x.png", "A/x.bmp", "B/x.png"]):
        picture(tmp_path / f"train{name}", i)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert "trainA: 1 names are used twice, with different suffixes (x)" in out
    assert "1 problems" in out


def test_a_missing_domain(check, tmp_path):
    picture(tmp_path / "trainA" / "x.png", 0)
    code, out, _ = check(tmp_path)
    assert code == 1
    assert "trainB: is missing, while trainA is there" in out


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
    assert "check" not in out
    assert ("no such folder" if name == "nowhere" else "holds no data set") in err


def test_as_a_process(clean):
    command = [sys.executable, "-m", "data_scripts", "check", str(clean)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Nothing is wrong." in result.stdout


def test_unknown_script():
    command = [sys.executable, "-m", "data_scripts", "eart"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert "no script 'eart'" in result.stderr
    assert "earth" in result.stderr


def test_published_maps(check, published_data):
    code, out, _ = check(published_data / "maps", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["layout"] == "side by side"
    assert {name: folder["pictures"] for name, folder in report["folders"].items()} == {"train": 1096, "val": 100}
    assert report["folders"]["train"]["sizes"] == {"572x286": 1096}


def test_published_horses_and_zebras(check, published_data):
    code, out, _ = check(published_data / "horse2zebra", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["layout"] == "unpaired folders"
    counts = {name: folder["pictures"] for name, folder in report["folders"].items()}
    assert counts == {"trainA": 1067, "trainB": 1334, "testA": 120, "testB": 140}
    assert report["folders"]["trainB"]["kinds"]["8-bit grayscale"] == 7
    groups = [int(problem.split()[0]) for problem in report["problems"] if "same content" in problem]
    assert sum(groups) == 25  # byte-identical groups that exist upstream
