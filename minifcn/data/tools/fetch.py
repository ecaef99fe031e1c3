"""Download data sets, verify their hashes and unpack them.

A download can end in many ways, and only one of them is the file. So it goes into `NAME.part`; a download that was cut
continues where it stopped; and `NAME` itself exists only once the hash is right. The addresses
are https, a redirect to anything else is refused, and so is a web page where an archive was asked for: the error page
of a server, or the login page of a network. Unpacking has its own doubts (unpack.py), and its own folder, which moves
into place in one step.

    fetch("voc2012", "data")                                             ->  data/VOCdevkit/VOC2012
    fetch("voc2012", "data", archive="VOCtrainval_11-May-2012.tar")      the same without a network
"""

import hashlib
import http.client
import io
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minifcn.data.tools.unpack import unpack
from minifcn.errors import DataError, UsageError
from minifcn.formats.limits import path_of, short

CHUNK = 2**20  # bytes copied at a time
TIMEOUT = 60  # seconds without a byte, or until the head of an answer is whole
SLOWEST = 2**12  # bytes a second, over the last `TIMEOUT` seconds: 2 GB would take six days
MOST_DIGITS = 18  # of a length that a server announces
TRIES = 3  # after a cut, while each brings something
Report = Callable[[int], None]


@dataclass(frozen=True)
class Source:
    """One archive: where it is, how it is recognised, and which folder of it becomes which of ours."""

    what: str
    address: str
    size: int
    """bytes; of those marked `about`, to two digits"""
    algorithm: str
    digest: str
    inside: str
    place: str
    page: str
    about: bool = False
    terms: str = "photographs from flickr, whose terms of use hold"

    @property
    def file(self) -> str:
        """The name of the archive."""
        return self.address.rpartition("/")[2]

    @property
    def limit(self) -> int:
        """The most bytes that are taken for this archive."""
        return self.size * 5 // 4 if self.about else self.size

    @property
    def room(self) -> int:
        """The most bytes it may unpack to: photographs do not shrink in a tar, packed or not."""
        return 3 * self.size


# Of each year's training and validation images: the date in the archive's name, its bytes and its SHA-256. The hashes
# are as two programs have them that know nothing of each other (torchvision's prototypes and dataeval), and for 2007
# and 2012 a third (TensorFlow Datasets, with the sizes); the other sizes are to two digits.
VOC = {
    2012: ("11-May-2012", 1_999_639_040, "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),
    2011: ("25-May-2011", 1_700_000_000, "0a7f5f5d154f7290ec65ec3f78b72ef72c6d93ff6d79acd40dc222a9ee5248ba"),
    2010: ("03-May-2010", 1_300_000_000, "1af4189cbe44323ab212bff7afbc7d0f55a267cc191eb3aac911037887e5c7d4"),
    2009: ("11-May-2009", 900_000_000, "11cbe1741fb5bdadbbca3c08e9ec62cd95c14884845527d50847bc2cf57e7fd6"),
    2008: ("14-Jul-2008", 550_000_000, "7f0ca53c1b5a838fbe946965fc106c6e86832183240af5c88e3f6c306318d42e"),
    2007: ("06-Nov-2007", 460_032_000, "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508"),
}


def _voc(year: int) -> Source:
    date, size, digest = VOC[year]
    place = f"VOCdevkit/VOC{year}"
    return Source(
        what=f"PASCAL VOC {year}, training and validation",
        address=f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/VOCtrainval_{date}.tar",
        size=size,
        algorithm="sha256",
        digest=digest,
        inside=f"TrainVal/{place}" if year == 2011 else place,
        place=place,
        page=f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        about=year not in (2007, 2012),
    )


SOURCES = {
    **{f"voc{year}": _voc(year) for year in VOC},
    # its MD5 as torchvision and others have it, its size as downloads have shown it
    "sbd": Source(
        "SBD, the Semantic Boundaries Dataset",
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        1_419_539_633,
        "md5",
        "82b4d87ceb2ed10f6038a1cba92111cb",
        "benchmark_RELEASE",
        "benchmark_RELEASE",
        "http://home.bharathh.info/pubs/codes/SBD/download.html",
    ),
}

# No hash of these could be confirmed in two places, or their server speaks no https: fetched by hand.
BY_HAND = {
    "nyudv2": ("NYU Depth v2", "https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html", "2.8 GB"),
    "siftflow": ("SIFT Flow", "http://www.cs.unc.edu/~jtighe/Papers/ECCV10/siftflow/SiftFlowDataset.zip", "a zip"),
    "pascal-context": (
        "PASCAL-Context, annotations for the images of voc2010",
        "https://cs.stanford.edu/~roozbeh/pascal-context/",
        "30.7 MB, trainval.tar.gz",
    ),
}


def source_of(name: str) -> Source:
    """Return the entry of that name. UsageError for a name that is none, or one that is fetched by hand."""
    if name in BY_HAND:
        what, page, size = BY_HAND[name]
        how = f"fetch it by hand from {page} ({size}) and unpack it as the table in docs/data-sets.md has it"
        raise UsageError(f"{name}: {what} is not fetched, since no hash of it is known that could be relied on; {how}")
    if name not in SOURCES:
        raise UsageError(f"data set {name!r} is not known; expected one of {', '.join(SOURCES)}")
    return SOURCES[name]


def by_hand(source: Source) -> list[str]:
    """Return lines for a user without a network: the address, the size and the hash."""
    return [
        f"To fetch {source.what} by hand:",
        f"  from     {source.address}",
        f"  or see   {source.page}",
        f"  size     {'about ' if source.about else ''}{source.size:,} bytes",
        f"  {source.algorithm:<8} {source.digest}",
    ]


def fetch(
    name: str,
    folder: str | os.PathLike[str],
    *,
    archive: str | os.PathLike[str] | None = None,
    keep: bool = False,
    downloading: Report = lambda count: None,
    unpacking: Report = lambda count: None,
) -> Path:
    """Put the data set under `folder` and return where it lies; what is there already is left alone.

    With `archive` that file is taken instead of a download, and stays; a downloaded one is removed afterwards unless
    `keep`. Raises UsageError for an unknown name, DataError for whatever goes wrong, with nothing under a final name.
    """
    source, root = source_of(name), path_of(folder)
    place = root / source.place
    if place.exists():
        return place
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{root}: cannot be written ({error.strerror}); choose another folder") from error
    needed, free = source.size * (1 if archive is not None else 2), shutil.disk_usage(root).free
    if free < needed:
        what = f"{free:,} bytes are free; expected {needed:,} for archive and data"
        raise UsageError(f"{root}: {what}; choose another disk")
    file = path_of(archive) if archive is not None else download(source, root, report=downloading)
    if archive is not None:
        require_hash(file, source)
    scratch = root / f".{name}-unpacking"
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    try:
        unpack(file, scratch, max_bytes=source.room, report=unpacking)
        if not (scratch / source.inside).is_dir():
            raise DataError(f"{file}: holds no folder {source.inside}; expected {source.what}; fetch it again")
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(scratch / source.inside, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if archive is None and not keep:
        file.unlink()
    return place


def download(
    source: Source, folder: str | os.PathLike[str], *, report: Report = lambda count: None, trusted: str = ""
) -> Path:
    """Return the archive in `folder`, its hash checked; a download that was cut continues where it stopped.

    `report(n)` is called with the bytes of each piece, first with those that were there already. Only https is spoken;
    addresses that begin with `trusted` are let through, which is for a server of your own.
    """
    final = path_of(folder) / source.file
    part = final.with_name(final.name + ".part")
    if final.exists():
        require_hash(final, source)
    else:
        report(part.stat().st_size if part.exists() else 0)
        for last in (False,) * (TRIES - 1) + (True,):
            had = part.stat().st_size if part.exists() else 0
            try:
                _receive(source, part, report, trusted)
                break
            except _CutError as cut:
                got = part.stat().st_size if part.exists() else 0
                if last or got <= had:
                    what = f"{source.address}: the connection was cut after {got:,} bytes ({cut})"
                    raise DataError(f"{what}; fetch it again, and it goes on from there") from cut
        require_hash(part, source, remove=True)
        os.replace(part, final)
    return final


class _CutError(Exception):
    """The connection ended before the file did."""


def _receive(source: Source, part: Path, report: Report, trusted: str) -> None:
    """Fetch what is missing of `part` from the server. Raises _CutError to try again, DataError to give up."""
    had = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "minifcn", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    _require_https(source.address, trusted)
    request = urllib.request.Request(source.address, headers=headers)  # noqa: S310  the line above
    try:
        with _opener(trusted, most=2 * source.limit + CHUNK).open(request, timeout=TIMEOUT) as answer:
            kind = answer.headers.get_content_type()
            if kind in ("text/html", "application/xhtml+xml"):
                what = f"{source.address}: the answer is a web page ({kind}); expected an archive"
                raise DataError(f"{what}; is there a login page between you and the network?")
            piece = answer.headers.get("Content-Range", "")
            if answer.status == 206 and not piece.startswith(f"bytes {had}-"):  # it would be glued on in a wrong place
                raise DataError(f"{source.address}: found {piece[:60]!r}; expected bytes from {had}; remove {part}")
            if had and answer.status != 206:  # this server starts again from the top, and so do we
                report(-had)
                had = 0
            announced = answer.headers.get("Content-Length", "")
            if len(announced) > MOST_DIGITS:
                raise DataError(_too_much(source, f"a length of {len(announced)} digits is announced"))
            total = had + int(announced) if re.fullmatch("[0-9]+", announced) else None
            if total is not None and total > source.limit:
                raise DataError(_too_much(source, f"{total:,} bytes are announced"))
            first = answer.read(CHUNK if had else 512)
            if not had and first.lstrip()[:1] == b"<":  # seen before a part that is there gives way to it
                raise DataError(f"{source.address}: the answer is a web page; expected an archive; try again later")
            with open(part, "ab" if had else "wb") as file:
                _copy(source, answer, file, first, had, report)
                got = file.tell()
            if total is not None and got < total:
                raise _CutError(f"of {total:,}")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and had:  # nothing lies beyond what we have: the hash decides
            return
        reason = short(error.reason)  # the server's words, or urllib's of three lines
        raise DataError(f"{source.address}: the server answers {error.code} {reason}; try again later") from error
    except urllib.error.URLError as error:
        raise DataError(f"{source.address}: no connection ({short(error.reason)}); is there a network?") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.filename:  # ours, not the server's
            raise DataError(f"{error.filename}: cannot be written ({error.strerror}); choose another folder") from error
        raise _CutError(short(error) or type(error).__name__) from error


def _copy(source: Source, answer: Any, file: Any, piece: bytes, had: int, report: Report) -> None:
    """Write `piece` and all that follows it."""
    while piece:
        had += len(piece)
        if had > source.limit:
            file.close()
            os.unlink(file.name)  # there is no going on from here
            raise DataError(_too_much(source, "more bytes came"))
        try:
            file.write(piece)
        except OSError as error:
            raise DataError(f"{file.name}: cannot be written ({error.strerror}); choose another folder") from error
        report(len(piece))
        piece = answer.read(CHUNK)


def _too_much(source: Source, found: str) -> str:
    return f"{source.address}: {found}; expected at most {source.limit:,}; is it the same file? see {source.page}"


def require_hash(path: str | os.PathLike[str], source: Source, *, remove: bool = False) -> None:
    """Refuse a file that is not the archive, by its hash; with `remove` it is removed as well."""
    found = hashlib.new(source.algorithm, usedforsecurity=False)
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device would never end
        raise DataError(f"{path}: is no file; expected {source.file}")
    try:
        with open(path, "rb") as file:
            size = 0
            while piece := file.read(CHUNK):
                found.update(piece)
                size += len(piece)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {source.file}") from error
    if found.hexdigest() != source.digest:
        if remove:
            os.unlink(path)
        what = f"{path}: found {size:,} bytes with {source.algorithm} {found.hexdigest()}; expected {source.digest}"
        raise DataError(f"{what}; {'it was removed, ' if remove else ''}fetch it again from {source.address}")


def _require_https(address: str, trusted: str) -> None:
    if not (address.startswith("https://") or (trusted and address.startswith(trusted))):
        raise DataError(f"{address[:200]}: is not https; expected an address that is protected on the way")


class _Watched(io.RawIOBase):
    """The bytes of an answer, as long as they come in time and are not many more than were asked for.

    The time of a socket ends each wait alone: a server that sends a byte now and then, or `100 Continue` for ever,
    would never end. Here the head has to be there after `TIMEOUT`, and after that each byte buys 1 / `SLOWEST` seconds,
    of which at most `TIMEOUT` are kept.
    """

    def __init__(self, raw: Any, most: int) -> None:
        self.raw, self.left, self.in_head, self.until = raw, most, True, time.monotonic() + TIMEOUT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.raw.readinto(buffer) or 0
        now = time.monotonic()
        self.left -= count
        if now > self.until or self.left < 0:
            raise TimeoutError("more bytes than the file has" if self.left < 0 else "it is too slow")
        if not self.in_head:
            self.until = min(self.until + count / SLOWEST, now + TIMEOUT)
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose bytes are watched."""

    def __init__(self, sock: Any, *arguments: Any, most: int, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.watched = _Watched(self.fp.detach(), most)
        self.fp = io.BufferedReader(self.watched)

    def begin(self) -> None:
        super().begin()
        self.watched.in_head, self.watched.until = False, time.monotonic() + TIMEOUT

    def _get_chunk_left(self) -> int | None:
        left: int | None = super()._get_chunk_left()  # type: ignore[misc]
        if left is not None and left < 0:  # http.client takes "-1" for all that comes, and keeps it in memory
            raise http.client.IncompleteRead(b"")
        return left


def _connection(kind: Any, most: int, host: str, **options: Any) -> Any:
    made = kind(host, **options)
    made.response_class = partial(_Answer, most=most)
    return made


_Tls: Any = getattr(urllib.request, "HTTPSHandler", None)  # None in a Python without ssl, such as a browser's
_Handler: Any = _Tls or urllib.request.BaseHandler


class _Https(_Handler):
    most = 0

    def https_open(self, req: Any) -> Any:
        return self.do_open(partial(_connection, http.client.HTTPSConnection, self.most), req, context=self._context)


class _Http(urllib.request.HTTPHandler):
    most = 0

    def http_open(self, req: Any) -> Any:
        return self.do_open(partial(_connection, http.client.HTTPConnection, self.most), req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, trusted: str) -> None:
        self.trusted = trusted

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        fp.close()  # urllib would read the page that comes with it, however long
        _require_https(newurl, self.trusted)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(trusted: str, *, most: int) -> urllib.request.OpenerDirector:
    """Return urllib's without files, ftp and data: addresses, none of which a redirect shall lead to.

    most: the bytes that an answer may have in all.
    """
    if _Tls is None:
        raise DataError("this Python has no module ssl, without which nothing can be fetched; use one that has it")
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        *(urllib.request.ProxyHandler(), _Https(), _Redirects(trusted)),
        *(urllib.request.HTTPErrorProcessor(), urllib.request.HTTPDefaultErrorHandler()),
    ]
    if trusted:
        handlers.append(_Http())
    for handler in handlers:
        if isinstance(handler, _Https | _Http):
            handler.most = most
        opener.add_handler(handler)
    return opener
