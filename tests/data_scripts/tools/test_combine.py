"""Two folders side by side, and back again without loss."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_scripts.tools.combine import side_by_side
from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import write_image
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError


def noise(seed, height=6, width=8, channels=3, dtype=np.uint8):
    values = np.random.default_rng(seed).random((height, width, channels))
    return values.astype(dtype) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture
def root(tmp_path):
    """A dataset in two folders, with a test split in the other form."""
    for number in range(3):
        write_image(tmp_path / "set" / "trainA" / f"x.{number}.png", noise(number))
        write_image(tmp_path / "set" / "trainB" / f"x.{number}.tif", noise(10 + number))
    write_image(tmp_path / "set" / "test" / "a" / "t.png", noise(20))
    write_image(tmp_path / "set" / "test" / "b" / "t.png", noise(21))
    (tmp_path / "set" / "dataset.json").write_text('{"name": "small"}')
    return tmp_path / "set"


def test_a_is_left_and_b_is_right(run, root, tmp_path):
    code, out, err = run("combine", root, "--out", tmp_path / "out")
    assert code == 0, err
    assert "4 pairs" in out
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == ["dataset.json", "test/t.png", "train/x.0.png", "train/x.1.png", "train/x.2.png"]
    both = read_image(tmp_path / "out" / "train" / "x.1.png")
    assert np.array_equal(both[:, :8], noise(1))
    assert np.array_equal(both[:, 8:], noise(11))
    assert (tmp_path / "out" / "dataset.json").read_text() == '{"name": "small"}'


def test_two_folders_with_subfolders(run, tmp_path):
    for place in ("x.png", "train/x.png", "train/deep/y.png"):
        write_image(tmp_path / "a" / place, noise(1))
        write_image(tmp_path / "b" / place, noise(2))
    assert run("combine", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")[0] == 0
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert files == ["train/deep/y.png", "train/x.png", "x.png"]


@hypothesis.settings(max_examples=15, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    channels=st.sampled_from([1, 3, 5]),
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_splitting_inverts_combining(run, tmp_path_factory, dtype, channels, width, height, seed):
    root = tmp_path_factory.mktemp("round")
    for side in range(2):
        write_image(root / "set" / f"train{'AB'[side]}" / "x.tif", noise(seed + side, height, width, channels, dtype))
    assert run("combine", root / "set", "--out", root / "both")[0] == 0
    assert run("split", root / "both", "--out", root / "again")[0] == 0
    for side in range(2):
        (found,) = (root / "again" / f"train{'AB'[side]}").iterdir()
        again = read_image(found)
        assert again.dtype == dtype
        assert np.array_equal(again, noise(seed + side, height, width, channels, dtype))


def test_gray_next_to_color_gets_three_channels(tmp_path):
    write_image(tmp_path / "a.png", noise(1, channels=1))
    write_image(tmp_path / "b.png", noise(2))
    both = side_by_side(tmp_path / "a.png", tmp_path / "b.png").array
    assert np.array_equal(both, np.hstack([noise(1, channels=1).repeat(3, axis=2), noise(2)]))


@pytest.mark.parametrize("alpha", ["straight", "premultiplied"])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 4), (np.uint16, 2), (np.float32, 4)])
def test_alpha_is_kept_and_a_partner_without_alpha_is_opaque(run, tmp_path, alpha, dtype, channels):
    a, b = noise(1, channels=channels, dtype=dtype), noise(2, channels=3, dtype=dtype)
    write_image(tmp_path / "set" / "trainA" / "x.tif", a, alpha=alpha)
    write_image(tmp_path / "set" / "trainB" / "x.tif", b)
    assert run("combine", tmp_path / "set", "--out", tmp_path / "both")[0] == 0
    assert run("split", tmp_path / "both", "--out", tmp_path / "again")[0] == 0
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    for side, expected in (("A", np.dstack([np.broadcast_to(a[..., :-1], b.shape), a[..., -1:]])),
                           ("B", np.dstack([b, np.full((6, 8, 1), top, dtype)]))):  # fmt: skip
        (path,) = (tmp_path / "again" / f"train{side}").iterdir()
        again = read_raster(path, keep_alpha=True)
        assert again.alpha == alpha
        assert again.array.dtype == dtype
        assert np.array_equal(again.array, expected)


def test_nodata_pixels_stay_nodata(run, tmp_path):
    tags = Tags({42113: (2, 2, "7")}, 7.0)
    for side, place in (("A", (1, 2)), ("B", (3, 0))):
        values = noise(1, channels=5, dtype=np.uint16) | 8
        values[place] = 7
        write_image(tmp_path / "set" / f"train{side}" / "x.tif", values, tags)
    assert run("combine", tmp_path / "set", "--out", tmp_path / "both")[0] == 0
    assert np.argwhere(read_raster(tmp_path / "both" / "train" / "x.tif").nodata_mask).tolist() == [[1, 2], [3, 8]]
    assert run("split", tmp_path / "both", "--out", tmp_path / "again")[0] == 0
    for side, place in (("A", [1, 2]), ("B", [3, 0])):
        again = read_raster(tmp_path / "again" / f"train{side}" / "x.tif")
        assert np.argwhere(again.nodata_mask).tolist() == [place]
        assert again.tags.nodata == 7


def test_different_alpha_or_nodata_cannot_be_combined(tmp_path):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, alpha in zip(paths, ("straight", "premultiplied"), strict=True):
        write_image(path, noise(1, channels=4), alpha=alpha)
    with pytest.raises(UserError, match="straight alpha and 8x6, 4 channels of uint8, premultiplied alpha"):
        side_by_side(*paths)
    for path, value in zip(paths, (7, 9), strict=True):
        write_image(path, noise(1), Tags({42113: (2, 2, str(value))}, float(value)))
    with pytest.raises(UserError, match="nodata 7 and 8x6, 3 channels of uint8, nodata 9"):
        side_by_side(*paths)


@pytest.mark.parametrize(
    "other", [{"height": 7}, {"width": 9}, {"dtype": np.uint16}, {"channels": 5}], ids=["height", "width", "depth", "5"]
)
def test_images_of_different_size_or_dtype_are_no_pair(tmp_path, other):
    write_image(tmp_path / "a.tif", noise(1))
    write_image(tmp_path / "b.tif", noise(2, **other))
    with pytest.raises(UserError, match="differ"):
        side_by_side(tmp_path / "a.tif", tmp_path / "b.tif")


class TestBadInput:
    def refused(self, result, *message):
        code, _, err = result
        assert code == 2, err
        assert err.count("error:") == 1
        for words in message:
            assert words in err, err

    def test_names_that_do_not_match(self, run, root, tmp_path):
        for number in range(5):
            write_image(root / "trainA" / f"alone{number}.png", noise(1))
        write_image(root / "trainB" / "other.png", noise(1))
        refused = run("combine", root, "--out", tmp_path / "out")
        self.refused(refused, "alone0, alone1, alone2 and 2 more", "trainB: other)")
        assert not (tmp_path / "out").exists()

    def test_unreadable_and_mismatched_images(self, run, root, tmp_path):
        (root / "trainA" / "x.0.png").write_bytes(b"no image")
        write_image(root / "trainB" / "x.2.tif", noise(12, height=7))
        refused = run("combine", root, "--out", tmp_path / "out")
        self.refused(refused, "2 of 4", "x.0.png: is not a readable image", "x.2.tif: differ", "8x6", "8x7")
        names = sorted(path.name for path in (tmp_path / "out").rglob("*.png"))
        assert names == ["t.png", "x.1.png"]

    def test_one_name_twice(self, run, root, tmp_path):
        write_image(root / "trainA" / "x.0.bmp", noise(1))
        self.refused(run("combine", root, "--out", tmp_path / "out"), "x.0.bmp and x.0.png")

    def test_folders(self, run, root, tmp_path):
        out = tmp_path / "out"
        self.refused(run("combine", root / "nowhere", "--out", out), "no such folder")
        self.refused(run("combine", root / "trainA", "--out", out), "trainA: not a dataset in two folders")
        self.refused(run("combine", root / "trainA", root / "nowhere", "--out", out), "nowhere: there is no such")
        self.refused(run("combine", "--out", out), "0 folders")
        self.refused(run("combine", root, "--out", root), "overlap")
        write_image(root / "train" / "a" / "x.png", noise(1))
        self.refused(run("combine", root, "--out", out), "in two layouts (trainA and trainB; train/a and train/b)")

    def test_nothing_is_overwritten_by_default(self, run, root, tmp_path):
        write_image(tmp_path / "out" / "mine.png", noise(1))
        self.refused(run("combine", root, "--out", tmp_path / "out"), "is not empty", "--overwrite")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.png"]
        assert run("combine", root, "--out", tmp_path / "out", "--overwrite")[0] == 0
        assert not (tmp_path / "out" / "mine.png").exists()
