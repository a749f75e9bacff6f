"""Keras's model files: archives of the weights, an HDF5 file, and of what the model is made of."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from stepstone.errors import InvalidLayoutError, StepstoneError, UnsupportedError

_WEIGHTS = "model.weights.h5"
_DESCRIPTIONS = {"config": "config.json", "metadata": "metadata.json"}
_DESCRIPTION_SIZE_BYTES_MAX = 16 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # Signature; how long name and extra field are.
_PIECE_SIZE_BYTES = 1 << 20
# What zipfile raises over an archive that is damaged, or of a kind that it does not know.
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError,
)  # fmt: skip


def is_keras(file: pathlib.Path) -> bool:
    """Whether it is an archive with a Keras model's weights."""
    if not file.is_file() or not zipfile.is_zipfile(file):
        return False
    with contextlib.suppress(*_ZIP_ERRORS, OSError), zipfile.ZipFile(file) as archive:
        return _WEIGHTS in archive.namelist()
    return False


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """The weights as a file to read, and what the archive says of the model.

    Nothing is unpacked: the weights, which Keras does not compress, are read where they stand, once
    for their check sum and then as HDF5 wants them. Assets are left out.

    Raises
    ------
    InvalidLayoutError
        The archive is damaged.
    UnsupportedError
        Its weights are compressed or encrypted, or a description is too long.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            weights = archive.getinfo(_WEIGHTS)
            if weights.compress_type != zipfile.ZIP_STORED or weights.flag_bits & 1:
                raise UnsupportedError(f"{file}: {_WEIGHTS} is compressed or encrypted: unpack it, and convert that")
            with archive.open(weights) as checked:
                while checked.read(_PIECE_SIZE_BYTES):
                    pass
            described = {
                key: _description(file, archive, name)
                for key, name in _DESCRIPTIONS.items()
                if name in archive.namelist()
            }
        with file.open("rb") as whole:
            yield io.BufferedReader(_Window(whole, _begin_of(whole, weights), weights.file_size)), described
    except StepstoneError:
        raise
    except _ZIP_ERRORS as error:
        raise InvalidLayoutError(f"{file} is not a sound archive of Keras: {error}") from None


def _description(file: pathlib.Path, archive: zipfile.ZipFile, name: str) -> Any:
    # The directory's word for the size is not taken: it says what comes out at most.
    with archive.open(name) as opened_file:
        text = opened_file.read(_DESCRIPTION_SIZE_BYTES_MAX + 1)
    if len(text) > _DESCRIPTION_SIZE_BYTES_MAX:
        raise UnsupportedError(f"{file}: {name} has more than {_DESCRIPTION_SIZE_BYTES_MAX} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidLayoutError(f"{file}: {name} is not JSON: {error}") from None


def _begin_of(whole: BinaryIO, member: zipfile.ZipInfo) -> int:
    whole.seek(member.header_offset)
    header = whole.read(_LOCAL_HEADER.size)
    if len(header) != _LOCAL_HEADER.size:
        raise zipfile.BadZipFile("it ends too early")
    _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    return member.header_offset + _LOCAL_HEADER.size + int(name_size) + int(extra_size)


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, whole: BinaryIO, begin: int, size: int) -> None:
        super().__init__()
        self._whole = whole
        self._begin = begin
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        size = max(0, min(len(view), self._size - self._at))
        self._whole.seek(self._begin + self._at)
        data = self._whole.read(size)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
