"""What a data set is, and data sets that are made from others.

`Dataset` lists all that training and evaluation ask of one; a class with those members is a data set and inherits from
nothing. A `Wrapper` shows another data set with something changed: `Subset` and `Cached` here, `Second` and `Hidden` in
`inputs.py`.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from minifcn.data.prefetch import Prefetch
from minifcn.data.sample import Sample
from minifcn.errors import DataError


class Pictured(Protocol):
    """Anything with an `image`."""

    @property
    def image(self) -> np.ndarray:
        """The picture (H, W, 3) uint8, red first."""


class Pictures(Protocol):
    """Pictures by number, labelled in whatever way: a `Dataset`, or `Objects`, whose pictures have one class each."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pictured: ...


class Dataset(Pictures, Protocol):
    """Labelled pictures by number: `dataset[i]` is the `Sample` called `dataset.ids[i]`.

    A data set with a second kind of label (`Sample.geometry`) names its classes in `geometry_classes`, too; one without
    may leave that out, and `Wrapper` then gives it as ().
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; the index is the class."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the pictures."""

    def __getitem__(self, index: int, /) -> Sample: ...


class Wrapper:
    """The same pictures and names as `dataset`; a subclass overrides what it changes, usually `__getitem__`."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.classes, self.ids = dataset.classes, dataset.ids
        self.geometry_classes: tuple[str, ...] = getattr(dataset, "geometry_classes", ())
        self.image_bits: int = getattr(dataset, "image_bits", 16)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]

    def unchanged(self, index: int) -> bool:
        """Return whether the files of a picture are those that `minifcn data check` found good."""
        inner = getattr(self.dataset, "unchanged", None)
        return inner is not None and inner(index)


class Subset(Wrapper):
    """Some pictures of a data set, in the order given."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        super().__init__(dataset)
        self.indices = tuple(range(len(dataset))[index] for index in indices)
        self.ids = tuple(dataset.ids[index] for index in self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def unchanged(self, index: int) -> bool:
        return super().unchanged(self.indices[index])


class Cached(Wrapper):
    """A data set that keeps what it has read, up to `limit` bytes: no picture is decoded twice, or drawn twice."""

    def __init__(self, dataset: Dataset, *, limit: int = 1 << 30) -> None:
        super().__init__(dataset)
        self._kept: dict[int, Sample] = {}
        self._room = limit
        self._lock = threading.Lock()  # samples are loaded on several threads

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        sample = self.dataset[index]
        size = sum(plane.nbytes for plane in vars(sample).values() if isinstance(plane, np.ndarray))
        with self._lock:
            if size <= self._room and index not in self._kept:
                self._kept[index] = sample
                self._room -= size
        return sample

    def faults(
        self,
        part: slice = slice(None),
        look: Callable[[Sample], None] = lambda sample: None,
        *,
        every: bool = False,
        workers: int = 0,
    ) -> list[str]:
        """Read the samples of this part once, and return what is wrong with those that cannot be read.

        `look` is called with each sample, in order; `workers` threads load them in advance. Those that were checked
        before and have not changed since are not read, unless `every` sample is wanted.
        """
        found, indices = [], range(len(self))[part]

        def read(index: int) -> Sample | None:
            return self[index] if every or not self.unchanged(index) else None

        with Prefetch(read, workers=workers) as prefetch:
            for place, index in enumerate(indices):
                try:
                    if (sample := prefetch.take(index, indices[place + 1 :])) is not None:
                        look(sample)
                except DataError as fault:
                    found.append(str(fault))
        return found

    def refuse(self, faults: Sequence[str]) -> None:
        """Raise `DataError` if there are faults: a broken file should be found now, and not in an hour."""
        if faults:
            which = f"{faults[0]} (the first of {len(faults)} such among {len(self)} images)"
            raise DataError(f"{which}; fix them, or leave them out with `skip_bad=True`")
