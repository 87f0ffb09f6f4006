"""Published datasets from a local server or archive to a folder that training reads."""

import dataclasses
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from data_scripts.sets import catalog, published
from data_scripts.sets.catalog import FOLDERS, PUBLISHED, PublishedSet
from data_scripts.sets.download import RetryPolicy
from ganvas.data.pairs import find_pairs
from ganvas.data.unpaired import find_domains
from ganvas.errors import UserError
from ganvas.files import HOST

ROOT = Path(__file__).parents[3]
COUNTS = {"paired": {"train": 3, "val": 2}, "unpaired": {"trainA": 3, "trainB": 2, "testA": 1, "testB": 2}}
JUNK = {"__MACOSX/set/train/1.jpg": b"", "set/.DS_Store": b"", "set/train/._1.jpg": b"", "set/readme.txt": b"hello"}


def image(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 4), (number, 0, 255 - number)).save(file, "JPEG")
    return file.getvalue()


def members_of(layout):
    names = [f"set/{folder}/{number}.jpg" for folder, count in COUNTS[layout].items() for number in range(count)]
    return {name: image(number) for number, name in enumerate(names)}


def archive_of(layout, members=None):
    """Pack as the authors did: pairs as tar.gz, two domains as zip."""
    members, file = {**(members or members_of(layout)), **JUNK}, io.BytesIO()
    if layout == "unpaired":
        with zipfile.ZipFile(file, "w") as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as packed:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def dataset_of(layout, content, address, **changes):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    name = "maps" if layout == "paired" else "horse2zebra"
    dataset = PublishedSet(
        name, layout, ("left", "right"), (address,), len(content), "for tests only", COUNTS[layout], digest
    )
    return dataclasses.replace(dataset, **changes)


@pytest.fixture(params=["paired", "unpaired"])
def offered(request, serve):
    """A dataset, and the server that has its archive."""
    content = archive_of(request.param)
    server = serve(content)
    return dataset_of(request.param, content, server.address()), server


@pytest.fixture
def maps(serve, monkeypatch):
    """A server of a small dataset that the command line knows as maps."""
    content = archive_of("paired")
    server = serve(content)

    def change(**changes):
        monkeypatch.setitem(catalog.SETS, "maps", dataset_of("paired", content, server.address(), **changes))

    server.change = change
    change()
    return server


def content_of(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.jpg")}


def test_a_dataset_is_put_where_training_reads_it(offered, tmp_path):
    dataset, server = offered
    out = tmp_path / "new" / "set"
    assert published.fetch(dataset, out) == COUNTS[dataset.layout]
    expected = {name.removeprefix("set/"): content for name, content in members_of(dataset.layout).items()}
    assert content_of(out) == expected
    assert [path.name for path in out.parent.iterdir()] == ["set"]
    if dataset.layout == "paired":
        assert [len(find_pairs(out, split)) for split in ("train", "val")] == [3, 2]
    else:
        assert [[len(files) for files in find_domains(out, split)] for split in ("train", "test")] == [[3, 2], [1, 2]]
    assert json.loads((out / "dataset.json").read_text()) == {
        "name": dataset.name,
        "domains": {"a": "left", "b": "right"},
        "license": "for tests only",
        "source": server.address(),
        "archive": {"size": dataset.size, "digest": dataset.digest},
        "pictures": COUNTS[dataset.layout],
    }


def test_the_command_prints_license_counts_and_next_step_and_leaves_a_present_dataset_alone(run, maps, tmp_path):
    out = tmp_path / "my maps"
    code, printed, err = run("maps", "--out", out)
    assert code == 0, err
    command = f"pix2pix train --data '{out}' --out RUN"
    assert printed.splitlines() == [f"{out}: 3 train, 2 val images", "A: left; B: right", command]
    assert "for tests only" in err
    assert run("check", out)[0] == 0
    before = (out / "dataset.json").stat().st_mtime_ns
    maps.requests.clear()
    code, printed, _ = run("maps", "--out", out)
    assert code == 0
    assert "3 train, 2 val images, already there" in printed
    assert not maps.requests
    assert (out / "dataset.json").stat().st_mtime_ns == before
    (out / "train" / "1.jpg").unlink()
    code, _, err = run("maps", "--out", out)
    assert code == 2
    assert "holds 2 of its 3 images. Remove" in err


def test_the_license_is_printed_before_the_download(run, maps, answer, tmp_path):
    maps.answers = [answer(404)]
    code, out, err = run("maps", "--out", tmp_path / "set")
    assert code == 2
    assert err.index("for tests only") < err.index("answers 404 Not Found") < err.index("cannot be downloaded")
    assert "--archive FILE" in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_received_bytes_are_kept_for_the_next_run(maps, answer, tmp_path):
    maps.answers = [answer(cut_after=100)] + [answer(500)] * 2
    with pytest.raises(UserError, match="cannot be downloaded"):
        published.fetch(catalog.SETS["maps"], tmp_path / "set", retry=RetryPolicy(attempts=2, first_wait=0.001))
    assert (tmp_path / ".set.download" / "maps.tar.gz.part").stat().st_size == 100


@pytest.mark.parametrize("present", ["other.txt", "dataset.json"])
def test_a_folder_with_something_else_is_refused(run, maps, tmp_path, present):
    (tmp_path / present).write_text('{"name": "facades", "images": {}}')
    code, _, err = run("maps", "--out", tmp_path)
    assert code == 2
    assert "is not empty and does not hold maps" in err
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert not maps.requests


def test_an_empty_folder_is_filled_and_a_file_refused(run, maps, tmp_path):
    (tmp_path / "set").mkdir()
    assert run("maps", "--out", tmp_path / "set")[0] == 0
    assert len(content_of(tmp_path / "set")) == 5
    (tmp_path / "file").touch()
    code, _, err = run("maps", "--out", tmp_path / "file")
    assert code == 2
    assert "is a file" in err


def test_a_mirror_is_tried_first(run, maps, serve, answer, tmp_path):
    mirror = serve(maps.content)
    assert run("maps", "--out", tmp_path / "a", "--mirror", mirror.address("sets/"))[0] == 0
    assert [path for path, _ in mirror.requests] == ["/sets/maps.tar.gz"]
    assert not maps.requests
    mirror.answers = [answer(404)]
    assert run("maps", "--out", tmp_path / "b", "--mirror", mirror.address("other.tgz"))[0] == 0
    assert mirror.requests[-1][0] == "/other.tgz"
    assert len(maps.requests) == 1
    code, _, err = run("maps", "--out", tmp_path / "c", "--mirror", "ftp://host/")
    assert code == 2
    assert "--mirror is 'ftp://host/'; expected a URL" in err


def test_a_local_archive_needs_no_server(run, maps, tmp_path):
    archive = tmp_path / "maps.tgz"
    archive.write_bytes(maps.content)
    code, out, err = run("maps", "--out", tmp_path / "set", "--archive", archive)
    assert code == 0, err
    assert "3 train, 2 val images" in out
    assert not maps.requests
    assert archive.read_bytes() == maps.content
    code, _, err = run("maps", "--out", tmp_path / "other", "--archive", tmp_path / "no.tgz")
    assert code == 2
    assert f"--archive {tmp_path / 'no.tgz'}: there is no such file" in err


def test_an_archive_of_another_dataset_is_refused_by_its_counts(run, maps, tmp_path):
    archive = tmp_path / "wrong.zip"
    members = {name: content for name, content in members_of("paired").items() if name != "set/val/1.jpg"}
    for content, message in (
        (archive_of("unpaired", members), "it holds 1 instead of 2 images for val."),  # the format does not matter
        (archive_of("unpaired"), "it holds 0 instead of 3 images for train, 0 instead of 2 images for val."),
    ):
        archive.write_bytes(content)
        code, _, err = run("maps", "--out", tmp_path / "set", "--archive", archive)
        assert code == 2
        assert f"{archive}: is not maps; {message}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.zip"]


def test_a_bad_archive_from_a_server_is_removed(serve, tmp_path):
    content = archive_of("paired", {**members_of("paired"), "../../evil.jpg": b"evil"})
    server = serve(content)
    dataset = dataset_of("paired", content, server.address(), digest=None)
    with pytest.raises(UserError, match=r"leads out of its folder.* It was removed; run this again"):
        published.fetch(dataset, tmp_path / "a" / "set", allow_http=True)
    assert not list(tmp_path.rglob("*.jpg"))
    server.offer(archive_of("paired"))
    published.fetch(dataclasses.replace(dataset, size=len(server.content)), tmp_path / "a" / "set", allow_http=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["set"]


def test_a_rounded_size_is_not_compared(serve, tmp_path):
    content = archive_of("paired")
    server = serve(content)
    dataset = dataset_of("paired", content, server.address(), digest=None, size=len(content) + 99, rounded=True)
    published.fetch(dataset, tmp_path / "set", allow_http=True)
    description = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert description["archive"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("has_digest", [True, False])
def test_an_archive_that_cannot_be_verified_is_downloaded_on_request_with_a_warning(run, maps, tmp_path, has_digest):
    if not has_digest:
        maps.change(digest=None)
        code, _, err = run("maps", "--out", tmp_path / "set")
        assert code == 2
        assert "--allow-http also tries unencrypted addresses" in err
        assert not maps.requests
    code, _, err = run("maps", "--out", tmp_path / "set", *([] if has_digest else ["--allow-http"]))
    assert code == 0, err
    assert (f"{maps.address()}: the archive came unencrypted" in err) != has_digest
    assert (f"sha256:{hashlib.sha256(maps.content).hexdigest()}" in err) != has_digest


def test_an_unencrypted_mirror_is_the_users_choice_and_the_warning_names_the_origin(run, maps, serve, answer, tmp_path):
    maps.change(digest=None)
    moved = serve()
    moved.answers = [answer(302, {"Location": maps.address("elsewhere")})]
    code, _, err = run("maps", "--out", tmp_path / "set", "--mirror", moved.address())
    assert code == 0, err
    assert f"{maps.address('elsewhere')}: the archive came unencrypted" in err


def test_stray_images_of_a_dataset_without_folders_are_kept(serve, tmp_path):
    content = archive_of("unpaired", {"photos/1.jpg": image(1), "photos/testB/2.jpg": image(2), "3.JPG": image(3)})
    dataset = dataset_of("unpaired", content, serve(content).address(), name="ae_photos", images={}, stray="testA")
    assert published.fetch(dataset, tmp_path / "set") == {"testA": 2, "testB": 1}


def test_a_full_disk_is_reported_before_the_download(run, maps, tmp_path):
    maps.change(size=10**15)
    code, _, err = run("maps", "--out", tmp_path / "set")
    assert code == 2
    assert "2000000.0 GB are needed for the archive and its images" in err
    assert not maps.requests


def test_leftovers_of_a_killed_run_are_used_or_removed(offered, tmp_path):
    dataset, server = offered
    leftover = tmp_path / f".set.new-{HOST}-killed"
    (leftover / "new" / "train").mkdir(parents=True)
    (leftover / "owner.lock").touch()
    leftover.chmod(0o700)
    os.utime(leftover, (0, 0))
    (tmp_path / ".set.download").mkdir()
    (tmp_path / ".set.download" / dataset.archive_name).write_bytes(server.content)
    published.fetch(dataset, tmp_path / "set")
    assert not server.requests
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


FETCH = """
import pathlib, sys
from data_scripts.sets.published import fetch
from data_scripts.sets.catalog import PublishedSet
from ganvas.log import shown_log
layout, address, size, out = sys.argv[1:]
images = {"train": 3, "val": 2} if layout == "paired" else {"trainA": 3, "trainB": 2, "testA": 1, "testB": 2}
dataset = PublishedSet("maps", layout, ("a", "b"), (address,), int(size), "", images)
with shown_log():
    fetch(dataset, pathlib.Path(out), allow_http=True)
"""


@pytest.mark.slow
def test_two_processes_run_one_after_the_other(serve, answer, tmp_path):
    content = archive_of("paired")
    server = serve(content)
    server.answers = [answer(stall_after=len(content) // 2)]  # holds the first one long enough
    command = [sys.executable, "-c", FETCH, "paired", server.address(), str(len(content)), str(tmp_path / "set")]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for _ in range(2000):
        if server.requests:
            break
        server.closing.wait(0.01)
    server.closing.wait(2)  # by now the other one waits
    server.closing.set()
    messages = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(messages)
    assert sum("another process is working there" in message for message in messages) <= 1
    assert len(server.requests) == 2  # one that broke off, and its continuation
    assert len(content_of(tmp_path / "set")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", COUNTS)
def test_downloads_killed_at_random_instants_are_finished(serve, answer, tmp_path, layout):
    """GANVAS_KILLS=50 asks for more kills."""
    content, rng = archive_of(layout), random.Random(0)
    expected = {name.removeprefix("set/"): image for name, image in members_of(layout).items()}
    for number in range(int(os.environ.get("GANVAS_KILLS", "2"))):
        server, out = serve(content), tmp_path / str(number) / "set"
        server.answers = [answer(stall_after=rng.randrange(len(content)))] if number % 2 == 0 else []
        command = [sys.executable, "-c", FETCH, layout, server.address(), str(len(content)), str(out)]
        victim = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while not server.requests and victim.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        victim.kill()
        victim.wait()
        assert not out.exists() or content_of(out) == expected
        published.fetch(dataset_of(layout, content, server.address(), digest=None, name="maps"), out, allow_http=True)
        assert content_of(out) == expected
        assert [path.name for path in out.parent.iterdir()] == ["set"]


@pytest.mark.slow
def test_real_images_arrive_unchanged(run, published_data, tmp_path):
    source = published_data / "horse2zebra"
    with zipfile.ZipFile(tmp_path / "horse2zebra.zip", "w") as packed:
        for path in source.rglob("*.jpg"):
            packed.write(path, f"horse2zebra/{path.relative_to(source).as_posix()}")
    code, out, err = run("horse2zebra", "--out", tmp_path / "set", "--archive", tmp_path / "horse2zebra.zip")
    assert code == 0, err
    assert "1067 trainA, 1334 trainB, 120 testA, 140 testB images" in out
    assert content_of(tmp_path / "set") == content_of(source)


def test_the_catalog_is_consistent():
    names = [each.name for each in PUBLISHED]
    assert len(set(names)) == len(names) == 15
    for each in PUBLISHED:
        assert each.addresses[0] == each.addresses[1].replace("http:", "https:", 1)
        assert all(address.endswith(each.archive_name) for address in each.addresses)
        assert set(each.images) <= set(FOLDERS[each.layout])
        assert each.digest is None or len(each.digest) == {"sha256": 71, "sha1": 45}[each.digest.partition(":")[0]]
        assert each.license.isascii(), "consoles may know no other letters"


def test_counts_agree_with_local_datasets(published_data):
    places = {published_data / each.name / folder: count for each in PUBLISHED for folder, count in each.images.items()}
    present = {place: len(list(place.iterdir())) for place in places if place.is_dir()}
    present.pop(published_data / "maps" / "val", None)  # a part of it
    assert present
    assert present == {place: places[place] for place in present}


def test_list_shows_every_dataset_with_size_and_license(run):
    code, out, _ = run("list", "--json")
    assert code == 0
    listed = {each["name"]: each for each in json.loads(out)["sets"]}
    assert set(listed) == {*catalog.SETS, "earth", "mnist", "fashion-mnist"}
    assert all(each["size"] > 1_000_000 and each["licence"] for each in listed.values())
    assert listed["maps"]["pictures"] == {"train": 1096, "val": 1098}
    lines = run("list")[1].splitlines()
    for name, each in listed.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert re.search(f" {each['size'] / 1e6:.0f} MB | {each['size'] / 1e9:.1f} GB ", line)
        assert line.endswith(each["licence"])


def test_help_names_every_dataset(run):
    _, out, _ = run("--help")
    assert all(f"  {name} " in out for name in (*catalog.SETS, "list", "earth", "check"))
