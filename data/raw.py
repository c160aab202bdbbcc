"""The bytes of an input file: opened, decompressed, bounded, without a byte-order mark.

Takes a path; gives the whole content, or says why the file cannot be read: missing, a folder, empty, cut off in the
middle of its compression, larger than `MAX_BYTES` once unpacked, in UTF-16.
"""

import codecs
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from .errors import BadInput

MAX_BYTES = 4 << 30
"""Content beyond this is refused: a corpus of that size belongs in several files, a small file that unpacks to it is
a decompression bomb."""

_CHUNK = 1 << 20
# Zstandard can blow up 4 bytes to 128 KiB, so it is fed in small pieces and the size checked after each.
_ZSTD_CHUNK = 1 << 12
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzip or Zstandard whatever its name.

    Raises:
        BadInput: naming the file and what is wrong with it.
    """
    try:
        if path.is_dir():
            raise BadInput(f"{path}: is a folder, a file is expected")
        with path.open("rb") as file:
            data = _unpack(path, file)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise BadInput(f"{path}: cannot be read: {reason}") from error
    except ValueError as error:
        raise BadInput(f"{path!s:.200}: not the name of a file: {error}") from error
    return _without_mark(path, data)


def _unpack(path: Path, file: BinaryIO) -> bytes:
    head = file.read(4)
    if not head:
        raise BadInput(f"{path}: the file is empty")
    if head.startswith(_GZIP_MAGIC):
        parts = _gunzip(path, head, file)
    elif head == _ZSTD_MAGIC:
        parts = _unzstd(path, head, file)
    elif path.suffix.lower() in COMPRESSIONS:
        kind = COMPRESSIONS[path.suffix.lower()]
        raise BadInput(f"{path}: named {path.suffix} but holds no {kind} data; rename it, or compress it again")
    else:
        parts = _chunks(head, file, _CHUNK)
    found: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_BYTES:
            raise BadInput(f"{path}: more than {MAX_BYTES:,} bytes of content, the most one file may hold; split it")
        found.append(part)
    if not size:
        raise BadInput(f"{path}: the file holds nothing once unpacked")
    return b"".join(found)


def _chunks(head: bytes, file: BinaryIO, size: int) -> Iterator[bytes]:
    yield head
    while chunk := file.read(size):
        yield chunk


def _gunzip(path: Path, head: bytes, file: BinaryIO) -> Iterator[bytes]:
    """All members of a gzip file; bounded pieces, however strongly it is compressed."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for chunk in _chunks(head, file, _CHUNK):
            rest = chunk
            while rest:
                if unpacker.eof:
                    # Zero bytes after a member are padding, anything else must be the next member.
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    unpacker = zlib.decompressobj(wbits=31)
                yield unpacker.decompress(rest, _CHUNK)
                rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
        if not unpacker.eof:
            yield unpacker.flush()
    except zlib.error as error:
        raise BadInput(f"{path}: damaged gzip data ({error}); fetch or write the file again") from error
    if not unpacker.eof:
        raise BadInput(f"{path}: the gzip data is truncated, its end is missing; fetch or write the file again")


def _unzstd(path: Path, head: bytes, file: BinaryIO) -> Iterator[bytes]:
    """All frames of a Zstandard file."""
    context = zstandard.ZstdDecompressor()
    unpacker = context.decompressobj()
    try:
        for chunk in _chunks(head, file, _ZSTD_CHUNK):
            rest = chunk
            while rest:
                if unpacker.eof:
                    unpacker = context.decompressobj()
                yield unpacker.decompress(rest)
                rest = unpacker.unused_data if unpacker.eof else b""
    except zstandard.ZstdError as error:
        raise BadInput(f"{path}: damaged Zstandard data ({error}); fetch or write the file again") from error
    if not unpacker.eof:
        raise BadInput(f"{path}: the Zstandard data is truncated, its end is missing; fetch or write the file again")


def _without_mark(path: Path, data: bytes) -> bytes:
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise BadInput(f"{path}: is in UTF-16 or UTF-32; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if not data or data.isspace():
        raise BadInput(f"{path}: the file is empty")
    return data
