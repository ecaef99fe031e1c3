"""The check that most refusals begin with."""

import numpy as np
import pytest

from minifcn.errors import whole


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (3, True),
        (1, True),
        (5, True),
        (np.int64(4), True),
        (np.uint8(4), True),
        (0, False),
        (6, False),
        (True, False),
        (np.True_, False),
        (3.0, False),
        (np.float32(3), False),
        ("3", False),
        (None, False),
        ((3,), False),
    ],
)
def test_a_whole_number_lies_within_its_bounds(value: object, known: bool) -> None:
    assert whole(value, least=1, most=5) is known


def test_a_whole_number_may_be_as_large_as_it_likes() -> None:
    assert whole(2**100, least=0) and not whole(2**64, least=0, most=2**64 - 1) and whole(2**64 - 1, least=0)
    assert not whole(np.int8(-1), least=0)
