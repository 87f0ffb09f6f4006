import gzip
import hashlib
import struct

import numpy as np
import pytest
from torchvision import datasets

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LOADERS = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}


@pytest.fixture
def files(tmp_path):
    """A folder with the four files of a dataset of four training and two test images."""
    for part, count in (("train", 4), ("t10k", 2)):
        images, labels = np.zeros((count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


@pytest.mark.parametrize("name", LOADERS)
def test_existing_files_are_checked(run, files, name):
    code, out, err = run(name, "--out", files)
    assert (code, err) == (0, "")
    counts, command = out.splitlines()
    assert counts == f"{files}: 4 training and 2 test images, already there"
    assert command == f"dcgan train --data {name} --data-root {files} --out RUN"
    path = files / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    code, _, err = run(name, "--out", files)
    assert code == 2
    assert f"error: {path}: is cut short" in err


@pytest.mark.parametrize("name", LOADERS)
def test_a_dataset_is_downloaded_and_verified(run, files, name, serve, answer, monkeypatch, tmp_path_factory):
    packed = [gzip.compress((files / file).read_bytes()) for file in NAMES]
    server, out = serve(), tmp_path_factory.mktemp("out")
    digests = [(f"{file}.gz", hashlib.md5(content).hexdigest()) for file, content in zip(NAMES, packed, strict=True)]
    monkeypatch.setattr(LOADERS[name], "mirrors", [server.address("")])
    monkeypatch.setattr(LOADERS[name], "resources", digests)
    server.offer(packed[0][::-1])  # another digest
    code, _, err = run(name, "--out", out)
    assert code == 2
    assert f"error: {name} cannot be downloaded" in err
    assert not [path for path in out.rglob("*") if path.is_file()]

    present = out / f"{NAMES[3]}.gz"
    present.write_bytes(packed[3])
    before = present.stat().st_ino
    served = {f"/{file}.gz": content for file, content in zip(NAMES, packed, strict=True)}
    server.answer = lambda request, answer: reply(request, served[request.path])
    code, printed, err = run(name, "--out", out)
    assert code == 0, err
    assert printed.startswith(f"{out}: 4 training and 2 test images\n")
    assert {"mnist": "CC BY-SA 3.0", "fashion-mnist": "Zalando SE: MIT"}[name] in err
    assert present.stat().st_ino == before  # left alone
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {path[1:]: c for path, c in served.items()}


def reply(request, content):
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
