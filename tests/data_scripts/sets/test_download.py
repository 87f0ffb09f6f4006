"""Downloads from a local server that cuts, stalls, changes its file, and lies."""

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

from data_scripts.sets.download import MAX_WAIT, RetryPolicy, digest_of, download
from ganvas.errors import UserError

CONTENT = bytes(range(256)) * 4000  # 1 MB: more than a server sends before anyone reads
OTHER = CONTENT[::-1] + b"longer"
QUICK = RetryPolicy(timeout=0.3, attempts=3, first_wait=0.001)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "set.bin"


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level("INFO", logger="ganvas")
    return caplog


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def ranges(server):
    return [headers.get("Range") for _, headers in server.requests]


def part_of(target):
    return target.with_name("set.bin.part"), target.with_name("set.bin.part.json")


def test_a_download_leaves_only_the_file(serve, target):
    server = serve(CONTENT)
    assert download([server.address()], target, size=len(CONTENT), digest=sha256(CONTENT)) == server.address()
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_cut_transfer_resumes(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), answer(cut_after=200_000)]
    download([server.address()], target, retry=QUICK)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=300000-", "bytes=500000-"]
    assert [headers.get("If-Range") for _, headers in server.requests][1:] == [server.validators["ETag"]] * 2


def test_an_earlier_run_resumes(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), *[answer(503)] * 3]
    with pytest.raises(UserError, match="503"):
        download([server.address()], target, retry=QUICK)
    assert not target.exists()
    server.requests.clear()
    download([server.address()], target, retry=QUICK)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=300000-"]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"serves_ranges": False}, CONTENT),
        ({"offers": OTHER}, OTHER),
        ({"offers": OTHER, "heeds_if_range": False}, OTHER),
        ({"skips": 7}, CONTENT),
    ],
    ids=["no ranges", "changed", "changed and ignores If-Range", "wrong offset"],
)
def test_parts_of_different_files_are_never_joined(serve, answer, target, second, expected):
    server = serve(CONTENT)
    server.answers = [answer(cut_after=300_000), answer(**second)]
    download([server.address()], target, retry=QUICK)
    assert target.read_bytes() == expected


def test_without_etag_or_date_the_size_shows_that_the_file_changed(serve, answer, target, monkeypatch):
    server = serve(CONTENT)
    server.validators = {}
    server.answers = [answer(cut_after=300_000)]
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(server, "content", OTHER))
    download([server.address()], target, retry=QUICK)
    assert target.read_bytes() == OTHER


def test_a_weak_etag_does_not_identify_bytes(serve, answer, target):
    server = serve(CONTENT)
    server.validators = {"ETag": 'W/"1"', "Last-Modified": "Sat, 01 Apr 2017 00:00:00 GMT"}
    server.answers = [answer(cut_after=300_000)]
    download([server.address()], target, retry=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.requests[1][1]["If-Range"] == server.validators["Last-Modified"]


def test_a_silent_server_times_out(serve, answer, target, log):
    server = serve(CONTENT)
    server.answers = [answer(stall_after=300_000), answer(stall_after=0)]
    began = time.monotonic()
    download([server.address()], target, retry=QUICK)
    assert 2 * QUICK.timeout <= time.monotonic() - began < 5
    assert target.read_bytes() == CONTENT
    assert log.text.count("no data for 0.3 s") == 2


def test_waits_grow_and_honor_retry_after(serve, answer, target, monkeypatch):
    server, waits = serve(CONTENT), []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.answers = [answer(503), answer(429), answer(500), answer(503, {"Retry-After": "20"})]
    download([server.address()], target, retry=RetryPolicy(attempts=5, first_wait=1))
    assert target.read_bytes() == CONTENT
    for wait, longest in zip(waits[:3], (1, 2, 4), strict=True):
        assert longest / 2 <= wait <= longest
    assert waits[3] == 20


def test_waits_and_attempts_are_bounded(serve, answer, target, monkeypatch):
    server, waits = serve(CONTENT), []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.answers = [answer(503, {"Retry-After": "86400"})] * 2 + [answer(503)] * 10
    with pytest.raises(UserError, match="8 attempts in a row"):
        download([server.address()], target, retry=RetryPolicy(attempts=8, first_wait=10))
    assert len(server.requests) == 8
    assert max(waits) == MAX_WAIT


def test_mirrors_are_tried_in_order(serve, answer, target, log):
    gone, moved, good = serve(), serve(), serve(CONTENT)
    gone.answers = [answer(404)]
    moved.answers = [answer(302, {"Location": good.address("elsewhere")})]
    origin = download([gone.address(), moved.address(), good.address()], target)
    assert origin == good.address("elsewhere")  # after the redirect
    assert target.read_bytes() == CONTENT
    assert [len(server.requests) for server in (gone, moved, good)] == [1, 1, 1]
    assert log.messages == [f"{gone.address()}: answers 404 Not Found"]


def test_a_mirror_with_another_etag_starts_over(serve, answer, target):
    first, second = serve(CONTENT), serve(CONTENT)
    second.validators = {"ETag": '"another"'}
    first.answers = [answer(cut_after=300_000), *[answer(503)] * 3]
    download([first.address(), second.address()], target, retry=QUICK)
    assert target.read_bytes() == CONTENT


def test_the_error_names_every_reason(serve, answer, target):
    server = serve(CONTENT)
    server.answers = [answer(404), answer(403), answer(500), answer(500), answer(500)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/set.bin"  # bound and not listening
        with pytest.raises(UserError) as error:
            download([*[server.address()] * 3, nobody], target, retry=QUICK)
    lines = str(error.value).splitlines()
    assert lines[0] == "set.bin cannot be downloaded:"
    for line, reason in zip(lines[1:], ("404 Not Found", "403", "500", "cannot be reached"), strict=True):
        assert reason in line
    assert not any(target.parent.iterdir())


@pytest.mark.parametrize("address", ["http://127.0.0.1:port/", "http://127.0.0.1/ä", "http://127.0.0.1/ /"])
def test_an_invalid_address_is_not_retried(target, address):
    with pytest.raises(UserError, match=r"is not a valid address \("):
        download([address], target, retry=RetryPolicy(attempts=2, first_wait=60))


@pytest.fixture
def encrypted(serve, tmp_path_factory):
    """A server with a self-signed certificate; its address begins with https."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder, server = tmp_path_factory.mktemp("certificate"), serve(CONTENT)
    key, server.certificate = folder / "key.pem", folder / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", server.certificate], check=True, capture_output=True)
    server.encrypt(server.certificate, key)
    address = server.address
    server.address = lambda *name: address(*name).replace("http:", "https:")
    return server


@pytest.fixture
def trusted(encrypted, monkeypatch):
    """The same server, with a certificate that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.certificate))
    return encrypted


def test_an_untrusted_certificate_is_refused(encrypted, target):
    with pytest.raises(UserError, match=r"has an invalid certificate \(self.signed certificate\)"):
        download([encrypted.address()], target, retry=RetryPolicy(attempts=2, first_wait=60))
    assert not encrypted.requests


def test_a_redirect_never_leaves_https_unless_a_digest_or_the_user_allows_it(serve, answer, target, trusted):
    plain = serve(OTHER)
    moved = answer(302, {"Location": plain.address("elsewhere")})
    trusted.answers = [moved]
    with pytest.raises(UserError, match=r"redirects to http://\S*elsewhere, which is not encrypted; --allow-http"):
        download([trusted.address()], target, retry=QUICK)
    assert not plain.requests
    for options in ({"allow_http": True}, {"digest": sha256(OTHER)}):
        trusted.answers = [moved]
        assert download([trusted.address()], target, retry=QUICK, **options) == plain.address("elsewhere")
        assert target.read_bytes() == OTHER
        target.unlink()
    trusted.answers = [answer(302, {"Location": trusted.address("elsewhere")})]
    assert download([trusted.address()], target, retry=QUICK) == trusted.address("elsewhere")


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher"])
def test_a_redirect_to_another_scheme_is_refused(serve, answer, target, scheme):
    server = serve(CONTENT)
    server.answers = [answer(302, {"Location": f"{scheme}://127.0.0.1/etc/passwd"})] * QUICK.attempts
    with pytest.raises(UserError):
        download([server.address()], target, retry=QUICK, allow_http=True)
    assert not target.exists()


@pytest.mark.parametrize("allowed", [False, True])
def test_an_unencrypted_part_is_not_continued_over_https_unless_allowed(serve, answer, target, trusted, allowed):
    plain = serve(CONTENT)
    trusted.validators = plain.validators
    plain.answers = [answer(cut_after=300_000), *[answer(503)] * 3]
    with pytest.raises(UserError):
        download([plain.address()], target, retry=QUICK)
    origin = download([trusted.address()], target, retry=QUICK, allow_http=allowed)
    assert target.read_bytes() == CONTENT
    assert origin == (plain.address() if allowed else trusted.address())
    assert ranges(trusted) == ["bytes=300000-" if allowed else None]


@pytest.mark.parametrize("digits", [19, 5000])
def test_implausible_numbers_in_headers_are_ignored(serve, answer, target, digits):
    server, number = serve(CONTENT), "9" * digits
    server.answers = [answer(503, {"Retry-After": number}), answer(headers={"Content-Length": number}, cut_after=1000)]
    with pytest.raises(UserError, match="sent 1,000 bytes; expected 1,024,000"):
        download([server.address()], target, size=len(CONTENT), retry=QUICK)
    server.answers = [answer(headers={"Content-Length": number})]
    download([server.address()], target, size=len(CONTENT), retry=QUICK)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "reply", "message"),
    [
        (CONTENT + b"?", {}, "offers a file of 1,024,001 bytes; expected 1,024,000"),
        (CONTENT * 2, {"tells_length": False}, "sends more than the expected 1,024,000 bytes"),
        (CONTENT, {"tells_length": False, "cut_after": 300_000}, "sent 300,000 bytes; expected 1,024,000"),
        (CONTENT[::-1], {}, f"digest {sha256(CONTENT[::-1])}; expected {sha256(CONTENT)}"),
    ],
)
def test_a_file_of_another_size_or_digest_is_refused(serve, answer, target, content, reply, message):
    server = serve(content)
    server.answers = [answer(**reply)]
    with pytest.raises(UserError, match=message):
        download([server.address()], target, size=len(CONTENT), digest=sha256(CONTENT), retry=QUICK)
    assert not target.exists()


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_after_a_wrong_digest_the_next_address_is_tried(serve, target, algorithm):
    lying, honest = serve(CONTENT[:-1] + b"?"), serve(CONTENT)
    digest = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    download([lying.address(), honest.address()], target, size=len(CONTENT), digest=digest)
    assert target.read_bytes() == CONTENT
    assert digest_of(target, algorithm) == digest


@pytest.mark.parametrize("state", [None, "", "[]", '{"validator": "1", "tot', '{"unknown": 1}', '{"validator": 5}'])
def test_a_part_without_a_valid_state_is_not_continued(serve, target, state):
    server = serve(CONTENT)
    part, memo = part_of(target)
    part.write_bytes(b"something else")
    if state is not None:
        memo.write_text(state)
    download([server.address()], target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_part_that_is_longer_than_the_file_is_not_continued(serve, target):
    server = serve(CONTENT)
    part, memo = part_of(target)
    part.write_bytes(CONTENT + b"more")
    memo.write_text(json.dumps({"validator": server.validators["ETag"], "total": len(CONTENT)}))
    download([server.address()], target, retry=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_complete_part_needs_no_server(target):
    part, memo = part_of(target)
    part.write_bytes(CONTENT)
    memo.write_text(json.dumps({"validator": "", "total": len(CONTENT)}))
    download(["http://127.0.0.1:9/"], target, digest=sha256(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_full_disk_is_reported_and_no_other_address_tried(serve, target):
    first, second = serve(CONTENT), serve(CONTENT)
    part, _ = part_of(target)
    part.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"set\.bin\.part: cannot be written \(No space left on device\)"):
        download([first.address(), second.address()], target, retry=QUICK)
    assert len(first.requests) == 1
    assert not second.requests


troubles = st.sampled_from(["cut", "no ranges", "busy", "wrong place", "changed", "no length"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(troubles, st.integers(0, 3000)), max_size=6))
def test_any_sequence_of_failures_ends_with_the_right_bytes(serve, answer, tmp_path, on_the_way):
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
    download([server.address()], target, retry=RetryPolicy(timeout=5, attempts=20, first_wait=0))
    assert target.read_bytes() == server.content
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    target.unlink()
