"""Networks of metrics: TorchScript files, and published weights from a stand-in of their server on 127.0.0.1."""

import functools
import hashlib
import http.server
import socket
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.errors import UserError
from ganvas.evaluation.feature_networks import FeatureVectors, clean_resize
from ganvas.evaluation.weights import load_feature_network, load_lpips, published_weights


def save(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch calls TorchScript deprecated
        torch.jit.script(module).save(str(path))
    return path


def images(count, *shape, seed=0):
    return [torch.rand(*shape, generator=torch.Generator().manual_seed(seed + i)) * 2 - 1 for i in range(count)]


# --- images as a network gets them ---


@pytest.mark.parametrize("size", [(20, 31), (299, 299), (700, 400)])
def test_images_are_resized_as_pillow_does(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize((299, 299), Image.Resampling.BICUBIC)
    image = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).float()
    assert np.array_equal(clean_resize(image).permute(1, 2, 0), np.asarray(expected))


def test_shrinking_averages_what_it_leaves_out():
    """The first FID code took single pixels, which turns a fine checkerboard into large squares."""
    board = torch.ones(3, 600, 600)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = -1
    resized = clean_resize(board)
    assert (resized.float() - 127.5).abs().max() < 8


def test_gray_is_repeated():
    gray = images(1, 1, 40, 40)[0]
    assert torch.equal(clean_resize(gray), clean_resize(gray.expand(3, -1, -1)))


def test_features_keep_the_order_of_the_images(feature_file):
    network = load_feature_network(feature_file, "cpu")
    collected, given = FeatureVectors(network), images(37, 3, 24, 24)
    for image in given:
        collected.add(image)
    expected = torch.cat([network(clean_resize(image)[None]) for image in given])
    np.testing.assert_allclose(collected.vectors(), expected, rtol=1e-5)
    assert collected.vectors().shape == (37, 6)


# --- files of the user's own ---


def test_a_custom_feature_network(feature_file):
    network = load_feature_network(feature_file, "cpu")
    assert network.dimensions == 6
    assert network.digest == hashlib.sha256(feature_file.read_bytes()).hexdigest()
    assert network.name == "TorchScript, features.pt"


class ReturnsProbabilities(torch.nn.Module):
    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        n = len(images)
        return images.float().mean(dim=(2, 3)) if return_features else torch.ones(n, 7)


def test_features_are_asked_for_where_a_network_has_another_output(tmp_path):
    assert load_feature_network(save(ReturnsProbabilities(), tmp_path / "n.pt"), "cpu").dimensions == 3


class ReturnsMaps(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()[:, :, :1, :1]


class ReturnsAll(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(0, 2, 3))[None]


class ReturnsPair(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, images


class TakesFiveChannels(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(5, 2, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images.float()).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ReturnsMaps, "the network returns [2, 3, 1, 1] for images [2, 3, 299, 299]. Expected: a network of features"),
        (ReturnsAll, "the network returns [1, 3] for images [2, 3, 299, 299]"),
        (ReturnsPair, "the network returns tuple"),
        (TakesFiveChannels, "to have 5 channels, but got 3 channels"),
    ],
)
def test_a_network_of_another_shape_is_refused(tmp_path, module, message):
    path = save(module(), tmp_path / "n.pt")
    with pytest.raises(UserError) as error:
        load_feature_network(path, "cpu")
    assert str(error.value).startswith(f"--feature-weights {path}: the network ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_feature_and_distance_networks_are_distinguished(feature_file, distance_file):
    with pytest.raises(UserError, match=r"--feature-weights .*distance.pt: the network fails .* Expected: .*features"):
        load_feature_network(distance_file, "cpu")
    with pytest.raises(UserError, match=r"--lpips-weights .*features.pt: the network fails .* Expected: .*two images"):
        load_lpips(feature_file, "cpu")


def write_nothing(path):
    path.touch()


def write_state_dict(path):
    torch.save({"weight": torch.zeros(2)}, path)


def write_text(path):
    path.write_text("Not Found")


@pytest.mark.parametrize("write", [write_nothing, write_state_dict, write_text])
@pytest.mark.parametrize("load", [load_feature_network, load_lpips])
def test_other_files_are_refused(tmp_path, write, load):
    write(tmp_path / "n.pt")
    with pytest.raises(UserError, match=r"-weights .*n.pt: is not a TorchScript file \(.*torch.jit.save"):
        load(tmp_path / "n.pt", "cpu")


@pytest.mark.parametrize("name", ["none.pt", "."])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"--feature-weights .*: there is no such file. Give a TorchScript file"):
        load_feature_network(tmp_path / name, "cpu")


def test_features_that_are_not_finite_are_refused(tmp_path):
    class Divides(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean(dim=(2, 3)) / 0

    collected = FeatureVectors(load_feature_network(save(Divides(), tmp_path / "n.pt"), "cpu"))
    collected.add(images(1, 3, 9, 9)[0])
    with pytest.raises(UserError, match=r"features of TorchScript, n.pt are not finite"):
        collected.vectors()


def test_a_custom_distance_takes_gray_and_color(distance_file):
    network = load_lpips(distance_file, "cpu")
    for channels in (1, 3):
        x, y = images(2, 1, channels, 40, 33)
        assert network(x, y).shape == (1,)
        assert network(x, y).item() == pytest.approx((x - y).abs().max().item())


# --- published weights ---


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that is served at an address; torch's cache is empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def publish(folder, write, name="net"):
    """Write a file whose name ends in the first digits of its digest, as published weights have it."""
    write(folder / "new")
    digits = hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
    return (folder / "new").rename(folder / f"{name}-{digits}.pth").name


def test_weights_are_downloaded_once(server):
    folder, address = server
    name = publish(folder, write_state_dict)
    path = published_weights(f"{address}/{name}", "fid", "--feature-weights")
    assert path == Path(torch.hub.get_dir()) / "checkpoints" / name
    assert path.read_bytes() == (folder / name).read_bytes()
    (folder / name).unlink()
    assert published_weights(f"{address}/{name}", "fid", "--feature-weights") == path


@pytest.mark.parametrize("problem", ["no such file", "no server", "another file"])
def test_failed_downloads_are_explained(server, problem):
    folder, address = server
    name = publish(folder, write_state_dict)
    if problem == "no such file":
        (folder / name).unlink()
    elif problem == "another file":
        (folder / name).write_bytes(b"something else")
    else:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(UserError) as error:
        published_weights(f"{address}/{name}", "fid and kid", "--feature-weights")
    message = str(error.value)
    assert message.startswith("fid and kid: the published weights cannot be downloaded (")
    place = Path(torch.hub.get_dir()) / "checkpoints" / name
    assert f"Download {address}/{name} on a machine with a network and copy it to {place}" in message
    assert "or give --feature-weights FILE" in message
    assert not list(Path(torch.hub.get_dir()).rglob("*.p*"))


def test_a_damaged_file_in_the_cache_is_refused(server):
    folder, address = server
    name = publish(folder, write_state_dict)
    path = published_weights(f"{address}/{name}", "fid", "--feature-weights")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"damaged weights .* Remove the file"):
        published_weights(f"{address}/{name}", "fid", "--feature-weights")


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_a_file_that_runs_code_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, address = server
    name = publish(folder, lambda path: torch.save({"weight": RunsCode()}, path))
    with pytest.raises(UserError, match="damaged weights"):
        published_weights(f"{address}/{name}", "fid", "--feature-weights")
    assert not (tmp_path / "was-run").exists()


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ganvas\[metrics\]'. Or give --feature-weights FILE"):
        load_feature_network(None, "cpu")


@pytest.mark.slow
def test_inception_of_torch_fidelity(server, monkeypatch):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    folder, address = server
    write_state_dict(folder / "empty")
    with monkeypatch.context() as patched:
        patched.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        drawn = module.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=folder / "empty")
    name = publish(folder, lambda path: torch.save(drawn.state_dict(), path))
    monkeypatch.setattr(module, "URL_INCEPTION_V3", f"{address}/{name}")
    network = load_feature_network(None, "cpu")
    assert network.name.startswith("Inception v3, torch-fidelity 0.")
    assert network.digest[:8] == name[-12:-4]
    assert network.dimensions == 2048
    batch = torch.stack([clean_resize(image) for image in images(2, 3, 64, 48)])
    features = network(batch)
    assert features.std() > 0
    np.testing.assert_allclose(features, drawn(batch)[0], rtol=1e-4, atol=1e-6)

    write_state_dict(folder / "other")
    name = publish(folder, write_state_dict)
    monkeypatch.setattr(module, "URL_INCEPTION_V3", f"{address}/{name}")
    with pytest.raises(UserError, match=r"damaged weights .*Missing key"):
        load_feature_network(None, "cpu")


@pytest.mark.slow
def test_lpips_of_torchmetrics(server, monkeypatch):
    models = pytest.importorskip("torchvision.models")
    folder, address = server
    torch.manual_seed(0)
    alexnet = models.alexnet(weights=None).eval()
    name = publish(folder, lambda path: torch.save(alexnet.state_dict(), path))
    weights = models.AlexNet_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "url", property(lambda self: f"{address}/{name}"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder.parent / "cache"))
    network = load_lpips(None, "cpu")
    x, y = (image[None] for image in images(2, 3, 64, 64))
    assert network(x, x).item() == 0

    # Zhang et al. 2018, Eq. 1, with the linear weights that torchmetrics ships.
    import torchmetrics.functional.image.lpips as shipped

    linear = torch.load(
        Path(shipped.__file__).parent / "lpips_models" / "alex.pth", map_location="cpu", weights_only=True
    )
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    expected, layer = 0.0, 0
    a, b = ((image - shift) / scale for image in (x, y))
    with torch.no_grad():
        for module in alexnet.features:
            a, b = module(a), module(b.clone())
            if isinstance(module, torch.nn.ReLU):
                difference = (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).square()
                weight = linear[f"lin{layer}.model.1.weight"].view(1, -1, 1, 1)
                expected += (weight * difference).sum(dim=1).mean().item()
                layer += 1
    assert layer == 5
    assert network(x, y).item() == pytest.approx(expected, rel=1e-4)
