"""JSON files are read record by record, and give what Python's parser gives of the whole."""

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import UnreadableFileError
from dmpo_app.parsing import json_records
from dmpo_app.parsing.json_records import read_records

LIMITS = ParserLimits(row_mb=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def read(content: bytes, *, are_lines: bool = False) -> list[object]:
    return list(read_records(io.BytesIO(content), "a.json", LIMITS, are_lines=are_lines))


@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]), st.integers(1, 40))
def test_a_list_is_its_records_wherever_it_is_cut_into_pieces(
    values: list[Any], indent: int | None, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "_CHUNK", chunk)
        assert read(json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")) == values
        if values and not isinstance(values[0], list):
            assert read("\n".join(map(json.dumps, values)).encode()) == values


@settings(deadline=None, max_examples=40)
@given(st.lists(VALUES, max_size=6))
def test_lines_are_records_and_a_broken_one_costs_itself(values: list[Any]) -> None:
    lines = [json.dumps(value) for value in values]
    assert read("\n\n".join([*lines, "{broken", "[" * 5000]).encode(), are_lines=True) == [*values, None, None]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1, 2", "middle of its list"),
        (b"[1 2]", "expected a comma"),
        (b'["' + b"x" * (3 << 20) + b'"]', "record of more than 1 MB.*DMPO_PARSING__ROW_MB"),
        (b"[" * 100_000, "nested too deeply"),
        ('["é"]'.encode("latin-1"), "not UTF-8"),
        (b"[1, tru]", "was it cut off"),
    ],
)
def test_what_is_no_json_says_where_it_goes_wrong(content: bytes, said: str) -> None:
    with pytest.raises(UnreadableFileError, match=said):
        read(content)


def test_lines_have_a_longest_one_and_so_many_blank_ones() -> None:
    with pytest.raises(UnreadableFileError, match="number 2, of more than 1 MB"):
        read(b"1\n" + b" " * (2 << 20) + b"2", are_lines=True)
    with pytest.raises(UnreadableFileError, match="blank lines"):
        read(b"\n" * 200_000, are_lines=True)
