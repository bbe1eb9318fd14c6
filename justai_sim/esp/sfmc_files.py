"""The files of an extract: folders and zips as streams of text lines. Nothing is ever unpacked to disk."""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from justai_sim.esp import limits
from justai_sim.esp.csvlines import Lines
from justai_sim.esp.parts import Files
from justai_sim.esp.rows import Rows

MEMBERS = 2_000
"""Files in one archive."""
LINE = 200_000
"""Characters of a line; the fields of the vendor end at 8,000."""

_ENCRYPTED = 0x1
_GZIP = b"\x1f\x8b"
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)
# Bytes that are no UTF-8 are read as the Windows code page, one by one.
codecs.register_error("cp1252", lambda e: (_bytes(e).decode("cp1252", "replace"), e.end))  # type: ignore[attr-defined]


def _bytes(e: Any) -> bytes:
    found: bytes = e.object[e.start : e.end]
    return found


class TooLargeError(OSError):
    """An archive that unpacks to more than it may."""


@dataclass
class Archive:
    """A packed file and how many bytes may still come out of it."""

    path: Path
    left: int


@dataclass(frozen=True)
class Source:
    """One file of an extract: on disk, or a member of an archive."""

    place: str
    path: Path
    archive: Archive | None = None
    member: str = ""

    @property
    def name(self) -> str:
        return self.member or self.path.name

    def open(self) -> IO[bytes]:
        if self.archive is not None:
            archive = zipfile.ZipFile(self.archive.path)
            try:
                return io.BufferedReader(_Metered(self.archive, archive.open(self.member), archive))
            except BaseException:
                archive.close()
                raise
        stream = self.path.open("rb")
        packed = stream.peek(2)[:2] == _GZIP
        if not packed:
            return stream
        meter = Archive(self.path, limits.may_unpack(self.path.stat().st_size))
        return io.BufferedReader(_Metered(meter, gzip.GzipFile(fileobj=stream), stream))


class _Metered(io.RawIOBase):
    """Something packed, read through its meter: what a directory says of sizes is not believed."""

    def __init__(self, archive: Archive, stream: Any, below: Any) -> None:
        self._archive, self._stream, self._below = archive, stream, below

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = self._stream.read(min(len(into), 1 << 16))
        self._archive.left -= len(data)
        if self._archive.left < 0:
            raise TooLargeError(f"unpacks to more than {limits.RATIO} times its size")
        into[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._below.close()
        super().close()


def sources(found: Files, rows: Rows) -> list[Source]:
    """The files and the members of archives among them, in a fixed order; members that may not be read are rejects."""
    out: list[Source] = []
    for file, place in found:
        if file.name.lower().endswith(".zip"):
            out += _members(file, place, rows)
        else:
            out.append(Source(place, file))
    return out


def _members(file: Path, place: str, rows: Rows) -> list[Source]:
    try:
        with zipfile.ZipFile(file) as z:
            infos = [i for i in z.infolist() if not i.filename.endswith("/")]
    except PermissionError:
        raise
    except (*_BROKEN, ValueError) as e:
        rows.reject(place, "bad_zip", f"found a file that is not a zip that can be read ({e}), expected an extract")
        return []
    if len(infos) > MEMBERS:
        rows.reject(place, "zip_too_large", f"found {len(infos)} files in it, expected at most {MEMBERS}")
        return []
    archive, out, seen = Archive(file, limits.may_unpack(file.stat().st_size)), list[Source](), set[str]()
    for info in infos:
        name, at = info.filename, f"{place}/{info.filename}"
        if _unsafe(name) or _unsafe(info.orig_filename):
            why = f"found the name {name!r}, expected one that stays inside its folder"
            rows.reject(at, "zip_unsafe_name", why)
        elif info.flag_bits & _ENCRYPTED:
            rows.reject(at, "zip_encrypted", "found an encrypted file, expected one without a password")
        elif name.lower().endswith((".zip", ".7z", ".rar", ".tar")):
            rows.skipped[f"file: archive in an archive ({PurePosixPath(name).name})"] += 1
        elif name in seen:
            rows.reject(at, "zip_same_name", "found a second file of this name, expected one")
        else:
            seen.add(name)
            out.append(Source(at, file, archive, name))
    return out


def _unsafe(name: str) -> bool:
    """Whether a member's name is absolute or leads out of its folder, by the rules of any system."""
    windows = PureWindowsPath(name)
    return (
        not name or "\0" in name or bool(windows.drive or windows.root) or name.startswith("/") or ".." in windows.parts
    )


class TextLines(Lines):
    """The lines of a source as text, numbered from 1, until its end or until its bytes break.

    UTF-16 and UTF-8 by their byte order mark, UTF-16 without one by its zero bytes, else UTF-8 with single
    bytes of Windows-1252. A line over the bound is left out and told of.
    """

    def __init__(self, source: Source) -> None:
        self.place, self.number = source.place, 0
        self.record: list[str] = []
        self.size = 0
        self._back: list[str] = []
        self._reread = 0
        self._why = self._reason = ""
        self._long: list[int] = []
        self._text: io.TextIOWrapper | None = None
        try:
            raw = io.BufferedReader(source.open())  # type: ignore[type-var]
            encoding, errors = _encoding(raw.peek(4096)[:4096])
            self._text = io.TextIOWrapper(raw, encoding, errors, newline="\n")
        except _BROKEN as e:
            self._break(e)

    @property
    def broken(self) -> str:
        return self._why

    @property
    def passed(self) -> bool:
        """Whether lines over the bound have been passed over and not been told of."""
        return bool(self._long)

    def __enter__(self) -> TextLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._text is not None:
            self._text.close()

    def _read(self) -> str:
        if self.broken or self._text is None:
            raise StopIteration
        try:
            line = self._text.readline(LINE + 1)
            self.number += bool(line)
            if len(line) > LINE:
                self._long.append(self.number)
                while line and not line.endswith("\n"):
                    line = self._text.readline(LINE)
                return "\n"
        except _BROKEN as e:
            self._break(e)
            raise StopIteration from None
        if not line:
            raise StopIteration
        return line

    def _break(self, e: BaseException) -> None:
        if isinstance(e, PermissionError):  # of the file as a whole
            raise e
        self._why = str(e) or type(e).__name__
        self._reason = "zip_too_large" if isinstance(e, TooLargeError) else "truncated_file"

    def report(self, rows: Rows) -> None:
        """Rejects for lines over the bound since the last report, and for a file that ended early."""
        for number in self._long:
            message = f"found a line of more than {LINE:,} characters, expected less"
            rows.reject(f"{self.place}:{number}", "line_too_long", message)
        self._long.clear()
        if self.broken and self._reason:
            message = f"found a file that cannot be read on ({self.broken}), expected more; what came before is kept"
            rows.reject(f"{self.place}:{self.number + 1}", self._reason, message)
            self._reason = ""


def _encoding(head: bytes) -> tuple[str, str]:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", "replace"
    even, odd = head[0:200:2].count(0), head[1:200:2].count(0)
    if 4 * (even + odd) > len(head[:200]):
        return ("utf-16-le" if odd >= even else "utf-16-be"), "replace"
    return "utf-8-sig", "cp1252"
