"""Transfers from a real server that cuts, stalls, forgets, changes its mind and lies."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_scripts.sets.download import LONGEST_WAIT, Patience, digest_of, download
from ganvas.errors import UserError

CONTENT = bytes(range(256)) * 4000  # 1 MB: more than a server sends before anyone reads
OTHER = CONTENT[::-1] + b"longer"
QUICK = Patience(stall=0.3, attempts=3, first_wait=0.001)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "set.bin"


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def only_file(target):
    return [path.name for path in target.parent.iterdir()] == [target.name]


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def test_a_file_arrives_with_its_progress_told(serve, target):
    server, told = serve(CONTENT), []
    address = server.address()
    came_from = download(
        [address], target, size=len(CONTENT), digest=sha256(CONTENT), arrived=lambda *now: told.append(now)
    )
    assert came_from == address
    assert target.read_bytes() == CONTENT
    assert only_file(target)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_cut_transfer_is_continued_where_it_was_cut(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), answer(cut_after=200_000)]
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=300000-", "bytes=500000-"]
    assert [headers.get("If-Range") for _, headers in server.requests][1:] == [server.validators["ETag"]] * 2


def test_an_earlier_run_is_continued(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), *[answer(503)] * 3]
    with pytest.raises(UserError, match="503"):
        download([server.address()], target, patience=QUICK)
    assert not target.exists()
    server.requests.clear()
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=300000-"]


def test_a_server_that_ignores_ranges_starts_from_the_first_byte(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), answer(serves_ranges=False)]
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changed_in_between_is_not_mixed_with_the_old_one(serve, answer, target, heeds_if_range):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), answer(offers=OTHER, heeds_if_range=heeds_if_range)]
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == OTHER


def test_without_etag_or_date_the_size_tells_that_the_file_changed(serve, answer, target):
    server = serve(CONTENT)
    server.validators = {}
    server.answers = [answer(cut_after=300_000)]

    def change(message):
        server.content = OTHER

    download([server.address()], target, patience=QUICK, say=change)
    assert target.read_bytes() == OTHER


def test_a_weak_etag_does_not_vouch_for_bytes(serve, answer, target):
    server = serve(CONTENT)
    server.validators = {"ETag": 'W/"1"', "Last-Modified": "Sat, 01 Apr 2017 00:00:00 GMT"}
    server.answers = [answer(cut_after=300_000)]
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.requests[1][1]["If-Range"] == server.validators["Last-Modified"]


def test_a_range_at_the_wrong_place_is_not_appended(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), answer(skips=7)]
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_silent_server_is_given_up_in_time(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(stall_after=300_000), answer(stall_after=0)]
    began, said = time.monotonic(), []
    download([server.address()], target, patience=QUICK, say=said.append)
    assert 2 * QUICK.stall <= time.monotonic() - began < 5
    assert target.read_bytes() == CONTENT
    assert all("sends nothing for 0.3 s" in message for message in said)
    assert len(said) == 2


def test_a_busy_server_is_asked_again_later_and_later(serve, answer, target, monkeypatch):
    server, waits = serve(CONTENT), []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.answers = [answer(503), answer(429), answer(500), answer(503, {"Retry-After": "20"})]
    download([server.address()], target, patience=Patience(attempts=5, first_wait=1))
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 5
    for wait, longest in zip(waits[:3], (1, 2, 4), strict=True):
        assert longest / 2 <= wait <= longest
    assert waits[3] == 20


def test_waits_are_bounded(serve, answer, target, monkeypatch):
    server, waits = serve(CONTENT), []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.answers = [answer(503, {"Retry-After": "86400"})] * 2 + [answer(503)] * 10
    with pytest.raises(UserError, match="8 attempts in a row"):
        download([server.address()], target, patience=Patience(attempts=8, first_wait=10))
    assert len(server.requests) == 8
    assert max(waits) == LONGEST_WAIT


def test_mirrors_are_tried_in_order(serve, answer, target):
    gone, moved, good = serve(), serve(), serve(CONTENT)
    gone.answers = [answer(404)]
    moved.answers = [answer(302, {"Location": good.address("elsewhere")})]
    said = []
    origin = download([gone.address(), moved.address(), good.address()], target, say=said.append)
    assert origin == good.address("elsewhere")  # where the redirect led
    assert target.read_bytes() == CONTENT
    assert [len(server.requests) for server in (gone, moved, good)] == [1, 1, 1]
    assert said == [f"{gone.address()}: answers 404 Not Found"]


def test_a_mirror_of_the_same_file_starts_anew(serve, answer, target):
    """Its ETag is another one: nothing says that both have the same bytes."""
    first, second = serve(CONTENT), serve(CONTENT)
    second.validators = {"ETag": '"another"'}
    first.answers = [answer(cut_after=300_000), *[answer(503)] * 3]
    download([first.address(), second.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_all_reasons_are_told_when_no_address_works(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(404), answer(403), answer(500), answer(500), answer(500)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/set.bin"  # bound and not listening
        with pytest.raises(UserError) as error:
            download([*[server.address()] * 3, nobody], target, patience=QUICK)
    lines = str(error.value).splitlines()
    assert lines[0] == "set.bin cannot be downloaded:"
    for line, reason in zip(lines[1:], ("404 Not Found", "403", "500", "cannot be reached"), strict=True):
        assert reason in line
    assert not any(target.parent.iterdir())


@pytest.mark.parametrize("address", ["http://127.0.0.1:port/", "http://127.0.0.1/ä", "http://127.0.0.1/ /"])
def test_what_is_no_address_is_not_tried_again(target, address):
    with pytest.raises(UserError, match=r"is no address \("):
        download([address], target, patience=Patience(attempts=2, first_wait=60))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate by openssl")
def test_a_certificate_that_nobody_vouches_for_is_not_accepted(serve, target, tmp_path_factory):
    place, server = tmp_path_factory.mktemp("certificate"), serve(CONTENT)
    key, certificate = place / "key.pem", place / "certificate.pem"
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True)
    server.encrypt(certificate, key)
    with pytest.raises(UserError, match=r"shows a certificate that is not valid \(self.signed certificate\)"):
        download([server.address().replace("http:", "https:")], target, patience=Patience(attempts=2, first_wait=60))
    assert not server.requests


@pytest.fixture
def encrypted(serve, tmp_path_factory, monkeypatch):
    """A server with a certificate that this process trusts; its address begins with https."""
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate by openssl")
    place, server = tmp_path_factory.mktemp("certificate"), serve(CONTENT)
    key, certificate = place / "key.pem", place / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server.encrypt(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    address = server.address
    server.address = lambda *name: address(*name).replace("http:", "https:")
    return server


def test_https_is_not_left_by_a_redirect(serve, answer, target, encrypted):
    plain = serve(OTHER)
    moved = answer(302, {"Location": plain.address("elsewhere")})
    encrypted.answers = [moved]
    with pytest.raises(UserError, match=r"redirects to http://\S*elsewhere, which is not encrypted; --allow-http"):
        download([encrypted.address()], target, patience=QUICK)
    assert not plain.requests
    encrypted.answers = [moved]
    assert download([encrypted.address()], target, patience=QUICK, allow_http=True) == plain.address("elsewhere")
    assert target.read_bytes() == OTHER
    target.unlink()
    encrypted.answers = [moved]
    download([encrypted.address()], target, patience=QUICK, digest=sha256(OTHER))  # the digest vouches for it
    assert target.read_bytes() == OTHER
    target.unlink()
    encrypted.answers = [answer(302, {"Location": encrypted.address("elsewhere")})]
    assert download([encrypted.address()], target, patience=QUICK) == encrypted.address("elsewhere")


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher"])
def test_a_redirect_out_of_the_web_is_not_followed(serve, answer, target, scheme):
    server = serve(CONTENT)
    server.answers = [answer(302, {"Location": f"{scheme}://127.0.0.1/etc/passwd"})] * QUICK.attempts
    with pytest.raises(UserError):
        download([server.address()], target, patience=QUICK, allow_http=True)
    assert not target.exists()


@pytest.mark.parametrize("asked", [False, True])
def test_a_part_that_came_unencrypted_is_not_continued_over_https_unless_asked(serve, answer, target, encrypted, asked):
    plain = serve(CONTENT)
    encrypted.validators = plain.validators
    plain.answers = [answer(cut_after=300_000), *[answer(503)] * 3]
    with pytest.raises(UserError):
        download([plain.address()], target, patience=QUICK)
    origin = download([encrypted.address()], target, patience=QUICK, allow_http=asked)
    assert target.read_bytes() == CONTENT
    assert origin == (plain.address() if asked else encrypted.address())
    assert ranges(encrypted) == ["bytes=300000-" if asked else None]


@pytest.mark.parametrize("digits", [19, 5000])
def test_numbers_that_no_file_has_are_no_numbers(serve, answer, target, digits):
    server, number = serve(CONTENT), "9" * digits
    server.answers = [answer(503, {"Retry-After": number}), answer(headers={"Content-Length": number}, cut_after=1000)]
    with pytest.raises(UserError, match="sent 1,000 bytes; expected 1,024,000"):
        download([server.address()], target, size=len(CONTENT), patience=QUICK)
    server.answers = [answer(headers={"Content-Length": number})]
    download([server.address()], target, size=len(CONTENT), patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_server_that_sends_without_end_is_stopped(serve, answer, target):
    server = serve(CONTENT * 2)
    server.answers = [answer(tells_length=False)]
    with pytest.raises(UserError, match="sends more than the expected 1,024,000 bytes"):
        download([server.address()], target, size=len(CONTENT), patience=QUICK)


@pytest.mark.parametrize("good", ["sha256", "sha1"])
def test_a_wrong_digest_is_refused_and_the_next_address_tried(serve, target, good):
    lying, honest = serve(CONTENT[:-1] + b"?"), serve(CONTENT)
    digest = f"{good}:{hashlib.new(good, CONTENT).hexdigest()}"
    download([lying.address(), honest.address()], target, size=len(CONTENT), digest=digest)
    assert target.read_bytes() == CONTENT
    assert digest_of(target, good) == digest


def test_a_file_with_the_wrong_digest_is_not_left_behind(serve, target):
    server = serve(CONTENT)
    with pytest.raises(UserError, match=f"digest {sha256(CONTENT)}; expected {sha256(OTHER)}"):
        download([server.address()], target, digest=sha256(OTHER))
    assert not any(target.parent.iterdir())


def test_a_file_of_the_wrong_size_is_refused_before_it_is_sent(serve, target):
    server, told = serve(CONTENT), []
    with pytest.raises(UserError, match="offers a file of 1,024,000 bytes; expected 1,024,001"):
        download([server.address()], target, size=len(CONTENT) + 1, arrived=lambda *now: told.append(now))
    assert not told


def test_a_cut_that_the_server_hides_is_seen_by_the_size(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(tells_length=False, cut_after=300_000)]
    with pytest.raises(UserError, match="sent 300,000 bytes; expected 1,024,000"):
        download([server.address()], target, size=len(CONTENT), patience=QUICK)
    assert not any(target.parent.iterdir())


def part_of(target):
    return target.with_name("set.bin.part"), target.with_name("set.bin.part.json")


@pytest.mark.parametrize("told", [None, "", "[]", '{"validator": "1", "tot', '{"unknown": 1}', '{"validator": 5}'])
def test_a_part_of_which_nothing_is_known_is_not_continued(serve, target, told):
    server = serve(CONTENT)
    part, memo = part_of(target)
    part.write_bytes(b"something else")
    if told is not None:
        memo.write_text(told)
    download([server.address()], target)
    assert target.read_bytes() == CONTENT
    assert only_file(target)


def test_a_part_that_is_longer_than_the_file_is_not_continued(serve, target):
    server = serve(CONTENT)
    part, memo = part_of(target)
    part.write_bytes(CONTENT + b"more")
    memo.write_text(json.dumps({"validator": server.validators["ETag"], "total": len(CONTENT)}))
    download([server.address()], target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_whole_part_needs_no_server(target):
    part, memo = part_of(target)
    part.write_bytes(CONTENT)
    memo.write_text(json.dumps({"validator": "", "total": len(CONTENT)}))
    download(["http://127.0.0.1:9/"], target, digest=sha256(CONTENT))
    assert target.read_bytes() == CONTENT
    assert only_file(target)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_full_disk_is_told_and_is_nobody_elses_fault(serve, target):
    first, second = serve(CONTENT), serve(CONTENT)
    part, _ = part_of(target)
    part.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"set\.bin\.part: cannot be written \(No space left on device\)"):
        download([first.address(), second.address()], target, patience=QUICK)
    assert len(first.requests) == 1
    assert not second.requests


troubles = st.sampled_from(["cut", "no ranges", "busy", "wrong place", "changed", "no length"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(troubles, st.integers(0, 3000)), max_size=6))
def test_whatever_happens_on_the_way_the_bytes_are_right(serve, answer, tmp_path, on_the_way):
    content = CONTENT[:3000]
    server = serve.shared = getattr(serve, "shared", None) or serve()
    server.offer(content)
    makes = {
        "cut": lambda place: answer(cut_after=place),
        "no ranges": lambda place: answer(serves_ranges=False, cut_after=place),
        "busy": lambda place: answer(503),
        "wrong place": lambda place: answer(skips=place % 5, cut_after=place),
        "changed": lambda place: answer(heeds_if_range=place % 2 == 0, offers=content[place % 7 :], cut_after=place),
        "no length": lambda place: answer(tells_length=False),
    }
    server.answers = [makes[trouble](place) for trouble, place in on_the_way]
    target = tmp_path / "set.bin"
    download([server.address()], target, patience=Patience(stall=5, attempts=20, first_wait=0))
    assert target.read_bytes() == server.content
    assert only_file(target)
    target.unlink()
