import json
import shutil

import numpy as np
import pytest

from data_scripts.__main__ import main
from ganvas.data.augment import ImageTransform, build_augmentation
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.paired import PairedDataset
from ganvas.data.tensors import to_array
from ganvas.evaluation import sheet

PALETTE = {"land": [242, 239, 228], "lake": [110, 165, 225]}


@pytest.fixture
def run(in_process, tmp_path):
    """Draw a sheet of small images; give exit code, standard output and standard error."""
    command = in_process(main)
    return lambda data, *options: command(
        "preview", data, "--image-size", 64, "--out", tmp_path / "sheet.png", *options
    )


@pytest.fixture
def rows(monkeypatch):
    """The rows of images that went into the last sheet."""
    seen, draw = [], sheet.contact_sheet

    def spy(images, *titles):
        seen[:] = images
        return draw(images, *titles)

    monkeypatch.setattr(sheet, "contact_sheet", spy)
    return seen


def photo(seed, size=(70, 80), channels=3, dtype=np.uint8):
    top = {np.uint8: 255, np.uint16: 4095, np.float32: 900}[dtype]
    return (np.random.default_rng(seed).random((*size, channels)) * top).astype(dtype)


def drawn_map(size=(70, 80)):
    y, x = np.ogrid[: size[0], : size[1]]
    return np.where(((y - 30) ** 2 + (x - 40) ** 2 < 400)[:, :, None], PALETTE["lake"], PALETTE["land"]).astype(
        np.uint8
    )


def write_pairs(root, a, b, suffixes=(".png", ".png"), count=3):
    """Two folders of equal names."""
    for i in range(count):
        write_image(root / f"trainA/{i}{suffixes[0]}", a(i))
        write_image(root / f"trainB/{i}{suffixes[1]}", b(100 + i))
    return root


def side_by_side(root):
    for i in range(3):
        write_image(root / f"train/{i}.png", np.hstack([photo(i), photo(100 + i)]))
    return root


def folders(root):
    return write_pairs(root, photo, photo)


def folders_of_a_split(root):
    folders(root / "before")
    (root / "train").mkdir()
    shutil.move(root / "before/trainA", root / "train/a")
    shutil.move(root / "before/trainB", root / "train/b")
    return root


def shards(root):
    assert main(["shards", str(folders(root.with_name("files"))), str(root)]) == 0
    return root


@pytest.mark.parametrize(
    ("layout", "preset"),
    [
        (side_by_side, "strong"),
        (folders, "none"),
        (folders, "paper"),
        (folders_of_a_split, "strong"),
        (shards, "paper"),
    ],
)
def test_pairs_of_every_layout_are_drawn_and_stay_aligned(run, rows, tmp_path, layout, preset):
    code, out, err = run(layout(tmp_path / "set"), "--augment", preset, "--rows", 2, "--seed", 5)
    assert code == 0, err
    assert "Source and target stay aligned: marks in both are at most 0.00 pixels apart." in out
    assert [len(row) for row in rows] == [5, 5]
    for row in rows:
        assert {image.shape for image in row} == {(64, 64, 3)}
        overlay = row[-1].astype(int)
        assert np.abs(overlay[:, :, 0] - overlay[:, :, 1]).max() == 0  # white lines over gray, no red and no cyan
        assert 0.05 < (overlay[:, :, 0] > 250).mean() < 0.6
    whole = [np.array_equal(row[0], row[2]) for row in rows]
    assert whole == [preset == "none"] * 2
    height, width, _ = read_image(tmp_path / "sheet.png").shape
    assert width > 5 * 128  # cells of 64 pixels are doubled for the eye
    assert height > 2 * 128


def test_images_are_those_that_a_training_sees(run, rows, tmp_path):
    root = folders(tmp_path / "set")
    assert run(root, "--augment", "strong", "--seed", 9)[0] == 0
    seen = PairedDataset(root, "train", augmentation=build_augmentation("strong", 64, info={}), seed=9)
    for index, row in enumerate(rows):
        sample = seen[0, index]
        assert np.array_equal(row[2], to_array(sample["source"], np.uint8))
        assert np.array_equal(row[3], to_array(sample["target"], np.uint8))


def mirrored(images):
    return [images[0], images[1][:, ::-1]]


def moved(images):
    return [images[0], np.roll(images[1], 1, axis=0)]


@pytest.mark.parametrize(("fault", "least", "most"), [(moved, 0.9, 1.1), (mirrored, 10, 64)])
def test_pairs_that_do_not_stay_aligned_are_found(run, rows, tmp_path, monkeypatch, fault, least, most):
    """An augmentation with the fault that this is to find, such as one that mirrors one image alone."""
    sound = ImageTransform.apply_together
    monkeypatch.setattr(ImageTransform, "apply_together", lambda self, both, key: fault(sound(self, both, key)))
    code, out, err = run(folders(tmp_path / "set"))
    assert code == 1, err
    assert "Source and target do NOT stay aligned" in out
    assert least < float(out.partition("marks in both are at most ")[2].split()[0]) < most
    overlay = rows[0][-1].astype(int)
    assert (overlay[:, :, 0] - overlay[:, :, 1]).max() > 100  # red
    assert (overlay[:, :, 1] - overlay[:, :, 0]).max() > 100  # cyan


def test_a_mark_missing_in_the_target_has_infinite_distance(run, tmp_path, monkeypatch):
    sound = ImageTransform.apply_together

    def lost(self, both, key):
        source, target = sound(self, both, key)
        return [source, np.full_like(target, target[0, 0])]

    monkeypatch.setattr(ImageTransform, "apply_together", lost)
    code, out, _ = run(folders(tmp_path / "set"))
    assert (code, "marks in both are at most inf pixels" in out) == (1, True)


def test_images_of_other_dtypes_are_shown_without_color_jitter(run, rows, tmp_path):
    root = write_pairs(
        tmp_path / "set",
        lambda i: photo(i, channels=5, dtype=np.uint16),
        lambda i: photo(i, channels=1, dtype=np.float32),
        (".tif", ".npy"),
    )
    code, out, err = run(root, "--augment", "strong")
    assert code == 0, err
    assert "Colors of the source are changed in 0 of 3 pairs; others are" in out
    assert all(image.dtype == np.uint8 and image.max() > 200 for row in rows for image in row)
    assert (
        float(out.partition("marks in both are at most ")[2].split()[0]) < 0.05
    )  # pixels: each dtype rounds on its own


def test_colors_of_a_source_that_has_them_are_changed(run, tmp_path):
    assert (
        "Colors of the source are changed in 3 of 3 pairs." in run(folders(tmp_path / "set"), "--augment", "strong")[1]
    )
    assert "Colors are not changed." in run(tmp_path / "set", "--augment", "paper")[1]


def test_palette_colors_are_not_changed(run, rows, tmp_path):
    root = write_pairs(tmp_path / "set", lambda i: drawn_map(), photo)
    (root / "dataset.json").write_text(json.dumps({"legend": PALETTE, "domains": {"a": "map", "b": "terrain"}}))
    code, out, err = run(root, "--augment", "strong")
    assert code == 0, err
    assert "changed in 0 of 3 pairs" in out
    assert "nearest neighbors" in out
    assert 0.05 < float(out.partition("marks in both are at most ")[2].split()[0]) < 1
    for row in rows:
        assert {tuple(color) for color in row[2].reshape(-1, 3).tolist()} <= set(map(tuple, PALETTE.values()))


def test_a_palette_of_one_color_is_enough(run, tmp_path):
    root = write_pairs(tmp_path / "set", lambda i: drawn_map(), photo)
    (root / "dataset.json").write_text(json.dumps({"legend": {"land": PALETTE["land"], "coast": PALETTE["land"]}}))
    code, out, err = run(root, "--augment", "strong")
    assert code == 0, err
    assert "changed in 0 of 3 pairs" in out


def test_domains_without_pairs_are_drawn_without_a_measure(run, rows, tmp_path):
    for i in range(4):
        write_image(tmp_path / f"set/trainA/horse{i}.png", photo(i))
        write_image(tmp_path / f"set/trainB/zebra{i // 2}.png", photo(i, size=(90, 50), channels=1))
    code, out, err = run(tmp_path / "set", "--augment", "strong")
    assert code == 0, err
    assert "Unpaired domains: colors are not changed." in out
    assert "pixels apart" not in out
    assert [len(row) for row in rows] == [4, 4]  # the shorter domain has two images
    first = ImageTransform(build_augmentation("strong", 64, info={}))
    expected = first(read_image(tmp_path / "set/trainB/zebra1.png"), (0, 0, 1, 1))
    assert np.array_equal(rows[1][3], expected)


def test_equal_names_may_be_declared_unpaired(run, rows, tmp_path):
    code, out, _ = run(folders(tmp_path / "set"), "--unpaired")
    assert code == 0
    assert "Unpaired domains" in out
    assert {len(row) for row in rows} == {4}


@pytest.mark.slow
def test_small_and_large_images_are_measured_where_they_are_seen(run, rows, tmp_path):
    root = write_pairs(tmp_path / "set", lambda i: photo(i, size=(700, 300)), lambda i: photo(i, size=(700, 300)))
    assert run(root, "--augment", "strong")[0] == 0
    assert run(root, "--augment", "strong", "--image-size", 16)[0] == 0
    assert 0.05 < (rows[0][-1][:, :, 0] > 250).mean() < 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", 8], "--image-size is 8"),
        (["--rows", 0], "rows is 0"),
        (["--seed", -1], "seed is -1"),
        (["--split", "test"], "has no split 'test' (it has: train)"),
    ],
)
def test_bad_options_are_refused(run, tmp_path, options, message):
    code, _, err = run(folders(tmp_path / "set"), *options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "sheet.png").exists()


def test_bad_inputs_are_refused(run, tmp_path):
    code, _, err = run(tmp_path / "nothing")
    assert (code, "there is no such folder" in err) == (2, True)
    code, _, err = run(write_pairs(tmp_path / "set", photo, lambda i: photo(i, size=(70, 79))))
    assert (code, "the halves of the pair differ in size" in err) == (2, True)
    code, _, err = run(folders(tmp_path / "other"), "--out", tmp_path / "sheet.txt")
    assert (code, ".txt is not an image format" in err) == (2, True)


def test_a_published_set_of_pairs_stays_aligned(run, published_data, rows):
    code, out, err = run(published_data / "maps", "--augment", "strong", "--rows", 2)
    assert code == 0, err
    assert "marks in both are at most 0.00 pixels apart." in out
    assert len(rows) == 2
