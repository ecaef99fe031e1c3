"""Downloads that are cut, false or no downloads at all (row 33), and archives that mean harm (row 32).

The server is one of our own on this machine, which speaks http: `trusted` lets it through, for download() and
not for commands.
"""

import contextlib
import gzip
import hashlib
import http.server
import io
import itertools
import os
import re
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_files import at_most
from some_slow import slow_but

from minifcn.cli.verbs import main
from minifcn.data.tools import fetch as fetching
from minifcn.data.tools.fetch import BY_HAND, SOURCES, Source, by_hand, download, fetch, source_of
from minifcn.data.tools.unpack import HEADER, unpack
from minifcn.errors import DataError, UsageError


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


TREE = tar(
    member("VOCdevkit", type=tarfile.DIRTYPE),
    member("VOCdevkit/VOC2012/JPEGImages/a.jpg", b"\xff\xd8 picture" * 3000),
    member("./VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", b"a\n" * 256),
)


# ------------------------------------------------------------------------------------------------------------- a server


class Server:
    """One file, given out as `answer` likes; `asked` keeps the Range of every request."""

    def __init__(self, content: bytes) -> None:
        self.content, self.asked = content, []  # type: tuple[bytes, list[str]]
        self.cut_after: int | None = None
        self.resumes, self.announces, self.page, self.redirect, self.status = True, True, "", "", 200
        self.shift = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.resumes else 0
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.end_headers()
            return
        if self.status != 200 or start >= len(self.content):
            request.send_error(self.status if self.status != 200 else 416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", "text/html" if self.page == "declared" else "application/x-tar")
        if start:
            request.send_header("Content-Range", f"bytes {start + self.shift}-{len(self.content) - 1}/*")
        if self.announces:
            request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        end = len(self.content) if self.cut_after is None else start + self.cut_after
        request.wfile.write(self.content[start:end])


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server(TREE)
    yield one
    one.http.shutdown()
    one.http.server_close()


class RawServer:
    """A server that answers with the bytes of `parts`, one after another, whatever is asked."""

    def __init__(self, parts: Callable[[], Iterator[bytes]], wait: float) -> None:
        self.parts, self.wait = parts, wait
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed, here or there
            while True:
                connection, _ = self.socket.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(2**16)
                    for part in self.parts():
                        connection.sendall(part)
                        time.sleep(self.wait)


@pytest.fixture
def source(server: Server) -> Source:
    digest = hashlib.sha256(TREE).hexdigest()
    place = "VOCdevkit/VOC2012"
    address = server.address + "voc.tar"
    return Source("a small VOC", address, len(TREE), "sha256", digest, place, place, "http://page")


def get(source: Source, folder: Path, server: Server, **more: object) -> Path:
    return download(source, folder, trusted=server.address, **more)  # type: ignore[arg-type]


def refused(call: Callable[[], object], *words: str, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000, message
    for word in words:
        assert word in message, message
    return message


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------------------ downloads


def test_a_download_has_its_name_when_it_is_whole(server: Server, source: Source, tmp_path: Path) -> None:
    seen: list[int] = []
    path = get(source, tmp_path, server, report=seen.append)
    assert path == tmp_path / "voc.tar" and path.read_bytes() == TREE and sum(seen) == len(TREE)
    assert names(tmp_path) == ["voc.tar"] and server.asked == [""]
    assert get(source, tmp_path, server) == path and len(server.asked) == 1  # it is there


def test_a_cut_connection_goes_on_where_it_stopped(server: Server, source: Source, tmp_path: Path) -> None:
    server.cut_after = 5000
    again = "fetch it again, and it goes on from there"
    refused(lambda: get(source, tmp_path, server), "the connection was cut after 15,000 bytes", again)
    assert names(tmp_path) == ["voc.tar.part"] and server.asked == ["", "bytes=5000-", "bytes=10000-"]
    assert (tmp_path / "voc.tar.part").read_bytes() == TREE[:15000]
    server.cut_after, seen = None, []
    path = get(source, tmp_path, server, report=seen.append)
    assert path.read_bytes() == TREE and server.asked[3:] == ["bytes=15000-"] and seen[0] == 15000
    assert sum(seen) == len(TREE) and names(tmp_path) == ["voc.tar"]


def test_nothing_gained_is_not_tried_forever(server: Server, source: Source, tmp_path: Path) -> None:
    server.cut_after = 0
    refused(lambda: get(source, tmp_path, server), "cut after 0 bytes")
    assert len(server.asked) == 1


def test_a_server_that_cannot_go_on_begins_again(server: Server, source: Source, tmp_path: Path) -> None:
    (tmp_path / "voc.tar.part").write_bytes(b"x" * 700)
    server.resumes, seen = False, []
    assert get(source, tmp_path, server, report=seen.append).read_bytes() == TREE
    assert server.asked == ["bytes=700-"] and seen[:2] == [700, -700] and sum(seen) == len(TREE)


def test_a_piece_from_elsewhere_is_not_glued_on(server: Server, source: Source, tmp_path: Path) -> None:
    (tmp_path / "voc.tar.part").write_bytes(TREE[:700])
    server.shift = 1
    refused(lambda: get(source, tmp_path, server), "expected bytes from 700", "'bytes 701-")
    assert (tmp_path / "voc.tar.part").read_bytes() == TREE[:700]


def test_a_whole_part_needs_only_its_hash(server: Server, source: Source, tmp_path: Path) -> None:
    (tmp_path / "voc.tar.part").write_bytes(TREE)
    assert get(source, tmp_path, server).read_bytes() == TREE


def test_a_wrong_hash_leaves_nothing(server: Server, source: Source, tmp_path: Path) -> None:
    server.content = TREE[:-1] + b"x"
    message = refused(
        lambda: get(source, tmp_path, server), f"found {len(TREE):,} bytes with sha256", f"expected {source.digest}"
    )
    assert hashlib.sha256(server.content).hexdigest() in message and names(tmp_path) == []


def test_a_file_of_the_right_name_is_not_believed(server: Server, source: Source, tmp_path: Path) -> None:
    (tmp_path / "voc.tar").write_bytes(b"mine")
    refused(lambda: get(source, tmp_path, server), "found 4 bytes")
    assert (tmp_path / "voc.tar").read_bytes() == b"mine"  # and not ours to remove


@pytest.mark.parametrize("announces", [True, False])
def test_no_more_is_taken_than_the_file_has(announces: bool, server: Server, source: Source, tmp_path: Path) -> None:
    server.content, server.announces = TREE + b"x" * 3_000_000, announces
    found = "bytes are announced" if announces else "more bytes came"
    with at_most(20 * 2**20):
        refused(lambda: get(source, tmp_path, server), found, f"expected at most {len(TREE):,}")
    assert names(tmp_path) == []


@pytest.mark.parametrize("page", ["declared", "silent"])
def test_a_web_page_is_no_archive(page: str, server: Server, source: Source, tmp_path: Path) -> None:
    server.page = page
    server.content = (b"Please log in." if page == "declared" else b"\n <!DOCTYPE html><title>Log in</title>") * 20
    refused(lambda: get(source, tmp_path, server), "the answer is a web page", "expected an archive")
    assert not (tmp_path / "voc.tar").exists() and b"html" not in (b"".join(p.read_bytes() for p in tmp_path.iterdir()))


def test_a_web_page_in_the_place_of_the_rest_leaves_what_was_there(
    server: Server, source: Source, tmp_path: Path
) -> None:
    part = tmp_path / "voc.tar.part"
    part.write_bytes(TREE[:1000])
    server.resumes, server.content = False, b"<html>Log in" * 20
    refused(lambda: get(source, tmp_path, server), "the answer is a web page")
    assert part.read_bytes() == TREE[:1000]
    server.resumes, server.content = True, TREE
    assert get(source, tmp_path, server).read_bytes() == TREE and server.asked[-1] == "bytes=1000-"


@pytest.mark.parametrize("to", ["http://127.0.0.1:1/voc.tar", "ftp://127.0.0.1/voc.tar", "file:///etc/hostname"])
def test_a_redirect_to_anything_but_https_is_refused(to: str, server: Server, source: Source, tmp_path: Path) -> None:
    server.redirect = to
    message = refused(lambda: get(source, tmp_path, server))
    assert "is not https" in message or "302" in message  # urllib itself refuses what is no web address
    assert names(tmp_path) == []


def test_a_redirect_on_the_trusted_server_is_followed(server: Server, source: Source, tmp_path: Path) -> None:
    other = Server(TREE)
    try:
        server.redirect = other.address + "elsewhere.tar"
        refused(lambda: get(source, tmp_path, server), "is not https")
        assert download(source, tmp_path, trusted="http://127.0.0.1:").read_bytes() == TREE
    finally:
        other.http.shutdown()
        other.http.server_close()


def test_plain_http_is_refused_before_anything_is_asked(server: Server, source: Source, tmp_path: Path) -> None:
    refused(lambda: download(source, tmp_path), "is not https")
    assert server.asked == []


def test_a_server_that_has_it_no_more_says_so(server: Server, source: Source, tmp_path: Path) -> None:
    server.status = 404
    refused(lambda: get(source, tmp_path, server), "the server answers 404")
    assert names(tmp_path) == []


def test_a_redirect_in_a_circle_is_refused_in_one_line(server: Server, source: Source, tmp_path: Path) -> None:
    server.redirect = source.address
    refused(lambda: get(source, tmp_path, server), "the server answers 302", "infinite loop")
    assert names(tmp_path) == []


def test_a_full_disk_is_not_a_cut_connection(
    server: Server, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        name = str(tmp_path / "voc.tar.part")

        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetching, "open", lambda *_: Full(), raising=False)
    refused(lambda: get(source, tmp_path, server), "voc.tar.part: cannot be written (No space left on device)")
    assert len(server.asked) == 1


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, source: Source) -> Source:
    """voc2012, but small."""
    monkeypatch.setitem(SOURCES, "voc2012", source)
    return source


def test_an_archive_at_hand_becomes_a_tree(small: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "mine.tar"
    archive.write_bytes(TREE)
    assert main(["data", "fetch", "voc2012", str(tmp_path / "d"), "--archive", str(archive)]) == 0
    place = tmp_path / "d" / "VOCdevkit" / "VOC2012"
    printed = capsys.readouterr().out
    assert f"wrote {place}\n" in printed and f"minifcn train --data {place}" in printed and "terms of use" in printed
    assert names(tmp_path / "d") == [
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt",
        "VOCdevkit/VOC2012/JPEGImages/a.jpg",
    ]
    assert archive.exists()
    assert main(["data", "fetch", "voc2012", str(tmp_path / "d")]) == 0  # no network is asked for what is there
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["pipe", "folder", "/dev/zero"])
def test_an_archive_that_is_no_file_is_refused_without_waiting(what: str, small: Source, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    with pytest.raises(DataError, match="is no file; expected "):
        fetch("voc2012", tmp_path / "d", archive=path)


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_downloaded_is_unpacked_and_removed(
    keep: bool, small: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "download", lambda source, root, report: get(source, root, server, report=report))
    (tmp_path / ".voc2012-unpacking").mkdir()
    (tmp_path / ".voc2012-unpacking" / "left").write_text("by a process that was killed")
    assert fetch("voc2012", tmp_path, keep=keep) == tmp_path / "VOCdevkit" / "VOC2012"
    assert (tmp_path / "voc.tar").exists() == keep and not (tmp_path / ".voc2012-unpacking").exists()


@pytest.mark.parametrize("fault", ["hash", "content", "harm"])
def test_a_bad_archive_leaves_no_tree(
    fault: str, small: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {
        "hash": TREE + b"x",
        "content": tar(member("other/file", b"x")),
        "harm": tar(member("VOCdevkit/VOC2012/a", b"x"), member("../../outside", b"x")),
    }[fault]
    archive, folder = tmp_path / "mine.tar", tmp_path / "d"
    archive.write_bytes(content)
    if fault != "hash":
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(SOURCES, "voc2012", replace(small, digest=digest))
    words = {"hash": "with sha256", "content": "holds no folder VOCdevkit/VOC2012", "harm": "leads out of the folder"}
    refused(lambda: fetch("voc2012", folder, archive=archive), str(archive), words[fault])
    assert names(tmp_path) == ["mine.tar"] and list(folder.iterdir()) == []


def test_without_a_network_it_says_what_to_fetch_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    away = replace(SOURCES["voc2012"], address="https://no.such.host.invalid/voc.tar", size=1000)
    monkeypatch.setitem(SOURCES, "voc2012", away)
    folder = tmp_path / "my data"
    assert main(["data", "fetch", "voc2012", str(folder)]) == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1 and "no connection" in error and "is there a network?" in error
    for word in (away.address, away.page, "1,000 bytes", f"sha256   {away.digest}"):
        assert word in out
    assert f"minifcn data fetch voc2012 '{folder}' --archive voc.tar" in out
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("fetch", "data: found 'fetch'; expected: minifcn data fetch NAME DIR, NAME one of voc2012, "),
        ("fetch voc2013 d", "data set 'voc2013' is not known; expected one of voc2012, "),
        ("fetch siftflow d", "siftflow: SIFT Flow is not fetched, since no hash of it is known"),
        ("fetch voc2012 d --archive", "option --archive has no value"),
        ("fetch voc2012 d --archive nothing.tar", "nothing.tar: cannot be read (No such file"),
        ("fetch voc2012 d --http", "option --http does not exist"),
    ],
)
def test_what_the_command_refuses(
    argv: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**12}))
    assert main(["data", *argv.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"minifcn: {line}") and error.count("\n") == 1
    assert names(tmp_path) == []


def test_a_disk_without_room_is_said_before_the_download(
    small: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2 * small.size - 1}))
    refused(lambda: fetch("voc2012", tmp_path), f"expected {2 * small.size:,}", kind=UsageError)
    assert server.asked == []


def test_a_python_without_tls_says_so(
    server: Server, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_Tls", None)
    refused(lambda: get(source, tmp_path, server), "no module ssl")


def test_every_source_is_https_and_has_a_hash_of_its_algorithm() -> None:
    digits = {"sha256": 64, "md5": 32}
    assert len(SOURCES) == 7 and not set(SOURCES) & set(BY_HAND)
    for name, source in SOURCES.items():
        assert source.address.startswith("https://") and source_of(name) is source
        assert re.fullmatch(rf"[0-9a-f]{{{digits[source.algorithm]}}}", source.digest)
        assert source.size <= source.limit <= 1.25 * source.size < source.room < 10**10
        text = "\n".join(by_hand(source))
        assert source.address in text and source.digest in text and f"{source.size:,} bytes" in text
    assert len({source.digest for source in SOURCES.values()}) == len(SOURCES)


# ------------------------------------------------------------------------------------------------------------- archives


def unpacked(tmp_path: Path, data: bytes, **limits: int) -> int:
    archive = tmp_path / "a.tar"
    archive.write_bytes(data)
    return unpack(archive, tmp_path / "in" / "out", **{"max_bytes": 10**6, **limits})


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_and_folders_come_out(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    long = "VOCdevkit/" + "long/" * 40 + "name"
    content = {"a": b"", "b/c": b"x" * 512, "b/d": b"y" * 1025, long: b"z" * 1024}
    data = tar(*(member(name, text, mode=0o4777) for name, text in content.items()))
    seen: list[int] = []
    archive = tmp_path / "a"
    archive.write_bytes(pack(data))
    assert unpack(archive, tmp_path / "out", max_bytes=10**6, report=seen.append) == 4
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == content
    assert sum(seen) == sum(map(len, content.values()))
    assert not (tmp_path / "out" / "a").stat().st_mode & 0o7000  # who runs it decides the rights, not the archive


LINK = {"type": tarfile.SYMTYPE}
HARM = {
    "up": (tar(member("../x", b"1")), "leads out of the folder"),
    "up later": (tar(member("a/../../x", b"1")), "leads out of the folder"),
    "another system's path": (tar(member("..\\x", b"1")), "leads out of the folder"),
    "a drive": (tar(member("C:x", b"1")), "leads out of the folder"),
    "a link up": (tar(member("a", linkname="../..", **LINK)), "leads out of the folder"),
    "an absolute link": (tar(member("a", linkname="/etc", **LINK)), "leads out of the folder"),
    "a hard link up": (tar(member("a", linkname="../x", type=tarfile.LNKTYPE)), "leads out of the folder"),
    "through a link": (
        tar(member("d/e", b"1"), member("a", linkname="d", **LINK), member("a/x", b"1")),
        "would be written through a link",
    ),
    "onto a link": (
        tar(member("a", linkname="d", **LINK), member("a", b"1")),
        "would be written through a link",
    ),
    "a device": (
        tar(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
        "neither a plain file nor a folder",
    ),
    "a pipe": (tar(member("pipe", type=tarfile.FIFOTYPE)), "neither a plain file nor a folder"),
    "a file and a folder": (tar(member("a", b"1"), member("a/b", b"1")), "cannot be written"),
    "no tar": (b"PK\x03\x04" + b"zip" * 400, "cannot be unpacked"),
    "nothing": (b"", "cannot be unpacked"),
    "half a gzip": (gzip.compress(TREE)[:100], "cannot be unpacked"),
    "half a file": (tar(member("a", b"x" * 5000))[:3000], "it ends inside a"),
}


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def drip(start: bytes) -> Callable[[], Iterator[bytes]]:
    """`start`, and then a byte at a time, for ever."""
    return lambda: itertools.chain([start], itertools.repeat(b"a"))


def endless(start: bytes, part: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.chain([start], itertools.repeat(part * 1000))


@pytest.mark.parametrize(
    ("parts", "wait", "says"),
    [
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), 0.01, "too slow"),
        (endless(b"", b"HTTP/1.1 102 Processing\r\nA: b\r\n\r\n"), 0.01, "cut|answers 102"),
        (drip(b""), 0.05, "too slow"),  # of the first line of the head
        (drip(HEAD + b"A: "), 0.05, "too slow"),
        (drip(HEAD + b"Content-Length: 40000\r\n\r\n"), 0.05, "too slow"),
        (drip(HEAD + b"\r\n"), 0.05, "too slow"),
        (endless(CHUNKED + b"0\r\n", b"Trailer: a\r\n"), 0, "more bytes|cut"),
        (endless(CHUNKED + b"-1\r\n", b"a"), 0, "cut"),
        (drip(CHUNKED + b"-5\r\n"), 0.05, "cut"),
        (lambda: iter([HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"]), 0, "a length of 5000 digits"),
        (lambda: iter([HEAD + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n"]), 0, "a length of 19 digits"),
        (lambda: iter([HEAD + "Content-Length: \u00b2\r\n\r\n".encode("latin-1") + TREE[:99]]), 0, "found 99 bytes"),
        (lambda: iter([b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n"]), 0, "cut"),
        (endless(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n", b"a"), 0, "302"),  # a page without end, not read
    ],
)
def test_a_server_cannot_hold_a_download_for_ever(
    parts: Callable[[], Iterator[bytes]],
    wait: float,
    says: str,
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deadline for the head, and a least speed afterwards; and not many more bytes than were asked for."""
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    raw = RawServer(parts, wait)
    try:
        began = time.monotonic()
        with pytest.raises(DataError, match=says) as caught, at_most(10 * 2**20):
            download(replace(source, address=raw.address + "voc.tar"), tmp_path, trusted=raw.address)
        assert time.monotonic() - began < 20
        assert len(str(caught.value)) < 700 and str(caught.value).isprintable()
    finally:
        raw.socket.close()


def test_a_slow_server_that_is_fast_enough_is_waited_for(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole takes longer than the time for a head: each byte buys some."""
    monkeypatch.setattr(fetching, "TIMEOUT", 0.5)
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(TREE)
    raw = RawServer(lambda: iter([head, *(TREE[at : at + 4000] for at in range(0, len(TREE), 4000))]), 0.1)
    try:
        assert download(replace(source, address=raw.address + "voc.tar"), tmp_path, trusted=raw.address).is_file()
    finally:
        raw.socket.close()


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_refused(harm: str, tmp_path: Path) -> None:
    data, words = HARM[harm]
    message = refused(lambda: unpacked(tmp_path, data), words)
    assert str(tmp_path) in message
    outside = [path for path in tmp_path.rglob("*") if (tmp_path / "in" / "out") not in [path, *path.parents]]
    assert {path.name for path in outside} == {"a.tar", "in"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_path_from_the_root_is_refused(tmp_path: Path) -> None:
    refused(lambda: unpacked(tmp_path, tar(member(f"{tmp_path}/x", b"1"))), "leads out of the folder")
    assert not (tmp_path / "x").exists() and names(tmp_path) == ["a.tar"]


def test_links_that_stay_inside_are_left_out(tmp_path: Path) -> None:
    data = tar(
        member("a/b", b"1"),
        member("a/c", linkname="b", **LINK),
        member("d", linkname="a/b", type=tarfile.LNKTYPE),
        member("e/f", linkname="../a/b", **LINK),
    )
    assert unpacked(tmp_path, data) == 1 and names(tmp_path / "in" / "out") == ["a/b"]


@pytest.mark.parametrize("most", slow_but([100], [100, 3000], "unpacks thousands of members while memory is measured"))
def test_a_million_members_are_too_many(most: int, tmp_path: Path) -> None:
    one = tar(member("d", type=tarfile.DIRTYPE))[:512]
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(one * 10_000) * 100)  # gzip may be one after the other
    assert archive.stat().st_size < 10 * 2**20
    with at_most(2**20):
        refused(
            lambda: unpack(archive, tmp_path / "out", max_bytes=10**9, max_members=most), f"more than {most} members"
        )


def test_ten_gigabytes_are_too_much(tmp_path: Path) -> None:
    """The header says so; and where it does not, ten thousand members of a megabyte do."""
    info, _ = member("zeros")
    info.size = 10 * 2**30
    with at_most(20 * 2**20):
        data = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20))
        refused(lambda: unpacked(tmp_path, data, max_bytes=3 * 10**9), "beyond 3000000000")
    assert names(tmp_path / "in") == []
    many = tmp_path / "many.tgz"
    piece = tar(member("zeros", bytes(2**20)))[: 512 + 2**20]
    with gzip.open(many, "wb", compresslevel=1) as file:
        for _ in range(40):
            file.write(piece)
    assert many.stat().st_size < 2**20
    with at_most(20 * 2**20):
        refused(lambda: unpack(many, tmp_path / "many", max_bytes=30 * 2**20), "brings it to 32505856, beyond")
    assert sum(path.stat().st_size for path in (tmp_path / "many").iterdir()) <= 30 * 2**20


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_a_gigabyte_is_not_read(kind: bytes, tmp_path: Path) -> None:
    info, _ = member("name", type=kind)
    info.size = 2**30
    data = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(30 * 2**20), compresslevel=1)
    with at_most(10 * 2**20):
        refused(lambda: unpacked(tmp_path, data, max_bytes=2**40), f"a header of more than {HEADER} bytes")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_length_below_zero_ends_it(kind: bytes, tmp_path: Path) -> None:
    info, _ = member("name", type=kind)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = (-512).to_bytes(12, "big", signed=True)
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw[:512]):06o}\0 ".encode()
    words = "of -512 bytes" if kind == tarfile.REGTYPE else "a header of more than"
    refused(lambda: unpacked(tmp_path, bytes(raw) + bytes(2048)), words)
    assert not (tmp_path / "in" / "out" / "name").exists()


def sparse(*, extended: bool = False) -> bytes:
    """The header of a file with holes, said to be of 8 GB; `extended`: more of its map follows."""
    info, _ = member("holes", type=tarfile.GNUTYPE_SPARSE)
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[386:410] = b"00000000000\0" + b"00000001000\0"
    raw[482] = extended
    raw[483:495] = b"77777777777\0"
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw[:512]):06o}\0 ".encode()
    return bytes(raw)


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    refused(lambda: unpacked(tmp_path, sparse() + bytes(2048), max_bytes=2**40), "neither a plain file nor a folder")


def test_a_header_without_end_is_not_read(tmp_path: Path) -> None:
    """A map of holes, each part of which announces the next, and a name of a name of a name."""
    part = b"00000001000\0" * 42 + b"\1" + bytes(7)
    data = gzip.compress(sparse(extended=True) + part * 20_000, compresslevel=1)
    with at_most(10 * 2**20):
        refused(lambda: unpacked(tmp_path, data, max_bytes=2**40), f"a header of more than {HEADER} bytes")
    info, _ = member("name", type=tarfile.GNUTYPE_LONGNAME)
    info.size = 1
    refused(
        lambda: unpacked(tmp_path, (info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512)) * 900), "a header of more than"
    )


def test_only_a_new_folder_is_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "in" / "out").mkdir(parents=True)
    (tmp_path / "in" / "out" / "mine").write_text("mine")
    refused(lambda: unpacked(tmp_path, TREE), "is not empty")
    assert names(tmp_path / "in") == ["out/mine"]
