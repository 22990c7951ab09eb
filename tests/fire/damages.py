"""Ways to damage a file, each drawn by a ``random.Random``: a table for bytes, one for JSON."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import random

# What may stand in place of a value of a JSON file. 399 digits: no float holds them.
VALUES = (
    *(float("nan"), float("inf"), 1e308, -1e308, -1, 0, 1, 1.5, 10**399, -(10**399), True, None),
    *("", "x", "../x", "0", "\ud800", "\0", "é" * 300, [], {}, [[]], [None], {"x": 1}, [1, 2, 3]),
)
_DEPTHS = (60, 900, 100_000)


def _cut(path: pathlib.Path, draw: random.Random) -> str:
    size = path.stat().st_size
    kept = draw.randrange(1, size) if size > 1 else 0
    os.truncate(path, kept)
    return f"cut to {kept} of {size} bytes"


def _emptied(path: pathlib.Path, draw: random.Random) -> str:
    os.truncate(path, 0)
    return "emptied"


def _flipped(path: pathlib.Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    where, bits = draw.randrange(len(data)), draw.randrange(1, 256)
    data[where] ^= bits
    path.write_bytes(data)
    return f"byte {where} of {len(data)} xor {bits}"


def _zeros(path: pathlib.Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    start, end = _block(len(data), draw)
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    return f"zeros from byte {start} to {end} of {len(data)}"


def _repeated(path: pathlib.Path, draw: random.Random) -> str:
    data = path.read_bytes()
    start, end = _block(len(data), draw)
    path.write_bytes(data[:end] + data[start:end] + data[end:])
    return f"bytes {start} to {end} of {len(data)} twice"


def _block(size: int, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(size)
    return start, min(size, start + draw.choice((1, 16, 512, 4096)))


def _rubbish(path: pathlib.Path, draw: random.Random) -> str:
    path.write_bytes(draw.randbytes(draw.choice((1, 100, 5000))))
    return "binary rubbish"


def _another_kind(path: pathlib.Path, draw: random.Random) -> str:
    """The start of a file that another program understands."""
    kinds = {
        "text": b"Not found\n",
        "HTML": b"<!DOCTYPE html><html><body>Moved</body></html>\n",
        "a JSON list": b"[]",
        "a JSON object": b"{}",
        "a JSON number": b"1",
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "a zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(30),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(600),
        "a .mat": b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(100),
        "a pickle": b"\x80\x04]\x94.",
    }
    name = draw.choice(sorted(kinds))
    path.write_bytes(kinds[name])
    return f"{name} in its place"


def _folder(path: pathlib.Path, draw: random.Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def _fifo(path: pathlib.Path, draw: random.Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a fifo in its place"


def _dangling(path: pathlib.Path, draw: random.Random) -> str:
    path.unlink()
    path.symlink_to("nowhere")
    return "a dangling link in its place"


def _to_itself(path: pathlib.Path, draw: random.Random) -> str:
    path.unlink()
    path.symlink_to(path.name)
    return "a link to itself in its place"


def _missing(path: pathlib.Path, draw: random.Random) -> str:
    path.unlink()
    return "deleted"


# After these no file of the kind is left.
WHOLE = {
    "emptied": _emptied,
    "rubbish": _rubbish,
    "another kind": _another_kind,
    "folder": _folder,
    "fifo": _fifo,
    "dangling link": _dangling,
    "link to itself": _to_itself,
    "deleted": _missing,
}
BYTES = {"cut": _cut, "flipped": _flipped, "zeros": _zeros, "repeated": _repeated, **WHOLE}


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Path, as keys and indices, of every value inside a JSON value; itself is ()."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def a_place(value: object, draw: random.Random) -> tuple:
    """Draw a place, with the same chance for each kind of place: a list's entries are alike."""
    kinds: dict[tuple, list[tuple]] = {}
    for place in places(value)[1:]:
        kind = tuple("*" if isinstance(key, int) else key for key in place)
        kinds.setdefault(kind, []).append(place)
    return draw.choice(kinds[draw.choice(sorted(kinds))]) if kinds else ()


def replaced(document: object, place: tuple, value: object) -> object:
    """Return a copy of a JSON value with another value at a place."""
    if not place:
        return value
    document = copy.deepcopy(document)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return document


def _write(path: pathlib.Path, document: object) -> None:
    path.write_text(json.dumps(document))


def _value(path: pathlib.Path, draw: random.Random) -> str:
    document = json.loads(path.read_text())
    place, value = a_place(document, draw), draw.choice(VALUES)
    _write(path, replaced(document, place, value))
    return f"{list(place)} = {value!r:.40}"


def _removed(path: pathlib.Path, draw: random.Random) -> str:
    document = json.loads(path.read_text())
    parent = document
    *above, last = a_place(document, draw)
    for key in above:
        parent = parent[key]
    del parent[last]
    _write(path, document)
    return f"{[*above, last]} removed"


def _doubled(path: pathlib.Path, draw: random.Random) -> str:
    """An entry of a list twice; of an object, a key more."""
    document = json.loads(path.read_text())
    parent = document
    *above, last = a_place(document, draw)
    for key in above:
        parent = parent[key]
    if isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    else:
        parent[f"{last} "] = copy.deepcopy(parent[last])
    _write(path, document)
    return f"{[*above, last]} twice"


def _deep(path: pathlib.Path, draw: random.Random) -> str:
    """Brackets within brackets in place of a value, or of everything."""
    document, depth = json.loads(path.read_text()), draw.choice(_DEPTHS)
    place = draw.choice(((), a_place(document, draw)))
    text = json.dumps(replaced(document, place, "HERE"))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}")))
    path.write_text(text.replace('"HERE"', opening * depth + "1" + closing * depth))
    return f"{depth} brackets at {list(place)}"


# Three more chances for single values: there are more of them.
JSON = {
    **BYTES,
    "value": _value,
    "value again": _value,
    "value once more": _value,
    "removed": _removed,
    "doubled": _doubled,
    "deep": _deep,
}
