"""Data sets made from others: what is not changed is passed on."""

from dataclasses import replace

import numpy as np
import pytest

from minifcn.data import Sample, Shapes
from minifcn.data.dataset import Cached, Subset, Wrapper
from minifcn.data.inputs import Hidden, Second
from minifcn.errors import DataError, UsageError

WORLD = Shapes("train", count=2)
EVERY = {
    "wrapper": lambda data: Wrapper(data),
    "subset": lambda data: Subset(data, range(2)),
    "cached": lambda data: Cached(data),
    "hidden": lambda data: Hidden(data, "both", fill=(0, 0, 0)),
}


class WithoutSecond(Wrapper):
    """The world, whose second labels are lost although their classes are named."""

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), geometry=None)


@pytest.mark.parametrize("kind", EVERY)
def test_a_wrapper_passes_on_what_it_does_not_change(kind: str) -> None:
    wrapped = EVERY[kind](EVERY[kind](WORLD))
    assert (wrapped.classes, wrapped.geometry_classes, wrapped.ids) == (
        Shapes.classes,
        Shapes.geometry_classes,
        WORLD.ids,
    )
    assert len(wrapped) == 2 and [wrapped[i].id for i in range(2)] == list(WORLD.ids)
    assert Second(wrapped).classes == Shapes.geometry_classes and len(Second(wrapped)) == 2
    np.testing.assert_array_equal(Second(wrapped)[1].label, WORLD[1].geometry)


def test_second_labels_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="asks for a second kind of label"):
        Second(Second(WORLD))
    with pytest.raises(DataError, match="train-000001: has no second labels"):
        Second(WithoutSecond(WORLD))[1]
