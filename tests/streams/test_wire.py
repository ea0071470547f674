"""What travels between the stages is told by its headers; a stranger's record must not stop them."""

from __future__ import annotations

import pytest

from streams.wire import header, kind_of


def test_headers_say_what_a_record_is_and_of_which_partition() -> None:
    assert kind_of(header("closed", 3)) == ("closed", 3)
    assert kind_of(header("grave")) == ("grave", -1)


@pytest.mark.parametrize("number", [b"x", b"", None, b"1e9", b"9" * 40, b"\xb2", b"-7"])
def test_a_strangers_headers_are_read_as_nobodys(number: bytes | None) -> None:
    assert kind_of([("tocsin-partition", number), ("tocsin-type", None)]) == ("", -1)
    assert kind_of([]) == ("", -1)
