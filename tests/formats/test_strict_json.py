"""JSON as it has to be: one meaning, finite numbers, and no more of it than is read in a moment."""

import json
from pathlib import Path

import pytest

from minifcn.errors import FormatError
from minifcn.formats.strict_json import MOST_DEPTH, MOST_LETTERS, parse_json, read_json


@pytest.mark.parametrize(
    "text",
    ['{"a": [1, -2.5e3, true, null, "\\u00e9"], "b": {"a": {}}}', "3", '"x"', "[]", "[" * MOST_DEPTH + "]" * MOST_DEPTH]
    + [str(2**128), '{"a": 1, "b": {"a": 1}}', f'"{"9" * 200}"'],
)
def test_what_is_json_is_read(text: str) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[1] 2", "Extra data"),
        ('{"a": 1, "b": 2, "a": 1}', "a key twice in one object, 'a'"),
        ('[{"b": {"\\u0061": 1, "a": 2}}]', "a key twice in one object, 'a'"),
        ("NaN", "NaN is no finite number"),
        ('{"a": [-Infinity]}', "-Infinity is no finite number"),
        ("1e400", "1e400 is no finite number"),
        ("-1" + "0" * 400, "a number of 402 digits, of at most 100"),
        ("9" * 100_000, "a number of 100000 digits"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "more than 50 levels in one another"),
        ('{"a":' * 51 + "1" + "}" * 51, "more than 50 levels in one another"),
        ("[" * 100_000, "more than 50 levels in one another"),
        ("[" + "[]," * 200_000 + "1]", "400001 marks in front of values, of at most 300000"),
        (" " * MOST_LETTERS + "1", "4194305 letters, of at most 4194304"),
    ],
)
def test_what_is_not_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory); expected a list"),
        (b"{}" + b" " * 99, "101 bytes; expected a list, a file of at most 100"),
        (b"[1]", "holds list; expected an object, a list"),
        (b'{"a": \xff}', "is not JSON in UTF-8 ("),
        (b'{"a": NaN}', "is not JSON in UTF-8 (NaN is no finite number); expected a list"),
    ],
)
def test_a_file_is_an_object_or_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_json(path, most=100, what="a list")
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json", most=100, what="a list") == {"a": 1}
    with pytest.raises(FormatError, match="bytes; expected a list"):
        read_json(tmp_path, most=10**6, what="a list")
