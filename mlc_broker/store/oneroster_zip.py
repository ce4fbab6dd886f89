"""A OneRoster zip as tables: limits, encodings, CSV, the manifest. Knows no people."""

from __future__ import annotations

import csv
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from msgspec import Struct

from mlc_broker.model.errors import Malformed, TooLarge
from mlc_broker.store.import_report import ROWS_A_PROGRESS, Findings

Mode: TypeAlias = Literal["bulk", "delta", "absent"]
Row: TypeAlias = dict[str, str]  # by column, in lower case

END_OF_DIRECTORY = b"PK\x05\x06"


class ZipLimits(Struct, frozen=True, kw_only=True):
    """How much of a zip is taken before it is refused."""

    zip_bytes_max: int = 64 << 20
    entries_max: int = 100
    inflated_bytes_max: int = 512 << 20
    row_chars_max: int = 65_536
    rows_max: int = 2_000_000


class RosterZip:
    """The CSV files of a OneRoster zip, each read once, and bounded in every direction."""

    def __init__(
        self, source: Path | bytes, findings: Findings, limits: ZipLimits | None = None
    ) -> None:
        self._findings = findings
        self._limits = limits or ZipLimits()
        data = _bytes_of(source, self._limits)
        self._zip = _opened(data, self._limits)
        self._entries = self._by_name()
        self._inflated_bytes = 0
        self._rows = 0
        self.version = ""
        self._modes = self._read_manifest()

    def mode(self, name: str) -> Mode:
        """Return whether the file is a whole (`bulk`), a change (`delta`), or not to be read."""
        stated = self._modes.get(name)
        if name not in self._entries:
            if stated in {"bulk", "delta"}:
                self._findings.warn(f"{name}.csv: the manifest promises it, and it is not there.")
            return "absent"
        if stated == "absent":
            self._findings.warn(f"{name}.csv: the manifest says absent; it is not read.")
            return "absent"
        return "delta" if stated == "delta" else "bulk"

    def rows(self, name: str, required: tuple[str, ...] = ()) -> Iterator[tuple[int, Row]]:
        """Yield the line and the cells of each good row; a bad one is reported and left out.

        Raises `Malformed` when a required column is missing, `TooLarge` over a limit.
        """
        if self.mode(name) == "absent":
            return
        file = f"{name}.csv"
        reader = csv.reader(io.StringIO(self._text(name), newline=""), strict=True)
        header = self._header(file, reader, required)
        line, done = reader.line_num + 1, 0
        while (cells := self._next(file, reader, line)) is not None:
            if cells:
                row = self._row(file, line, header, cells)
                if row is not None:
                    yield line, row
            line, done = reader.line_num + 1, done + 1
            self._count_row(file, done)
        self._findings.tell(file, done)

    def _count_row(self, file: str, done: int) -> None:
        self._rows += 1
        if self._rows > self._limits.rows_max:
            raise TooLarge(f"The zip has more than {self._limits.rows_max} rows; split it.")
        if done % ROWS_A_PROGRESS == 0:
            self._findings.tell(file, done)

    def _next(self, file: str, reader: Iterator[list[str]], line: int) -> list[str] | None:
        """Return the next row; [] for one that is blank or broken; None at the end."""
        try:
            cells = next(reader, None)
        except csv.Error as error:
            self._findings.reject(file, line, f"not CSV: {error}")
            return []
        if cells and sum(map(len, cells)) > self._limits.row_chars_max:
            self._findings.reject(
                file, line, f"longer than {self._limits.row_chars_max} characters"
            )
            return []
        return cells if cells is None or any(cells) else []

    def _row(self, file: str, line: int, header: list[str], cells: list[str]) -> Row | None:
        if len(cells) != len(header) and (len(cells) < len(header) or any(cells[len(header) :])):
            self._findings.reject(
                file, line, f"has {len(cells)} columns, the header has {len(header)}"
            )
            return None
        # The first of two columns of one name counts.
        return {
            name: cell.strip()
            for name, cell in zip(reversed(header), reversed(cells[: len(header)]), strict=True)
        }

    def _header(
        self, file: str, reader: Iterator[list[str]], required: tuple[str, ...]
    ) -> list[str]:
        header = [name.strip().lower() for name in self._next(file, reader, 1) or []]
        missing = [name for name in required if name.lower() not in header]
        if missing:
            raise Malformed(f"{file} has no column {', '.join(missing)}; export it again with it.")
        if len(set(header)) < len(header):
            self._findings.warn(f"{file}: two columns have one name; the first counts.")
        return header

    def _text(self, name: str) -> str:
        data = self._inflated(self._entries[name])
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise Malformed(f"{name}.csv is UTF-16; save it as UTF-8.")
        if data.startswith(b"\xef\xbb\xbf"):
            self._findings.warn(f"{name}.csv begins with a byte order mark; it was skipped.")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self._findings.warn(f"{name}.csv is not UTF-8; it was read as Windows-1252.")
            return data.decode("cp1252", errors="replace")

    def _inflated(self, entry: zipfile.ZipInfo) -> bytes:
        left = self._limits.inflated_bytes_max - self._inflated_bytes
        try:
            with self._zip.open(entry) as file:
                data = file.read(left + 1)  # what the zip claims about its sizes proves nothing
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
            raise Malformed(f"{entry.filename!r} cannot be unpacked: {error}.") from error
        if len(data) > left:
            raise TooLarge(
                f"The zip unpacks to more than {self._limits.inflated_bytes_max} bytes; split it."
            )
        self._inflated_bytes += len(data)
        return data

    def _by_name(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            path = PurePosixPath(info.filename)
            if path.suffix.lower() != ".csv" or "__MACOSX" in path.parts:
                continue
            if path.stem.lower() in entries:
                self._findings.warn(f"{path.name} is in the zip twice; the first counts.")
                continue
            entries[path.stem.lower()] = info
        if not entries:
            raise Malformed("There is no CSV file in the zip; is it a OneRoster export?")
        return entries

    def _read_manifest(self) -> dict[str, str]:
        if "manifest" not in self._entries:
            self._findings.warn("There is no manifest.csv: every file is taken as a whole (bulk).")
            return {}
        self._modes = {}
        properties = {
            row["propertyname"].lower(): row["value"].lower()
            for _, row in self.rows("manifest", ("propertyName", "value"))
        }
        self.version = properties.get("oneroster.version", "")
        if not self.version.startswith(("1.1", "1.2")):
            self._findings.warn(
                f"The manifest says OneRoster {self.version or '(nothing)'}; 1.1 and 1.2 are known."
            )
        return {
            name.removeprefix("file."): value
            for name, value in properties.items()
            if name.startswith("file.")
        }


def _bytes_of(source: Path | bytes, limits: ZipLimits) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        with source.open("rb") as file:
            data = file.read(limits.zip_bytes_max + 1)
    if len(data) > limits.zip_bytes_max:
        raise TooLarge(f"The zip is larger than {limits.zip_bytes_max} bytes; split it.")
    return data


def _opened(data: bytes, limits: ZipLimits) -> zipfile.ZipFile:
    # zipfile reads the whole directory at once: look at its size first.
    at = data.rfind(END_OF_DIRECTORY)
    if at < 0 or at + 22 > len(data):
        raise Malformed("This is not a zip, or it was cut short; send it again.")
    (directory_bytes,) = struct.unpack_from("<I", data, at + 12)
    if directory_bytes > limits.entries_max * 1024:
        raise TooLarge(f"The zip has more than {limits.entries_max} files.")
    try:
        opened = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise Malformed(f"This is not a zip that can be read: {error}.") from error
    if len(opened.infolist()) > limits.entries_max:
        raise TooLarge(f"The zip has more than {limits.entries_max} files.")
    return opened
