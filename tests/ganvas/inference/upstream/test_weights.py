"""Weights of pytorch-CycleGAN-and-pix2pix against networks built here from the papers' layer lists, under its names."""

import contextlib
import errno
import gzip
import logging
import os
import pickle
import pickletools
import random
import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import ganvas
from ganvas.cli.convert import ImportOptions, run_import
from ganvas.errors import UserError, WriteError
from ganvas.inference.upstream.weights import UpstreamGenerator, read_upstream, write_upstream
from ganvas.models.folder import NetworkSpec, build_generator

NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": lambda width: nn.Identity(),
}


class Nest(nn.Module):
    """One level of the U-Net around the next inner one; Ck and CDk of Isola et al. 2017, Sec. 6.1.1."""

    def __init__(self, outer, inner, norm, inside=None, source=None, dropout=False):
        super().__init__()
        bias = norm == "instance"
        down = nn.Conv2d(source or outer, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(inner * (2 if inside else 1), outer, 4, 2, 1, bias=bias or source is not None)
        if source is not None:
            layers = [down, inside, nn.ReLU(), up, nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, NORMS[norm](outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, NORMS[norm](inner), inside, nn.ReLU(), up, NORMS[norm](outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)
        self.outermost = source is not None

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], dim=1)


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def unet(levels, norm, *, channels=(3, 3), width=4):
    block = Nest(8 * width, 8 * width, norm)
    for _ in range(levels - 5):
        block = Nest(8 * width, 8 * width, norm, block, dropout=True)
    for outer, inner in ((4, 8), (2, 4), (1, 2)):
        block = Nest(outer * width, inner * width, norm, block)
    return Wrapped(Nest(channels[1], width, norm, block, source=channels[0]))


class Residual(nn.Module):
    """Rk of Zhu et al. 2017, Sec. 7.2."""

    def __init__(self, width, norm, dropout, padding="reflect"):
        super().__init__()
        bias, zeros = norm == "instance", int(padding == "zero")
        pad = [] if zeros else [nn.ReflectionPad2d(1)]
        half = lambda: [*pad, nn.Conv2d(width, width, 3, padding=zeros, bias=bias), NORMS[norm](width)]  # noqa: E731
        self.conv_block = nn.Sequential(*half(), nn.ReLU(), *([nn.Dropout(0.5)] if dropout else []), *half())

    def forward(self, x):
        return x + self.conv_block(x)


def resnet(blocks, norm, *, dropout=False, channels=(3, 3), width=4, padding="reflect"):
    bias = norm == "instance"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], width, 7, bias=bias), NORMS[norm](width), nn.ReLU()]
    for before, after in ((width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=bias), NORMS[norm](after), nn.ReLU()]
    layers += [Residual(4 * width, norm, dropout, padding) for _ in range(blocks)]
    for before, after in ((4 * width, 2 * width), (2 * width, width)):
        layers += [nn.ConvTranspose2d(before, after, 3, 2, 1, 1, bias=bias), NORMS[norm](after), nn.ReLU()]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels[1], 7), nn.Tanh()]
    return Wrapped(nn.Sequential(*layers))


def patchgan(layers, norm, *, channels=6, width=4):
    bias = norm == "instance"
    widths = [width * min(2**n, 8) for n in range(layers + 1)]
    stack = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n in range(1, layers + 1):
        stride = 2 if n < layers else 1
        stack += [
            nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=bias),
            NORMS[norm](widths[n]),
            nn.LeakyReLU(0.2),
        ]
    return Wrapped(nn.Sequential(*stack, nn.Conv2d(widths[-1], 1, 4, 1, 1)))


class Pixel(nn.Module):
    def __init__(self, norm, channels=6, width=4):
        super().__init__()
        bias = norm == "instance"
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=bias),
            NORMS[norm](2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias),
        )

    def forward(self, x):
        return self.net(x)


def disturbed(network):
    """Fill every tensor with values that a wrong place would show."""
    rng = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=rng)
        elif value.is_floating_point():
            value.normal_(0, 0.2, generator=rng)
        else:
            value.fill_(7)
    return network.eval()


def saved(path, network, **more):
    torch.save(network.state_dict() | more, path)
    return path


GENERATORS = {
    "unet_256": lambda norm: unet(8, norm),
    "unet_128": lambda norm: unet(7, norm, channels=(1, 4)),
    "resnet_9blocks": lambda norm: resnet(9, norm),
    "resnet_6blocks": lambda norm: resnet(6, norm, dropout=True, channels=(4, 1)),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", GENERATORS)
def test_generators_compute_the_same(tmp_path, name, norm):
    theirs = disturbed(GENERATORS[name](norm))
    found = read_upstream(saved(tmp_path / "latest_net_G.pth", theirs), name)
    assert (found.name, found.spec.arguments["norm"], found.spec.arguments["base_channels"]) == (name, norm, 4)
    x = torch.rand(2, found.spec.arguments["in_channels"], *([256, 256] if "256" in name else [128, 128])) * 2 - 1
    with torch.no_grad():
        expected, output = theirs(x), found.network(x)
    assert expected.std() > 0.02
    assert (output - expected).abs().max() <= 5e-5


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["patch 1", "patch 3", "patch 5", "pixel"])
def test_discriminators_compute_the_same(tmp_path, kind, norm):
    theirs = disturbed(Pixel(norm) if kind == "pixel" else patchgan(int(kind[-1]), norm))
    found = read_upstream(str(saved(tmp_path / "latest_net_D.pth", theirs)))
    assert not isinstance(found, UpstreamGenerator)
    assert f"{kind.split()[0]} discriminator" in found.description
    x = torch.rand(2, 6, 128, 128) * 2 - 1
    with torch.no_grad():
        assert (found.network(x) - theirs(x)).abs().max() <= 1e-4 * theirs(x).abs().max()
    with pytest.raises(UserError, match="not a generator"):
        ganvas.load_upstream(tmp_path / "latest_net_D.pth")


def test_old_files(tmp_path):
    """Prefixes of several GPUs, averages in instance norm, no count of batches: what files of other years have."""
    theirs = disturbed(resnet(6, "instance"))
    table = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    table |= {f"module.model.2.{entry}": torch.ones(4) for entry in ("running_mean", "running_var")}
    torch.save(table, tmp_path / "new.pth")
    torch.save(table, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    x = torch.rand(1, 3, 64, 64)
    for name in ("new", "old"):
        assert torch.equal(
            read_upstream(tmp_path / f"{name}.pth").network(x), read_upstream(tmp_path / "new.pth").network(x)
        )
    assert (read_upstream(tmp_path / "old.pth").network(x) - theirs(x)).abs().max() <= 5e-5

    theirs = disturbed(unet(7, "batch"))
    table = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(table, tmp_path / "x.pth")
    x = torch.rand(1, 3, 128, 128)
    assert (read_upstream(tmp_path / "x.pth").network(x) - theirs(x)).abs().max() <= 5e-5


def tracked(network):
    """Add to instance norms the running averages that they had before PyTorch 0.4."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.track_running_stats = True
            module.register_buffer("running_mean", torch.zeros(module.num_features))
            module.register_buffer("running_var", torch.ones(module.num_features))
    return disturbed(network)


@pytest.mark.parametrize("build", [lambda: resnet(6, "instance"), lambda: unet(7, "instance")], ids=["resnet", "unet"])
def test_running_averages_of_instance_norms_are_refused_if_asked_for(tmp_path, build):
    theirs = tracked(build())
    path, x = saved(tmp_path / "latest_net_G.pth", theirs), torch.rand(1, 3, 128, 128) * 2 - 1
    running = theirs(x)
    for module in theirs.modules():
        module.track_running_stats = False
        if isinstance(module, nn.InstanceNorm2d):
            module.running_mean = module.running_var = None
    each = theirs(x)  # as that tool does it, which drops them
    assert (running - each).abs().max() > 0.1
    model = ganvas.load_upstream(path, image_size=128)
    assert (model.translate_tensor(x) - each).abs().max() <= 5e-5
    with pytest.raises(UserError, match=r"latest_net_G\.pth: --statistics running: its instance norms come with"):
        ganvas.load_upstream(path, image_size=128, statistics="running")
    with pytest.raises(UserError, match="--statistics running"):
        run_import(ImportOptions(path, tmp_path / "model", statistics="running"), kind="pix2pix")
    assert not (tmp_path / "model").exists()


def test_running_statistics_are_accepted_without_running_averages(tmp_path):
    path, x = saved(tmp_path / "x.pth", resnet(6, "instance")), torch.rand(1, 3, 64, 64)
    models = [ganvas.load_upstream(path, image_size=64, statistics=how) for how in ("running", "picture")]
    assert torch.equal(*(model.translate_tensor(x) for model in models))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dropout", [False, True])
def test_blocks_that_pad_with_zeros_are_named(tmp_path, norm, dropout):
    path = saved(tmp_path / "x.pth", resnet(6, norm, dropout=dropout, padding="zero"))
    with pytest.raises(UserError, match=r"x\.pth: holds a ResNet whose blocks pad with zeros \(padding_type='zero'\)"):
        read_upstream(path)


def test_the_translator_normalizes_as_upstream(tmp_path):
    """Without --eval it normalizes by the batch, which is one image."""
    theirs = disturbed(unet(7, "batch"))
    path = saved(tmp_path / "latest_net_G.pth", theirs)
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    running = theirs(x)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    image = theirs(x)
    assert (running - image).abs().max() > 0.1
    model = ganvas.load_upstream(path, netG="unet_128", image_size=128)
    assert (model.translate_tensor(x) - image).abs().max() <= 1e-4
    model = ganvas.load_upstream(path, image_size=128, statistics="running")
    assert (model.translate_tensor(x) - running).abs().max() <= 5e-5


@pytest.mark.parametrize(
    ("name", "architecture", "arguments", "options"),
    [
        ("unet_256", "unet", {"base_channels": 2}, "--norm batch --ngf 2"),
        (
            "unet_128",
            "unet",
            {"base_channels": 2, "num_levels": 7, "norm": "instance", "in_channels": 1, "dropout": 0.0},
            "--norm instance --no_dropout --ngf 2 --input_nc 1",
        ),
        ("resnet_9blocks", "resnet", {"base_channels": 2}, "--norm instance --no_dropout --ngf 2"),
        ("resnet_6blocks", "resnet", {"num_blocks": 6}, "--norm instance --no_dropout"),  # upstream's defaults
        (
            "resnet_6blocks",
            "resnet",
            {"base_channels": 2, "num_blocks": 6, "norm": "batch", "dropout": 0.5, "out_channels": 4},
            "--norm batch --ngf 2 --output_nc 4",
        ),
    ],
)
def test_exported_weights_load_into_upstreams_network(tmp_path, name, architecture, arguments, options):
    spec = NetworkSpec(architecture, arguments, "A", "B")
    ours = disturbed(build_generator(spec))
    assert write_upstream(tmp_path / "latest_net_G.pth", ours, spec) == f"--netG {name} {options}"
    norm = arguments.get("norm", "batch" if architecture == "unet" else "instance")
    channels = (arguments.get("in_channels", 3), arguments.get("out_channels", 3))
    if architecture == "unet":
        theirs = unet(arguments.get("num_levels", 8), norm, channels=channels, width=arguments.get("base_channels", 64))
    else:
        blocks, dropout = arguments.get("num_blocks", 9), "dropout" in arguments
        theirs = resnet(blocks, norm, dropout=dropout, channels=channels, width=arguments.get("base_channels", 64))
    theirs.load_state_dict(torch.load(tmp_path / "latest_net_G.pth", weights_only=True))  # strict
    x = torch.rand(1, channels[0], *([256, 256] if name == "unet_256" else [128, 128]))
    with torch.no_grad():
        assert (theirs.eval()(x) - ours(x)).abs().max() <= 5e-5
    assert [path.name for path in tmp_path.iterdir()] == ["latest_net_G.pth"]


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("unet", {"num_levels": 5}),
        ("unet", {"upsampling": "resize"}),
        ("unet", {"norm": "none"}),
        ("resnet", {"num_blocks": 3}),
    ],
)
def test_architectures_that_upstream_lacks_are_refused(tmp_path, architecture, arguments):
    spec = NetworkSpec(architecture, arguments | {"base_channels": 2}, "A", "B")
    with pytest.raises(UserError, match="is none of them"):
        write_upstream(tmp_path / "x.pth", build_generator(spec), spec)
    assert list(tmp_path.iterdir()) == []


class Code:
    def __reduce__(self):
        return os.mkdir, (str(Code.place),)


def test_code_is_refused_and_never_run(tmp_path):
    Code.place = tmp_path / "was-run"
    torch.save({"model.model.0.weight": Code()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code(), protocol=2))
    for name in ("zip", "plain"):
        with pytest.raises(UserError, match="nothing in it was executed"):
            read_upstream(tmp_path / f"{name}.pth")
    assert not Code.place.exists()


@pytest.mark.parametrize("first", [code.code for code in pickletools.opcodes if code.name != "PROTO"])
def test_a_damaged_first_byte_is_one_message(tmp_path, first):
    """It is an instruction of pickle that lacks what it works on; PROTO begins a sound file."""
    torch.save({"model.model.0.weight": torch.zeros(1)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    sound = (tmp_path / "x.pth").read_bytes()
    for rest in (b"", b"\x00", b"weights", sound[1:]):
        (tmp_path / "x.pth").write_bytes(first.encode("latin-1") + rest)
        with pytest.raises(UserError, match=r"x\.pth: "):
            read_upstream(tmp_path / "x.pth")


@pytest.mark.slow
def test_damage_anywhere_in_the_table_is_one_message_or_harmless(tmp_path):
    torch.save({"net.0.weight": torch.zeros(1, 1, 1, 1)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    sound, rng = (tmp_path / "x.pth").read_bytes(), random.Random(0)
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] = rng.randrange(256)
        (tmp_path / "x.pth").write_bytes(damaged)
        with contextlib.suppress(UserError):
            read_upstream(tmp_path / "x.pth")


def torchscript(path):
    torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)).save(path)


def lfs_pointer(path):
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 217639063\n")


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("latest_net_G.pth", b"weights")


def test_a_zip_of_a_later_version_is_one_message(tmp_path):
    """PKZIP APPNOTE, 4.4.3: the version that is needed to extract, here 25.5, in the central directory."""
    path = saved(tmp_path / "x.pth", resnet(6, "instance"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(content)
    with contextlib.suppress(UserError):  # torch may read it all the same
        read_upstream(path)


def test_names_are_shortened(tmp_path):
    torch.save({"x" * 5000: torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"it has x*…, …") as error:
        read_upstream(tmp_path / "x.pth")
    assert len(str(error.value)) < 500


OTHER_KINDS = {
    "a TorchScript program, which contains code; nothing in it was executed": torchscript,
    "a Git LFS pointer": lfs_pointer,
    "a web page saved": lambda path: path.write_text("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"),
    "a safetensors file under another name": lambda path: save_file({"model.1.weight": torch.zeros(2)}, path),
    "a zip archive": zipped,
    "a gzip archive": lambda path: path.write_bytes(gzip.compress(b"weights")),
    "a PNG image": lambda path: Image.new("L", (2, 2)).save(path, format="PNG"),
    "empty": lambda path: path.touch(),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_other_files_are_described_without_advice_to_run_code(tmp_path, kind):
    OTHER_KINDS[kind](tmp_path / "latest_net_G.pth")
    with pytest.raises(UserError, match=rf"latest_net_G\.pth: is {kind}") as error:
        read_upstream(tmp_path / "latest_net_G.pth")
    assert not re.search("weights_only|unsafe|trust|pickle", str(error.value))


@pytest.mark.parametrize("error", [RuntimeError, pickle.UnpicklingError, ValueError])
def test_torchs_advice_to_run_code_is_not_repeated(tmp_path, monkeypatch, error):
    def load(*_, **__):
        raise error("Set weights_only=False if you trust the source of the file.")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match="not a plain dict") as refused:
        read_upstream(saved(tmp_path / "x.pth", resnet(6, "instance")))
    assert not re.search("weights_only|trust", str(refused.value))


def test_other_files_of_tensors_are_named(tmp_path):
    good = saved(tmp_path / "good.pth", unet(7, "batch"))
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("weights")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(unet(7, "batch").state_dict() | {"model.model.1.more": torch.zeros(1)}, tmp_path / "more.pth")
    odd = {
        "scalar unet": {"model.model.0.weight": torch.zeros(1)},
        "one level": {"model.model.0.weight": torch.zeros(4, 3, 4, 4), "model.model.3.weight": torch.zeros(4, 3, 4, 4)},
        "lone block": {"model.10.conv_block.1.weight": torch.zeros(4, 4, 3, 3)},
        "scalar patch": {"model.0.weight": torch.zeros(1)},
        "scalar pixel": {"net.0.weight": torch.zeros(1)},
        "words": {"net.0.weight": torch.zeros(4, 3, 1, 1), "net.word.weight": torch.zeros(1)},
    }
    for name, table in odd.items():
        torch.save(table, tmp_path / f"{name}.pth")
    expected = dict.fromkeys(odd, "not the tensors of one of its networks") | {
        "nowhere": "no such file",
        "cut": "not a plain dict",
        "text": "not a plain dict",
        "list": "not a dict",
        "other": r"holds no network .* \(it has encoder\.weight",
        "more": "another architecture",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as error:
            read_upstream(tmp_path / f"{name}.pth")
        assert f"{name}.pth" in str(error.value)
    with pytest.raises(UserError, match="holds unet_128, not resnet_9blocks"):
        ganvas.load_upstream(good, netG="resnet_9blocks")


def test_the_architecture_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = saved(tmp_path / "latest_net_G.pth", resnet(6, "instance", channels=(1, 4)))
    ganvas.load_upstream(path)
    assert caplog.messages == [f"{path}: resnet_6blocks, 1 to 4 channels, ngf 4, norm instance"]


def test_a_full_disk_leaves_an_older_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(b"before")
    monkeypatch.setattr(Path, "write_bytes", full)
    spec = NetworkSpec("resnet", {"base_channels": 2, "num_blocks": 6}, "A", "B")
    with pytest.raises(WriteError, match=r"cannot be written \(No space"):
        write_upstream(path, build_generator(spec), spec)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("latest_net_G.pth", b"before")]


@pytest.mark.slow
def test_the_paper_counts(tmp_path):
    """54,413,955 parameters in the U-Net of 256 pixels, 11,378,179 in the ResNet of 9 blocks, read from such files."""
    for theirs, count in ((unet(8, "batch", width=64), 54_413_955), (resnet(9, "instance", width=64), 11_378_179)):
        found = read_upstream(saved(tmp_path / "x.pth", theirs))
        assert sum(p.numel() for p in found.network.parameters()) == count


def peak():
    """Return the peak memory of this process, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def deflated(path, table):
    """Save as torch does, but compressed: zeros become a thousandth."""
    torch.save(table, path)
    with zipfile.ZipFile(path) as file:
        content = {info: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for info, data in content.items():
            file.writestr(info.filename, data)


HUGE = {
    "repeated": lambda path: torch.save({"model.model.0.weight": torch.zeros(1).expand(40_000, 3, 136, 136)}, path),
    "repeated, old": lambda path: torch.save(
        {"model.0.weight": torch.zeros(1).expand(40_000, 3, 136, 136)}, path, _use_new_zipfile_serialization=False
    ),
    "one value a filter": lambda path: torch.save(
        {"model.model.0.weight": torch.zeros(40_000, 1, 1, 1).expand(40_000, 3, 136, 136)}, path
    ),
    "overlapping": lambda path: torch.save(
        {"net.0.weight": torch.zeros(60_000).as_strided((30_000, 30_000, 1, 1), (1, 1, 1, 1))}, path
    ),
    "compressed": lambda path: deflated(path, {"model.model.0.weight": torch.zeros(40_000, 16, 4, 4)}),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_small_file_of_huge_tensors_is_refused_before_memory_is_allocated(tmp_path, kind):
    HUGE[kind](tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 1e6
    before = peak()
    with pytest.raises(UserError, match=r"x\.pth: (claims tensors of|is not a plain dict)"):
        read_upstream(tmp_path / "x.pth")
    assert peak() - before < 200e6


@pytest.mark.parametrize(
    "table",
    [
        {"model.model.0.weight": torch.zeros(4, 3, 4, 4), ".model." * 5000: torch.zeros(1)},
        {
            "model.1.weight": torch.zeros(4, 3, 7, 7),
            **{f"model.{n}.conv_block.1.weight": torch.zeros(1) for n in range(10, 300)},
        },
        {
            "model.0.weight": torch.zeros(4, 3, 4, 4),
            **{f"model.{n}.weight": torch.zeros(1, 1, 1, 1) for n in range(1, 100)},
        },
        {"model.0.weight": torch.zeros(4, 3, 4, 4), f"model.{'9' * 5000}.weight": torch.zeros(1)},
        {"model.model.0.weight": torch.zeros(0, 0, 4, 4)},
        {"net.0.weight": torch.zeros(20_000, 1, 1, 1)},
    ],
    ids=["levels", "blocks", "layers", "number", "empty", "wide"],
)
def test_names_of_many_layers_are_one_message(tmp_path, table):
    torch.save(table, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth"):
        read_upstream(tmp_path / "x.pth")
