"""Unpack tar archives from untrusted sources.

A tar is a tape: a header of 512 bytes, a file's bytes, the next header. The header says where the file is to lie, and
it may say anything: `../../.bashrc`, `/etc/passwd`, a link to a folder elsewhere followed by a file inside that link,
a device, a million empty files, ten gigabytes of zeros in ten megabytes of gzip. tarfile extracts here what its own
data filter lets pass, and what the filter says nothing about is checked around it: headers are read in few bytes,
members and bytes are counted, names mean the same on every system, and links are never made.
"""

import gzip
import os
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from minifcn.errors import DataError, MinifcnError
from minifcn.formats.limits import path_of, short

HEADER = 2**16  # bytes that the description of one member may take: a path is at most 4096 letters
MAX_MEMBERS = 200_000  # VOC2012 has about 40,000


class _Tape:
    """A stream that tarfile reads headers from: no more than `HEADER` bytes each, however long they claim to be."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.allowed = stream, HEADER

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.allowed:
            raise DataError(f"a header of more than {HEADER} bytes")
        self.allowed -= count
        return self.stream.read(count)

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    max_bytes: int,
    max_members: int = MAX_MEMBERS,
    report: Callable[[int], None] = lambda count: None,
) -> int:
    """Unpack a .tar or .tar.gz into `folder`, new or empty, and return how many files were written.

    At most `max_bytes` are written, in at most `max_members` files, folders and links. `report(n)` is called with the
    bytes of each file. Links that stay inside are left out, all else that is no file and no folder is refused, as is
    every name that leads out of `folder`. Raises DataError; what was written until then stays, so unpack elsewhere
    and move when done, as `fetch` does. Memory is a few megabytes, whatever the archive.
    """
    root = path_of(folder)
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise DataError(f"{root}: is not empty; expected a new folder to unpack into")
    links: set[PurePosixPath] = set()
    files = members = size = 0
    with _opened(archive) as stream:
        tape = _Tape(stream)
        try:
            with tarfile.open(fileobj=tape, mode="r:") as tar:  # type: ignore[call-overload]  # it has read, seek and tell()
                while (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile would keep them all
                    members += 1
                    size += member.size
                    where = f"member {members} ({short(member.name)})"
                    if members > max_members:
                        raise DataError(f"more than {max_members} members")
                    if member.size < 0 or size > max_bytes:  # tar can write a length below 0
                        raise DataError(f"{where} of {member.size} bytes brings it to {size}, beyond {max_bytes}")
                    if _is_wanted(member, where, root, links):
                        tape.allowed = member.size
                        _extract(tar, member, root)
                        files += member.isfile()
                        report(member.size)
                    tape.allowed = HEADER
        except DataError as error:
            raise DataError(f"{archive}: {error}; expected a plain archive of data; fetch it again") from error
        except MinifcnError:
            raise
        except OSError as error:
            if error.errno is None:  # gzip's complaints are OSErrors as well, but not the system's
                raise DataError(f"{archive}: cannot be unpacked ({error}); fetch it again") from error
            raise DataError(f"{error.filename or root}: cannot be written ({error.strerror})") from error
        except Exception as error:  # tarfile, gzip and zlib promise no set of exceptions for broken files
            reason = short(str(error) or type(error).__name__)
            raise DataError(f"{archive}: cannot be unpacked ({reason}); expected a tar; fetch it again") from error
    return files


def _opened(archive: str | os.PathLike[str]) -> BinaryIO:
    try:
        with open(archive, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        return gzip.open(archive, "rb") if zipped else open(archive, "rb")  # type: ignore[return-value]
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror}); expected a .tar or .tar.gz") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    try:
        tar.extract(member, root, set_attrs=False, filter="data")  # who runs it decides the rights, not the archive
    except tarfile.ReadError as error:
        raise DataError(f"it ends inside {short(member.name)}") from error


def _is_wanted(member: tarfile.TarInfo, where: str, root: Path, links: set[PurePosixPath]) -> bool:
    """Return whether a member is a file or a folder. Links go into `links`; what could write elsewhere is refused."""
    text = f"{member.name}{member.linkname}"
    try:
        tarfile.data_filter(member, str(root))
        harmless = text.isprintable() and not set(text) & set("\\:") and not member.name.startswith("/")
    except tarfile.SpecialFileError:
        raise DataError(f"{where} is neither a plain file nor a folder") from None
    except tarfile.FilterError:
        harmless = False
    if not harmless:
        raise DataError(f"{where} leads out of the folder")
    if member.issparse():
        raise DataError(f"{where} is neither a plain file nor a folder")
    name, is_link = PurePosixPath(os.path.normpath(member.name)), member.issym() or member.islnk()
    if not links.isdisjoint(name.parents) or (name in links and not is_link):
        raise DataError(f"{where} would be written through a link of this archive")
    if is_link:
        links.add(name)
    return not is_link
