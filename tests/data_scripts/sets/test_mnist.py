import gzip
import hashlib
import struct
from functools import partial

import numpy as np
import pytest
from torchvision import datasets

from data_scripts.__main__ import main
from data_scripts.sets import mnist
from data_scripts.sets.download import Patience

SIZES = {"train": 4, "t10k": 2}


@pytest.fixture
def files(tmp_path):
    for part, count in SIZES.items():
        pictures, labels = np.zeros((count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8)
        for name, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_takes_and_checks_files_that_are_there(files, name, capsys):
    assert main([name, "--out", str(files)]) == 0
    out, err = capsys.readouterr()
    counts, command = out.splitlines()
    assert err == "", "nothing is downloaded, so no license is told"
    assert counts == f"{files}: 4 training and 2 test images, already there"
    assert command == f"dcgan train --data {name} --data-root {files} --out RUN"


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_names_the_file_that_is_cut_short(files, file, capsys):
    path = files / file
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["mnist", "--out", str(files)]) == 2
    assert f"error: {path}: is cut short" in capsys.readouterr().err


NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
QUICK = Patience(stall=0.3, attempts=2, first_wait=0.001)
LOADERS = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}


@pytest.fixture(params=LOADERS)
def published(request, files, serve, monkeypatch, tmp_path_factory):
    """A set on a server of this machine: its name, its files' content, the server, and an empty folder."""
    packed = [gzip.compress((files / name).read_bytes()) for name in NAMES]
    server = serve()
    loader = LOADERS[request.param]
    digests = [(f"{name}.gz", hashlib.md5(content).hexdigest()) for name, content in zip(NAMES, packed, strict=True)]
    monkeypatch.setattr(loader, "mirrors", [server.address("")])
    monkeypatch.setattr(loader, "resources", digests)
    monkeypatch.setattr(mnist, "download_digits", partial(mnist.download_digits, patience=QUICK))
    return request.param, packed, server, tmp_path_factory.mktemp("out")


def test_a_set_is_downloaded_and_a_cut_transfer_continued(published, answer, capsys):
    name, packed, server, out = published
    first, *others = packed
    server.answers = [answer(offers=first, cut_after=20), answer(), *(answer(offers=each) for each in others)]
    assert main([name, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 4 training and 2 test images\n")
    assert {"mnist": "CC BY-SA 3.0", "fashion-mnist": "Zalando SE: MIT"}[name] in said.err
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=20-", None, None, None]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        f"{file}.gz": content for file, content in zip(NAMES, packed, strict=True)
    }


def test_a_second_run_asks_for_what_is_missing_alone(published, answer, capsys):
    name, packed, server, out = published
    server.answers = [*(answer(offers=each) for each in packed[:3]), *[answer(404)] * 9]
    assert main([name, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"error: {name} cannot be downloaded: {NAMES[3]}.gz" in error
    assert "Run this again to continue. Without a network, use dcgan's --data mnist5k" in error
    server.answers, asked = [answer(offers=packed[3])], len(server.requests)
    assert main([name, "--out", str(out)]) == 0
    assert [path for path, _ in server.requests[asked:]] == [f"/{NAMES[3]}.gz"]
    assert len(list(out.iterdir())) == 4


def test_a_file_with_another_digest_is_no_file_of_the_set(published, answer, capsys):
    name, packed, server, out = published
    server.answers = [answer(offers=packed[0][::-1])]
    assert main([name, "--out", str(out)]) == 2
    assert "sent a file with the digest md5:" in capsys.readouterr().err
    assert not [path for path in out.rglob("*") if path.is_file()]
