"""Hostile containers by kind: nesting, bombs, truncations, links, names, dictionary pages, in 16 formats of files.

Each is small, and none is more than damage: what they cost is what a parser makes of them. `benchmarks.hostile_files`
sends all of them, the tests a share.
"""

import bz2
import gzip
import io
import json
import random
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

ROW = {"caption": "a cat", "jpg_0": b"\xff\xd8 no image", "jpg_1": b"\xff\xd8 nor this", "label_0": 1.0, "label_1": 0.0}
TEXT_ROW = {**ROW, "jpg_0": "a.png", "jpg_1": "b.png"}
_DEEP = 100_000
_METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file by its kind. `is_harmless`: some of its rows may be taken, or left out one by one, without a word more."""

    kind: str
    name: str
    content: bytes
    is_harmless: bool = False


def hostile_files(*, with_large: bool = True) -> Iterator[Hostile]:
    """Iterate over all kinds, each made when it is asked for. `with_large`: those too that take seconds to make."""
    for make in (_json, _parquet, _truncated, _arrow, _zips, _zip_headers, _tables):
        yield from make()
    if with_large:
        yield from _compressed()
        yield from _large()


def _line(**cells: Any) -> str:
    return json.dumps({**TEXT_ROW, **cells})


def _json() -> Iterator[Hostile]:
    deep = {"lists": ("[", "]"), "objects": ('{"a":', "}")}
    for what, (opened, closed) in deep.items():
        value = opened * _DEEP + "1" + closed * _DEEP
        text = _line(junk=0).replace('"junk": 0', f'"junk": {value}')
        yield Hostile(f"nested {what}, line", "deep.jsonl", text.encode())
        yield Hostile(f"nested {what}, list", "deep.json", f"[{text}]".encode())
        second = "\n".join((_line(junk=0), text))
        yield Hostile(f"nested {what}, second line", "deep.jsonl", second.encode(), is_harmless=True)
        yield Hostile(f"nested {what}, never closed", "open.json", (opened * _DEEP).encode())
    thrice = json.dumps({**TEXT_ROW, "caption": json.loads("[" * 200 + "]" * 200)})
    yield Hostile("nested below the parser's limit", "deep.jsonl", thrice.encode())
    yield Hostile("a million values in a cell", "wide.jsonl", _line(caption=[0] * 1_000_000).encode())
    digits = _line(caption="N").replace('"N"', "9" * 1_000_000)
    yield Hostile("number of a million digits", "digits.jsonl", digits.encode())
    yield Hostile("number of a million digits, list", "digits.json", f"[{digits}]".encode())
    yield Hostile("duplicate keys", "twice.jsonl", (_line()[:-1] + ', "caption": [[1]]}').encode(), is_harmless=True)
    yield Hostile("lone surrogates", "half.jsonl", _line(caption="\ud800\udfff\udbff").encode(), is_harmless=True)
    yield Hostile("NUL bytes", "nul.jsonl", b"\0" * 100_000)
    yield Hostile("NUL in names", "nul.jsonl", _line(jpg_0="a\0.png", caption="\0").encode(), is_harmless=True)
    yield Hostile("not a number", "nan.jsonl", _line(label_0="N").replace('"N"', "NaN").encode(), is_harmless=True)
    yield Hostile("1e400", "inf.jsonl", _line(label_0="N").replace('"N"', "1e400").encode(), is_harmless=True)
    yield Hostile("UTF-16", "wide.jsonl", f"{_line()}\n{_line()}".encode("utf-16"), is_harmless=True)
    yield Hostile("UTF-16, list", "wide.json", f"[{_line()}]".encode("utf-16"))
    yield Hostile("Latin-1", "latin.json", '[{"caption": "\xe9"}]'.encode("latin-1"))
    yield Hostile("cut off", "cut.json", f"[{_line()}, {_line()}"[:-9].encode())
    yield Hostile("only blank lines", "blank.jsonl", b"\n" * 1_000_000)
    yield Hostile("a million empty objects", "empty.jsonl", b"{}\n" * 1_000_000)
    string: dict[str, Any] = {"prompt": "x", "image_path": "a" * 100_000, "rank": None}
    yield Hostile("five billion pairs of one string", "ranked.jsonl", json.dumps(string).encode(), is_harmless=True)
    listed: dict[str, Any] = {"prompt": "x", "image_path": ["a.png"] * 40_000, "rank": [1] * 40_000}
    yield Hostile("800 million pairs of one list", "ranked.jsonl", json.dumps(listed).encode(), is_harmless=True)
    whole = _line(label_0="N").replace('"N"', "9" * 400)
    yield Hostile("label of 400 digits", "large.jsonl", whole.encode(), is_harmless=True)
    vote = {"created_at": "0001-01-01T00:00:00+14:00", "elapsed_ms": 10**400, "annotator": "x", "outcome": "a"}
    yield Hostile("vote before the first year", "vote.jsonl", _line(**vote).encode(), is_harmless=True)
    yield Hostile("scalars", "scalars.json", b"[1, 2, null]")
    yield Hostile("names files elsewhere", "paths.jsonl", _line(jpg_0="/etc/passwd", jpg_1="../../x").encode(), True)
    yield Hostile("empty file", "empty.jsonl", b"")
    yield Hostile("empty file", "empty.json", b"")
    yield Hostile("a zip by another name", "zip.jsonl", zipped({"a.jsonl": b"{}"}))


def _compressed() -> Iterator[Hostile]:
    """Compressed lines, as they lie on the hub; the page takes them in a zip."""
    bomb = b"\n" * (200 << 20)
    many = (_line() + "\n").encode() * 100_000
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "zst": _zstd}
    for ending, pack in packers.items():
        yield Hostile(f"200 MB of blank lines, {ending}", "bomb.zip", zipped({f"train.jsonl.{ending}": pack(bomb)}))
        yield Hostile(
            f"a line of 200 MB, {ending}", "bomb.zip", zipped({f"train.jsonl.{ending}": pack(b"x" * len(bomb))})
        )
        yield Hostile(f"more rows than bytes, {ending}", "bomb.zip", zipped({f"train.jsonl.{ending}": pack(many)}))
        cut = pack((_line() + "\n").encode() * 10)[:-20]
        yield Hostile(f"cut off, {ending}", "cut.zip", zipped({f"train.jsonl.{ending}": cut}), is_harmless=True)


def _large() -> Iterator[Hostile]:
    """Kinds that take long to make."""
    yield Hostile("line of 50 MB", "long.jsonl", _line(caption="x" * (50 << 20)).encode())
    yield Hostile("record of 50 MB", "long.json", f"[{_line(caption='x' * (50 << 20))}]".encode())
    yield Hostile("a million columns", "wide.jsonl", json.dumps({str(n): n for n in range(1_000_000)}).encode())
    yield Hostile("dictionary page of 40 MB rows", "a.parquet", dictionary_bomb("caption", 300, 40 << 20))
    big = table(9000, caption=pa.array(["y" * 300_000] * 9000))
    yield Hostile("row group of 2.7 GB", "a.parquet", parquet_bytes(big, compression="zstd", use_dictionary=False))
    wide = table(1, **{f"c{n}": [1] for n in range(20_000)})
    yield Hostile("20,000 columns", "a.parquet", parquet_bytes(wide))
    yield Hostile("zip, 600,000 entries", "z.zip", _many_entries(600_000))
    for what, method in _METHODS.items():
        bomb = zipped({"winners/1.png": bytes(300 << 20)}, method)
        yield Hostile(f"zip, 300 MB of zeros, {what}", "z.zip", bomb, is_harmless=True)


def _zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def table(rows: int = 3, **columns: Any) -> pa.Table:
    """A table of Pick-a-Pic's columns, some replaced or added."""
    return pa.table({**{name: [cell] * rows for name, cell in ROW.items()}, **columns})


def parquet_bytes(data: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(data, sink, **options)
    return sink.getvalue()


def dictionary_bomb(column: str, rows: int = 1000, size: int = 1 << 20) -> bytes:
    """A column of one string of `size` bytes, kept once and named by every row."""
    strings = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * size]))
    return parquet_bytes(table(rows, **{column: strings}), compression="zstd", store_schema=False)


def _nested_type(levels: int) -> pa.DataType:
    kind: pa.DataType = pa.int8()
    for _ in range(levels):
        kind = pa.list_(kind)
    return kind


def _parquet() -> Iterator[Hostile]:
    yield Hostile("dictionary page, unneeded column", "a.parquet", dictionary_bomb("junk"), is_harmless=True)
    yield Hostile("dictionary page, needed column", "a.parquet", dictionary_bomb("caption"), is_harmless=True)
    nothing = pa.nulls(3_000_000)
    yield Hostile("rows of nothing", "a.parquet", parquet_bytes(pa.table(dict.fromkeys(ROW, nothing))))
    deep = table(3, caption=pa.array([None] * 3, _nested_type(80)))
    yield Hostile("80 nested lists in the schema", "a.parquet", parquet_bytes(deep))
    value: Any = 1
    for _ in range(70):
        value = [value]
    yield Hostile("70 nested lists in a cell", "a.parquet", parquet_bytes(table(1, caption=pa.array([value]))))
    long = table(1, caption=pa.array([list(range(300_000))]))
    yield Hostile("300,000 values in a cell", "a.parquet", parquet_bytes(long))
    whole = parquet_bytes(table())
    yield Hostile("footer of 4 GB", "a.parquet", whole[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1")
    yield Hostile("footer of no bytes", "a.parquet", whole[:-8] + struct.pack("<I", 0) + b"PAR1")
    yield Hostile("footer of nonsense", "a.parquet", b"PAR1" + b"\x15\x99" * 5000 + struct.pack("<I", 10_000) + b"PAR1")
    thrift = b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07" + b"\0" * 64
    yield Hostile("thrift list of 2e9", "a.parquet", b"PAR1" + thrift + struct.pack("<I", len(thrift)) + b"PAR1")
    string = b"\x15\x02\x19\x2c\x48\xff\xff\xff\xff\x07" + b"\0" * 64
    yield Hostile("thrift string of 2 GB", "a.parquet", b"PAR1" + string + struct.pack("<I", len(string)) + b"PAR1")
    deep_footer = b"\x1c" * 200_000
    footer = struct.pack("<I", len(deep_footer)) + b"PAR1"
    yield Hostile("nested thrift", "a.parquet", b"PAR1" + deep_footer + footer)
    yield Hostile("encrypted footer", "a.parquet", whole[:-4] + b"PARE")
    yield Hostile("a zip by another name", "a.parquet", zipped({"a": b"x"}))
    yield Hostile("an image by another name", "a.parquet", b"\x89PNG\r\n\x1a\n" + bytes(100))
    yield Hostile("empty file", "a.parquet", b"")
    yield Hostile("8 bytes", "a.parquet", b"PAR1PAR1")
    no_rows = parquet_bytes(table(0))
    yield Hostile("no rows", "a.parquet", no_rows, is_harmless=True)
    other = table(2, label_0=pa.array(["left", None]), jpg_0=pa.array([[1], [2]]))
    yield Hostile("columns of other types", "a.parquet", parquet_bytes(other), is_harmless=True)
    pages = parquet_bytes(table(200, caption=[str(n) * 50 for n in range(200)]), compression="zstd")
    for place in (0.1, 0.3, 0.5):
        spoilt = bytearray(pages)
        at = int(len(pages) * place)
        spoilt[at : at + 64] = random.Random(at).randbytes(64)
        yield Hostile(f"damaged page at {place:.0%}", "a.parquet", bytes(spoilt), is_harmless=True)


def _truncated() -> Iterator[Hostile]:
    files = {
        "a.parquet": parquet_bytes(table(50)),
        "a.json": json.dumps([TEXT_ROW] * 50).encode(),
        "a.zip": zipped({"train.jsonl": (_line() + "\n").encode() * 50}),
    }
    for name, content in files.items():
        for share in (0.02, 0.25, 0.5, 0.9, 0.999):
            cut = content[: max(1, int(len(content) * share))]
            yield Hostile(f"truncated to {share:.1%}", name, cut)


def arrow_bytes(data: pa.Table, *, is_file: bool = False) -> bytes:
    sink = io.BytesIO()
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, data.schema) as writer:
        writer.write_table(data)
    return sink.getvalue()


def saved(state: Any, files: Mapping[str, bytes]) -> bytes:
    """A zip of a folder as `save_to_disk` makes it."""
    content = state if isinstance(state, bytes) else json.dumps(state).encode()
    return zipped({"data/state.json": content, **{f"data/{name}": file for name, file in files.items()}})


def _arrow() -> Iterator[Hostile]:
    good = arrow_bytes(table())
    named = {"_data_files": [{"filename": "a.arrow"}]}
    for elsewhere in ("../outside.arrow", "/etc/passwd", "a/../../b.arrow", "gone.arrow", "..", "", "\0.arrow"):
        state = {"_data_files": [{"filename": elsewhere}]}
        yield Hostile(f"state.json names {elsewhere!r}", "s.zip", saved(state, {"a.arrow": good}))
    states: tuple[Any, ...] = (
        {},
        7,
        [],
        None,
        {"_data_files": 3},
        {"_data_files": [3]},
        {"_data_files": []},
        b"{",
        b"",
    )
    for state in (*states, b"[" * _DEEP):
        yield Hostile(f"state.json is {str(state)[:20]}", "s.zip", saved(state, {"a.arrow": good}))
    lengths = {
        "metadata of 2 GB": b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        "negative length": b"\xff\xff\xff\xff\x00\x00\x00\x80",
    }
    for what, start in lengths.items():
        yield Hostile(f"arrow, {what}", "s.zip", saved(named, {"a.arrow": start + good[8:]}))
    for share in (0.1, 0.6, 0.95):
        cut = good[: int(len(good) * share)]
        yield Hostile(
            f"arrow, truncated to {share:.0%}", "s.zip", saved(named, {"a.arrow": cut}), is_harmless=share > 0.9
        )
    for seed in range(4):
        spoilt = bytearray(good)
        rng = random.Random(seed)
        for _ in range(30):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        content = saved(named, {"a.arrow": bytes(spoilt)})
        yield Hostile(f"arrow, 30 bytes changed ({seed})", "s.zip", content, is_harmless=True)
    nothing = arrow_bytes(pa.table(dict.fromkeys(ROW, pa.nulls(50_000_000))))
    yield Hostile("arrow, 50 million rows of nothing", "s.zip", saved(named, {"a.arrow": nothing}))
    yield Hostile("arrow file, good", "s.zip", saved(named, {"a.arrow": arrow_bytes(table(), is_file=True)}), True)
    yield Hostile("arrow, no arrow", "s.zip", saved(named, {"a.arrow": b"ARROW1\0\0" + bytes(100)}))


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def _entry(name: str, content: bytes = b"x", **attributes: Any) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.jsonl", _line())
        info = zipfile.ZipInfo(name)
        for attribute, value in attributes.items():
            setattr(info, attribute, value)
        archive.writestr(info, content)
    return sink.getvalue()


def _zips() -> Iterator[Hostile]:
    names = {
        "name of 300 bytes": "n" * 300, "path of 5,000 bytes": "abcdefg/" * 600 + "x",
        "leads up": "../../x.jsonl", "absolute": "/tmp/x.jsonl", "drive": "C:/x.jsonl",
        "backslashes": "a\\..\\..\\x.jsonl", "200 folders": "d/" * 200 + "x",
        "control characters": "a\x1b[2J\n.jsonl", "right to left": "\u202etxt.exe",
    }  # fmt: skip
    for what, name in names.items():
        yield Hostile(f"zip, {what}", "z.zip", _entry(name), is_harmless=what == "right to left")
    kinds = {"link": stat.S_IFLNK, "device": stat.S_IFCHR, "pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}
    for what, kind in kinds.items():
        entry = _entry("train-2.jsonl", b"/etc/passwd", external_attr=(kind | 0o777) << 16, create_system=3)
        yield Hostile(f"zip, {what}", "z.zip", entry)
    pairs = {
        "file that is a folder": {"a": b"x", "a/b": b"y"}, "folder, then file": {"a/b": b"y", "a": b"x"},
        "two spellings": {"Train.jsonl": b"{}", "train.jsonl": b"{}"},
        "two forms of one letter": {"\u00e9": b"", "e\u0301": b""},
    }  # fmt: skip
    for what, files in pairs.items():
        yield Hostile(f"zip, {what}", "z.zip", zipped(files))
    inner = zipped({"winners/1.png": bytes(1 << 20)})
    for _ in range(6):
        inner = zipped({"inner.zip": inner})
    yield Hostile("zip, nested", "z.zip", inner)
    yield Hostile("zip, empty", "z.zip", zipped({}))
    yield Hostile("zip, comment of 64 kB with an end in it", "z.zip", _with_comment())
    yield Hostile("zip, nothing but its end", "z.zip", b"PK\x05\x06" + bytes(18))
    yield Hostile("zip, empty file", "z.zip", b"")
    yield Hostile("zip, data before it", "z.zip", b"#!/bin/sh\n" + zipped({"train.jsonl": _line().encode()}), True)


def _many_entries(count: int) -> bytes:
    """Central directory entries of one and the same file."""
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(entry) * count, len(local))
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(local) + len(entry) * count, 1)
    tail = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + entry * count + end + locator + tail


def _with_comment() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("train.jsonl", _line())
        archive.comment = (b"PK\x05\x06" + bytes(18)) * 2900
    return sink.getvalue()


def _zip_headers() -> Iterator[Hostile]:
    """Damage inside entries: methods, checksums, sizes, flags, and entries that share their bytes."""
    text = random.Random(0).randbytes(3000)
    for what, method in _METHODS.items():
        content = bytearray(zipped({"train.jsonl": text}, method))
        content[60:90] = random.Random(1).randbytes(30)
        yield Hostile(f"zip, damaged {what}", "z.zip", bytes(content))
    stored = zipped({"train.jsonl": _line().encode()}, zipfile.ZIP_STORED)
    central = stored.index(b"PK\x01\x02")
    changes: dict[str, tuple[int, bytes]] = {
        "wrong checksum": (central + 16, b"\1\2\3\4"), "password": (central + 8, b"\1\0"),
        "deflate64": (central + 10, b"\x09\0"), "unknown method": (central + 10, b"\xfe\0"),
        "AES": (central + 10, b"\x63\0"), "offset beyond the end": (central + 42, b"\xff\xff\xff\x7f"),
        "size of 4 GB": (central + 24, b"\xff\xff\xff\xfe"), "packed size of 4 GB": (central + 20, b"\xff\xff\xff\xfe"),
        "version 99": (central + 6, b"\x63\0"), "name of 60,000 bytes": (central + 28, b"\x60\xea"),
    }  # fmt: skip
    for what, (place, value) in changes.items():
        content = bytearray(stored)
        content[place : place + len(value)] = value
        harmless = what.endswith("4 GB") or what == "name of 60,000 bytes"
        yield Hostile(f"zip, {what}", "z.zip", bytes(content), harmless)
    yield Hostile("zip, entries that share their bytes", "z.zip", _overlapping())
    local_name = bytearray(stored)
    local_name[30:35] = b"other"
    yield Hostile("zip, two names of one entry", "z.zip", bytes(local_name))
    yield Hostile("zip, a million zeros of ratio 1,000", "z.zip", _entry("x.bin", bytes(1_000_000)), True)


def _overlapping() -> bytes:
    """Seventy names of one entry of 10 MB."""
    base = zipped({"a": bytes(10 << 20)})
    central, end = base.index(b"PK\x01\x02"), base.rindex(b"PK\x05\x06")
    entry = base[central:end]
    entries = b"".join(entry[:46] + bytes([48 + n]) + entry[47:] for n in range(70))
    tail = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 70, 70, len(entries), central, 0)
    return base[:central] + entries + tail


def _tables() -> Iterator[Hostile]:
    """Text and tables of prompts."""
    yield Hostile(
        "a million columns", "p.csv", ("prompt," + ",".join(map(str, range(1_000_000))) + "\na\n").encode(), True
    )
    yield Hostile("field of 3 MB", "p.csv", b"prompt\n" + b"x" * (3 << 20))
    yield Hostile("quote never closed", "p.csv", b'prompt\n"' + b"x,\n" * 500_000)
    yield Hostile("NUL bytes", "p.csv", b"prompt\na\0b\n\0\0", is_harmless=True)
    yield Hostile("UTF-16", "p.csv", "prompt\na cat\n".encode("utf-16"))
    yield Hostile("two columns of one name", "p.tsv", b"prompt\tprompt\na\tb\n", is_harmless=True)
    yield Hostile("empty file", "p.tsv", b"")
    yield Hostile("a million blank lines", "p.txt", b"\n" * 1_000_000, is_harmless=True)
    yield Hostile("line of 3 MB", "p.txt", b"x" * (3 << 20), is_harmless=True)
