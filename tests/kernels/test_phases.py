"""The phases of an image hold each pixel once, and a tap sees in them what it sees in the columns of `im2col`."""

import numpy as np
import pytest

from minifcn.kernels.im2col import Windows, im2col
from minifcn.kernels.phases import Phases

GEOMETRIES = {
    "3x3, stride 2": Windows((3, 3), (2, 2)),
    "2x2, stride 2": Windows((2, 2), (2, 2)),
    "stride 1": Windows((3, 2)),
    "padded": Windows((3, 3), (2, 2), padding=(1, 1)),
    "padded more than the stride": Windows((4, 4), (2, 3), padding=(3, 2)),
    "dilated": Windows((3, 3), (2, 2), padding=(1, 2), dilation=(2, 3)),
    "stride above the kernel": Windows((2, 1), (3, 4)),
}


@pytest.fixture(params=GEOMETRIES, name="g")
def geometry(request: pytest.FixtureRequest) -> Windows:
    return GEOMETRIES[request.param]


def image(rows: int = 9, cols: int = 10) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, rows, cols))


def test_split_and_join_are_inverse(g: Windows) -> None:
    x = image()
    phases = Phases(g, x.shape[2:], g.out_size(x.shape[2:]))
    cells = phases.split(x, np.nan)
    assert np.count_nonzero(~np.isnan(cells)) == x.size
    again = np.full_like(x, np.nan)
    phases.join(cells, again)
    assert np.array_equal(again, x)


def test_a_tap_sees_what_it_sees_in_the_columns(g: Windows) -> None:
    x = image()
    out = g.out_size(x.shape[2:])
    phases, columns = Phases(g, x.shape[2:], out), im2col(x, g)
    cells = phases.split(x, 0.0)
    asked = phases.line(np.ones((*x.shape[:2], *out))) == 1
    taps = list(phases.taps(len(asked)))
    assert len(taps) == g.kernel[0] * g.kernel[1]
    for (phase, seen), column in zip(taps, columns.reshape(3, -1, 2, *out).swapaxes(0, 1), strict=True):
        assert np.array_equal(cells[phase][seen][asked], column.swapaxes(0, 1).ravel())


def test_windows_may_hang_over_the_lower_edge() -> None:
    x, g = image(6, 6), Windows((3, 3), (2, 2))
    phases = Phases(g, (6, 6), (3, 3))  # one more than fit, each way, as ceil mode has it
    cells, asked = phases.split(x, -1.0), phases.line(np.ones((2, 3, 3, 3))) == 1
    phase, seen = list(phases.taps(len(asked)))[-1]
    corner = cells[phase][seen][asked].reshape(2, 3, 3, 3)
    assert np.array_equal(corner[:, :, :2, :2], x[:, :, 2::2, 2::2]) and (corner[:, :, 2] == -1).all()
