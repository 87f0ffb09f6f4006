"""Malicious archives, and damaged ones."""

import errno
import gzip
import io
import struct
import tarfile
import warnings
import zipfile
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_scripts.sets.unpack import MAX_FILES, SMALL, BadArchive, unpack
from ganvas.errors import WriteError

FILES = {"set/train/1.jpg": b"one", "set/train/2.jpg": b"two" * 1000, "set/val/1.jpg": b"", "set/val/ö.jpg": b"three"}


@pytest.fixture
def folder(tmp_path):
    """A folder to unpack into, with room around it that must stay empty."""
    (tmp_path / "around" / "folder").mkdir(parents=True)
    return tmp_path / "around" / "folder"


def unchanged(path):
    return path


def tar_gz(path, members):
    """Write members given as (name, content) or as TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def zipped(path, members):
    """Write members given as (name or ZipInfo, content)."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
        for name, content in members:
            file.writestr(name, content)
    return path


WRITERS = {"tar": tar_gz, "zip": zipped}
both_kinds = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_refused(archive, folder, match, **options):
    with pytest.raises(BadArchive, match=match) as error:
        unpack(archive, folder, unchanged, **options)
    assert str(error.value).startswith(f"{archive}: ")
    assert len(str(error.value)) < 1000
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "something was written outside"


@both_kinds
def test_files_are_unpacked_unchanged(tmp_path, folder, write):
    counts = unpack(write(tmp_path / "a", FILES.items()), folder, unchanged)
    assert content_of(folder) == FILES
    assert counts == {"set/train": 2, "set/val": 2}


@both_kinds
def test_members_are_placed_or_skipped(tmp_path, folder, write):
    def place(path):
        return PurePosixPath("b", path.name) if path.parent.name == "val" else None

    assert unpack(write(tmp_path / "a", FILES.items()), folder, place) == {"b": 2}
    assert content_of(folder) == {"b/1.jpg": b"", "b/ö.jpg": b"three"}


def test_folders_and_leading_dots_are_common_and_harmless(tmp_path, folder):
    directory = tarfile.TarInfo("./set")
    directory.type = tarfile.DIRTYPE
    unpack(tar_gz(tmp_path / "a", [directory, ("./set/1.jpg", b"one")]), folder, unchanged)
    assert content_of(folder) == {"set/1.jpg": b"one"}


@both_kinds
@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "set/../../x.jpg", "/tmp/x.jpg", "C:/x.jpg", "c:x.jpg", "..\\x.jpg", "set\\x.jpg", "\\\\host\\x.jpg"],
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, folder, write, name):
    archive = write(tmp_path / "a", [("set/1.jpg", b"one"), (name, b"bad")])
    is_refused(archive, folder, "a path that leads out of its folder")


def test_names_of_skipped_members_are_checked_too(tmp_path, folder):
    with pytest.raises(BadArchive, match="leads out"):
        unpack(tar_gz(tmp_path / "a", [("../x.txt", b"bad")]), folder, lambda path: None)
    directory = tarfile.TarInfo("../../x")
    directory.type = tarfile.DIRTYPE
    is_refused(tar_gz(tmp_path / "b", [directory]), folder, "leads out")
    is_refused(zipped(tmp_path / "c", [("../x/", b"")]), folder, "leads out")


@both_kinds
@pytest.mark.parametrize("name", ["set/nul", "set/CON.jpg", "com1.png", "new\nline.jpg", "bell\a.jpg"])
def test_a_name_that_some_systems_cannot_hold_is_refused(tmp_path, folder, write, name):
    is_refused(write(tmp_path / "a", [(name, b"bad")]), folder, "a name that not every system allows")


@both_kinds
@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "set/" + "ö" * 130, "x" * 3000 + "/1.jpg", "y/" * 2500 + "1.jpg"])
def test_a_name_that_is_too_long_is_one_message(tmp_path, folder, write, name):
    is_refused(write(tmp_path / "a", [("set/1.jpg", b"one"), (name, b"two")]), folder, "more than 255 bytes|too long")


@both_kinds
@pytest.mark.parametrize("names", [("set/1.jpg", "set/1.jpg/2.jpg"), ("set/1.jpg/2.jpg", "set/1.jpg")])
def test_a_file_that_is_a_folder_too_is_refused(tmp_path, folder, write, names):
    is_refused(write(tmp_path / "a", [(name, b"one") for name in names]), folder, "one path as a file and as a folder")


def test_a_full_disk_does_not_blame_the_archive(tmp_path, folder, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data_scripts.sets.unpack.Path.mkdir", fails)
    with pytest.raises(WriteError, match=r"1\.jpg: cannot be written \(No space left"):
        unpack(tar_gz(tmp_path / "a", FILES.items()), folder, unchanged)


def test_a_file_without_a_name_is_refused(tmp_path, folder):
    is_refused(tar_gz(tmp_path / "a", [("./", b"")]), folder, "a file without a name")


@both_kinds
def test_characters_that_windows_forbids_are_replaced(tmp_path, folder, write):
    names = ["2011-06-19 19:38:13.jpg", "what?.jpg", "nullable.jpg", "commons.jpg"]
    unpack(write(tmp_path / "a", [(name, b"") for name in names]), folder, unchanged)
    assert set(content_of(folder)) == {"2011-06-19 19_38_13.jpg", "what_.jpg", "nullable.jpg", "commons.jpg"}


@both_kinds
@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "A.JPG"),
        ("ö.jpg", "o\u0308.jpg"),
        ("at 19:38.jpg", "at 19_38.jpg"),
        ("x/a", "X/a"),
    ],
)
def test_two_files_of_one_name_are_refused(tmp_path, folder, write, names):
    is_refused(write(tmp_path / "a", [(name, b"") for name in names]), folder, "two files that would both be")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"]
)
def test_a_tar_with_anything_but_files_and_folders_is_refused(tmp_path, folder, kind):
    member = tarfile.TarInfo("set/x.jpg")
    member.type, member.linkname = kind, "/etc/passwd"
    is_refused(tar_gz(tmp_path / "a", [("set/1.jpg", b"one"), member]), folder, "a link or a device, 'set/x.jpg'")


def long_name(content, size=None):
    """Build a header that gives the next one a long name."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content.ljust(512, b"\0")


HOSTILE = {
    "an endless chain of long names": long_name(b"x\0") * 3000 + tarfile.TarInfo("x.jpg").tobuf(),
    "a name of 30 MB": long_name(b"", 30_000_000) + bytes(30_000_000) + tarfile.TarInfo("x.jpg").tobuf(),
    "a number of 5000 digits": tarfile.TarInfo("x.jpg").create_pax_global_header({"GNU.sparse.size": "9" * 5000})
    + tarfile.TarInfo("x.jpg").tobuf(),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused(tmp_path, folder, content):
    (tmp_path / "a").write_bytes(gzip.compress(content + bytes(1024)))
    is_refused(tmp_path / "a", folder, "is damaged or cut short")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666])
def test_a_zip_with_a_link_or_device_is_refused(tmp_path, folder, mode):
    member = zipfile.ZipInfo("set/x.jpg")
    member.create_system, member.external_attr = 3, mode << 16
    is_refused(zipped(tmp_path / "a", [(member, b"/etc/passwd")]), folder, "a link or a device")


def test_an_encrypted_or_oddly_packed_zip_is_refused(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.jpg", b"one")
    is_refused(tmp_path / "a", folder, "encrypted or uses an uncommon compression at 'x.jpg'")
    content = bytearray(zipped(tmp_path / "b", [("x.jpg", b"one")]).read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    (tmp_path / "b").write_bytes(content)
    is_refused(tmp_path / "b", folder, "encrypted or uses an uncommon compression at 'x.jpg'")


def test_a_zip_of_a_later_version_is_refused(tmp_path, folder):
    """PKZIP APPNOTE, 4.4.3: the version that is needed to extract, here 25.5, in the central directory."""
    content = bytearray(zipped(tmp_path / "a", [("x.jpg", b"one")]).read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    (tmp_path / "a").write_bytes(content)
    is_refused(tmp_path / "a", folder, r"is damaged or cut short \(zip file version 25\.5\)")


def test_names_that_contradict_each_other_are_a_short_message(tmp_path, folder):
    """A local header whose name is longer than its file, as the directory has it (4.3.7: its length is at 26)."""
    content = bytearray(zipped(tmp_path / "a", [("x.jpg", bytes(5000))] * 50).read_bytes())
    content[26:28] = struct.pack("<H", 2000)
    (tmp_path / "a").write_bytes(content)
    is_refused(tmp_path / "a", folder, "is damaged or cut short .File name in directory")


@both_kinds
@pytest.mark.slow
def test_a_bomb_stops_at_the_limit(tmp_path, folder, write):
    """100 MB of zeros in 100 kB."""
    archive = write(tmp_path / "a", [("x.jpg", bytes(100_000_000))])
    assert archive.stat().st_size < 200_000
    is_refused(archive, folder, "unpacks to far more than an archive of images does")
    assert sum(map(len, content_of(folder).values())) <= SMALL < 100_000_000


@both_kinds
def test_many_small_bombs_share_one_limit(tmp_path, folder, write):
    archive = write(tmp_path / "a", [(f"{number}.jpg", bytes(1_000_000)) for number in range(20)])
    is_refused(archive, folder, "far more", max_size=10_000_000)
    assert sum(map(len, content_of(folder).values())) <= 10_000_000


def test_a_bomb_in_tar_headers_is_refused(tmp_path, folder):
    archive = tar_gz(tmp_path / "a", [("x" * 20_000_000, b"")])  # a long name is kept in a header of its own
    is_refused(archive, folder, "a header has the size 20000015", max_size=10_000_000)


def test_a_zip_with_false_sizes_does_not_exceed_the_limit(tmp_path, folder):
    archive = zipped(tmp_path / "a", [("x.jpg", bytes(50_000_000))])
    content = bytearray(archive.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 3)
    archive.write_bytes(content)
    with pytest.raises(BadArchive):
        unpack(archive, folder, unchanged, max_size=10_000_000)
    assert sum(map(len, content_of(folder).values())) <= 10_000_000


@both_kinds
def test_skipped_files_count_too(tmp_path, folder, write):
    archive = write(tmp_path / "a", [(f"{number}.txt", b"") for number in range(11)])
    assert unpack(archive, folder, lambda path: None, max_files=11) == {}
    with pytest.raises(BadArchive, match="far more"):
        unpack(archive, folder, lambda path: None, max_files=10)
    assert MAX_FILES > 138_567  # edges2handbags trains on so many


@pytest.mark.parametrize(
    "content", [b"", b"<html>moved</html>", b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06", b"\x00" * 99]
)
def test_another_file_is_refused(tmp_path, folder, content):
    (tmp_path / "a").write_bytes(content)
    is_refused(tmp_path / "a", folder, "neither a tar.gz nor a zip archive|damaged or cut short")


def test_the_checksum_of_a_tar_gz_is_verified(tmp_path, folder):
    packed = gzip.decompress(tar_gz(tmp_path / "a", FILES.items()).read_bytes())
    content = bytearray(gzip.compress(packed + bytes(3_000_000)))  # more padding than is read ahead
    content[-8] ^= 1  # RFC 1952: the CRC, then the size, at the end
    (tmp_path / "a").write_bytes(content)
    is_refused(tmp_path / "a", folder, "is damaged or cut short")


@both_kinds
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_cut_archive_is_refused(tmp_path_factory, write, share):
    place = tmp_path_factory.mktemp("cut")
    archive = write(place / "a", FILES.items())
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadArchive):
        unpack(archive, place, unchanged)


@both_kinds
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), value=st.integers(0, 255))
def test_damaged_archives_never_unpack_wrong_files(tmp_path_factory, write, share, value):
    place = tmp_path_factory.mktemp("damaged")
    archive = write(place / "a", FILES.items())
    content = bytearray(archive.read_bytes())
    content[int(len(content) * share)] = value
    archive.write_bytes(content)
    (place / "folder").mkdir()
    try:
        unpack(archive, place / "folder", unchanged)
    except BadArchive as error:
        assert str(archive) in str(error)
    else:
        found = list(content_of(place / "folder").values())
        assert set(found) <= set(FILES.values())
        assert write is zipped or sorted(found) == sorted(FILES.values())
