"""Published sets from end to end: a server or an archive at hand, and a folder that the trainings read."""

import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from data_scripts.__main__ import main
from data_scripts.sets import catalog as sets
from data_scripts.sets import published
from data_scripts.sets.catalog import FOLDERS, PUBLISHED, PublishedSet
from data_scripts.sets.download import Patience
from ganvas.data.paired import find_pairs
from ganvas.data.unpaired import find_domains
from ganvas.errors import UserError
from ganvas.files import HOST

COUNTS = {"paired": {"train": 3, "val": 2}, "unpaired": {"trainA": 3, "trainB": 2, "testA": 1, "testB": 2}}
JUNK = {"__MACOSX/set/train/1.jpg": b"", "set/.DS_Store": b"", "set/train/._1.jpg": b"", "set/readme.txt": b"hello"}


def picture(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 4), (number, 0, 255 - number)).save(file, "JPEG")
    return file.getvalue()


def members_of(layout):
    names = [f"set/{folder}/{number}.jpg" for folder, count in COUNTS[layout].items() for number in range(count)]
    return {name: picture(number) for number, name in enumerate(names)}


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


def set_of(layout, content, address):
    return PublishedSet(
        name="maps" if layout == "paired" else "horse2zebra",
        layout=layout,
        domains=("left", "right"),
        addresses=(address,),
        size=len(content),
        licence="for tests only",
        pictures=COUNTS[layout],
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
    )


@pytest.fixture(params=["paired", "unpaired"])
def offered(request, serve):
    """A set, and the server that has its archive."""
    content = archive_of(request.param)
    server = serve(content)
    return set_of(request.param, content, server.address()), server


@pytest.fixture
def maps(serve, monkeypatch):
    """The command line's maps is a small set on a server of ours."""
    content = archive_of("paired")
    server = serve(content)
    monkeypatch.setitem(sets.SETS, "maps", set_of("paired", content, server.address()))
    return server


@pytest.fixture
def run(in_process):
    return in_process(main)


def content_of(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.jpg")}


def test_a_set_is_put_where_the_trainings_read_it(offered, tmp_path):
    wanted, server = offered
    out = tmp_path / "new" / "set"
    assert published.fetch(wanted, out) == COUNTS[wanted.layout]
    expected = {name.removeprefix("set/"): content for name, content in members_of(wanted.layout).items()}
    assert content_of(out) == expected
    assert [path.name for path in out.parent.iterdir()] == ["set"]
    if wanted.layout == "paired":
        assert [len(find_pairs(out, split)) for split in ("train", "val")] == [3, 2]
    else:
        assert [[len(files) for files in find_domains(out, split)] for split in ("train", "test")] == [[3, 2], [1, 2]]
    assert json.loads((out / "dataset.json").read_text()) == {
        "name": wanted.name,
        "domains": {"a": "left", "b": "right"},
        "licence": "for tests only",
        "source": server.address(),
        "archive": {"size": wanted.size, "digest": wanted.digest},
        "pictures": COUNTS[wanted.layout],
    }


def test_the_command_line_tells_licence_counts_and_what_to_do_next(run, maps, tmp_path):
    code, out, err = run("maps", "--out", tmp_path / "my maps")
    assert code == 0, err
    assert out.splitlines() == [
        f"{tmp_path / 'my maps'}: 3 train, 2 val images",
        "A: left; B: right",
        f"pix2pix train --data '{tmp_path / 'my maps'}' --out RUN",
    ]
    assert "for tests only" in err
    assert run("check", tmp_path / "my maps")[0] == 0


def test_the_licence_is_told_before_anything_is_asked_for(run, maps, answer, tmp_path):
    maps.answers = [answer(404)]
    code, out, err = run("maps", "--out", tmp_path / "set")
    assert code == 2
    assert err.index("for tests only") < err.index("answers 404 Not Found") < err.index("cannot be downloaded")
    assert "--archive FILE" in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_what_has_arrived_is_kept_for_the_next_run(maps, answer, tmp_path):
    maps.answers = [answer(cut_after=100)] + [answer(500)] * 2
    with pytest.raises(UserError, match="cannot be downloaded"):
        published.fetch(sets.SETS["maps"], tmp_path / "set", patience=Patience(attempts=2, first_wait=0.001))
    assert (tmp_path / ".set.download" / "maps.tar.gz.part").stat().st_size == 100


def test_a_set_that_is_there_is_left_alone(run, maps, tmp_path):
    assert run("maps", "--out", tmp_path / "set")[0] == 0
    before = (tmp_path / "set" / "dataset.json").stat().st_mtime_ns
    maps.requests.clear()
    code, out, _ = run("maps", "--out", tmp_path / "set")
    assert code == 0
    assert "3 train, 2 val images, already there" in out
    assert not maps.requests
    assert (tmp_path / "set" / "dataset.json").stat().st_mtime_ns == before


def test_a_set_that_lost_pictures_is_not_taken_for_whole(run, maps, tmp_path):
    assert run("maps", "--out", tmp_path / "set")[0] == 0
    (tmp_path / "set" / "train" / "1.jpg").unlink()
    code, _, err = run("maps", "--out", tmp_path / "set")
    assert code == 2
    assert "holds 2 of its 3 images. Remove" in err


@pytest.mark.parametrize("there", ["other.txt", "dataset.json"])
def test_a_folder_with_something_else_is_left_alone(run, maps, tmp_path, there):
    (tmp_path / there).write_text('{"name": "facades", "images": {}}')
    code, _, err = run("maps", "--out", tmp_path)
    assert code == 2
    assert "is not empty and does not hold maps" in err
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert not maps.requests


def test_an_empty_folder_is_filled_and_a_file_is_refused(run, maps, tmp_path):
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
    assert "--mirror is 'ftp://host/'; expected an address" in err


def test_an_archive_at_hand_needs_no_server(run, maps, tmp_path):
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


def test_an_archive_of_another_set_is_told_by_its_counts(run, maps, tmp_path):
    archive = tmp_path / "wrong.zip"
    members = {name: content for name, content in members_of("paired").items() if name != "set/val/1.jpg"}
    archive.write_bytes(archive_of("unpaired", members))  # the kind of archive does not matter
    code, _, err = run("maps", "--out", tmp_path / "set", "--archive", archive)
    assert code == 2
    assert f"{archive}: is not maps; it holds 1 instead of 2 images for val." in err
    archive.write_bytes(archive_of("unpaired"))
    assert (
        "0 instead of 3 images for train, 0 instead of 2 images for val"
        in run("maps", "--out", tmp_path / "set", "--archive", archive)[2]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.zip"]


def test_a_bad_archive_from_a_server_is_thrown_away(serve, tmp_path):
    members = members_of("paired")
    members["../../evil.jpg"] = b"evil"
    content = archive_of("paired", members)
    server = serve(content)
    wanted = dataclasses.replace(set_of("paired", content, server.address()), digest=None)
    with pytest.raises(UserError, match=r"leads out of its folder.* It was removed; run this again"):
        published.fetch(wanted, tmp_path / "a" / "set", allow_http=True)
    assert not list(tmp_path.rglob("*.jpg"))
    server.offer(archive_of("paired"))
    published.fetch(dataclasses.replace(wanted, size=len(server.content)), tmp_path / "a" / "set", allow_http=True)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["set"]


def test_without_a_digest_the_counts_and_the_rounded_size_do(serve, tmp_path):
    content = archive_of("paired")
    server = serve(content)
    wanted = dataclasses.replace(
        set_of("paired", content, server.address()), digest=None, size=len(content) + 99, rounded=True
    )
    published.fetch(wanted, tmp_path / "set", allow_http=True)
    description = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert description["archive"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("has_digest", [True, False])
def test_that_nothing_vouches_for_an_archive_is_said(run, maps, tmp_path, monkeypatch, has_digest):
    if not has_digest:
        monkeypatch.setitem(sets.SETS, "maps", dataclasses.replace(sets.SETS["maps"], digest=None))
        code, _, err = run("maps", "--out", tmp_path / "set")
        assert code == 2
        assert "--allow-http also tries unencrypted addresses" in err
        assert not maps.requests
    code, _, err = run("maps", "--out", tmp_path / "set", *([] if has_digest else ["--allow-http"]))
    assert code == 0, err
    assert (f"{maps.address()}: came unencrypted" in err) != has_digest
    assert (f"sha256:{hashlib.sha256(maps.content).hexdigest()}" in err) != has_digest


def test_a_mirror_without_encryption_is_the_users_choice_and_the_warning_names_where_it_led(
    run, maps, serve, answer, tmp_path, monkeypatch
):
    monkeypatch.setitem(sets.SETS, "maps", dataclasses.replace(sets.SETS["maps"], digest=None))
    moved = serve()
    moved.answers = [answer(302, {"Location": maps.address("elsewhere")})]
    code, _, err = run("maps", "--out", tmp_path / "set", "--mirror", moved.address())
    assert code == 0, err
    assert f"{maps.address('elsewhere')}: came unencrypted" in err


def test_stray_pictures_of_a_set_without_folders_are_kept(serve, tmp_path):
    content = archive_of(
        "unpaired", {"photos/1.jpg": picture(1), "photos/testB/2.jpg": picture(2), "3.JPG": picture(3)}
    )
    server = serve(content)
    wanted = dataclasses.replace(
        set_of("unpaired", content, server.address()), name="ae_photos", pictures={}, stray="testA"
    )
    assert published.fetch(wanted, tmp_path / "set") == {"testA": 2, "testB": 1}


def test_a_full_disk_is_told_before_the_download(run, maps, tmp_path, monkeypatch):
    monkeypatch.setitem(sets.SETS, "maps", dataclasses.replace(sets.SETS["maps"], size=10**15))
    code, _, err = run("maps", "--out", tmp_path / "set")
    assert code == 2
    assert "2000000.0 GB are needed for an archive and its images" in err
    assert not maps.requests


def test_leftovers_of_a_killed_run_are_used_or_cleaned(offered, tmp_path):
    wanted, server = offered
    leftover = tmp_path / f".set.new-{HOST}-killed"
    (leftover / "new" / "train").mkdir(parents=True)
    (leftover / "owner.lock").touch()
    leftover.chmod(0o700)
    os.utime(leftover, (0, 0))
    (tmp_path / ".set.download").mkdir()
    (tmp_path / ".set.download" / wanted.archive_name).write_bytes(server.content)
    published.fetch(wanted, tmp_path / "set")
    assert not server.requests
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


FETCH = """
import pathlib, sys
from data_scripts.sets.published import fetch
from data_scripts.sets.catalog import PublishedSet
address, size, out = sys.argv[1:]
wanted = PublishedSet("maps", "paired", ("a", "b"), (address,), int(size), "", {"train": 3, "val": 2})
fetch(wanted, pathlib.Path(out), allow_http=True)
"""


@pytest.mark.slow
def test_two_processes_at_once_take_turns(serve, answer, tmp_path):
    content = archive_of("paired")
    server = serve(content)
    server.answers = [answer(stall_after=len(content) // 2)]  # holds the first one long enough
    command = [sys.executable, "-c", FETCH, server.address(), str(len(content)), str(tmp_path / "set")]
    root = Path(__file__).parents[3]
    both = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for _ in range(2000):
        if server.requests:
            break
        server.closing.wait(0.01)
    server.closing.wait(1)  # by now the other one waits
    server.closing.set()
    messages = [process.communicate(timeout=30)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(messages)
    assert sum("another process is at work there" in message for message in messages) == 1
    assert len(server.requests) == 2  # one that broke off, and its continuation
    assert len(content_of(tmp_path / "set")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_real_pictures_arrive_as_they_are(run, published_data, tmp_path):
    source = published_data / "horse2zebra"
    with zipfile.ZipFile(tmp_path / "horse2zebra.zip", "w") as packed:
        for path in source.rglob("*.jpg"):
            packed.write(path, f"horse2zebra/{path.relative_to(source).as_posix()}")
    code, out, err = run("horse2zebra", "--out", tmp_path / "set", "--archive", tmp_path / "horse2zebra.zip")
    assert code == 0, err
    assert "1067 trainA, 1334 trainB, 120 testA, 140 testB images" in out
    assert content_of(tmp_path / "set") == content_of(source)


def test_the_table_holds_together():
    names = [each.name for each in PUBLISHED]
    assert len(set(names)) == len(names) == 15
    for each in PUBLISHED:
        assert each.addresses[0] == each.addresses[1].replace("http:", "https:", 1)
        assert all(address.endswith(each.archive_name) for address in each.addresses)
        assert set(each.pictures) <= set(FOLDERS[each.layout])
        assert each.digest is None or len(each.digest) == {"sha256": 71, "sha1": 45}[each.digest.partition(":")[0]]
        assert each.licence.isascii(), "consoles may know no other letters"


def test_counts_agree_with_the_sets_at_hand(published_data):
    places = {
        published_data / each.name / folder: count for each in PUBLISHED for folder, count in each.pictures.items()
    }
    at_hand = {place: len(list(place.iterdir())) for place in places if place.is_dir()}
    at_hand.pop(published_data / "maps" / "val", None)  # a part of it
    assert at_hand
    assert at_hand == {place: places[place] for place in at_hand}


def test_the_list_names_every_set_with_size_and_licence(run):
    code, out, _ = run("list", "--json")
    assert code == 0
    listed = {each["name"]: each for each in json.loads(out)["sets"]}
    assert set(listed) == {*sets.SETS, "earth", "mnist", "fashion-mnist"}
    assert all(each["size"] > 1_000_000 and each["licence"] for each in listed.values())
    assert listed["maps"]["pictures"] == {"train": 1096, "val": 1098}
    lines = run("list")[1].splitlines()
    for name, each in listed.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert re.search(f" {each['size'] / 1e6:.0f} MB | {each['size'] / 1e9:.1f} GB ", line)
        assert line.endswith(each["licence"])


def test_help_names_every_set(run):
    _, out, _ = run("--help")
    assert all(f"  {name} " in out for name in (*sets.SETS, "list", "earth", "check"))
