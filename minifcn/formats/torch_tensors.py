"""Rebuild PyTorch tensors, which are strided views of storages, within bounds.

    element (i, j, ...) of the tensor  =  storage[offset + i * strides[0] + j * strides[1] + ...]

That is how a transposed or cropped tensor costs no copy. In a file the storages are plain numbers, outside of the
pickle; the pickle holds the views, and names inside nested dicts. Nothing makes sure that a view stays inside its
storage but the check below: a reader that hands offset and strides to `as_strided` unchecked hands out the memory of
the process, and a negative stride or a product that overflows is no less wrong than a large one.

This is what both of PyTorch's file formats share; `torch_zip.py` and `torch_legacy.py` find pickle and storages.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.formats.limits import MAX_NAME, MAX_RANK, Collected, Cursor, from_bfloat16, nbytes_of, refusal
from minifcn.formats.opcodes import MAX_WORDS, SAVE_STATE, Machine, Name

# Little endian here; a zip may say otherwise of itself. bfloat16 goes by its bits, NumPy having no such type.
KINDS: dict[str, np.dtype] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype("<u2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
MAX_DEPTH = 16
SINGLE = "tensor"  # the name of a tensor that was saved alone


@dataclass(frozen=True)
class Storage:
    """Numbers outside of the pickle: of which kind, under which key, and how many."""

    kind: str
    key: str
    numel: int

    @property
    def dtype(self) -> np.dtype:
        return KINDS[self.kind]


@dataclass(frozen=True)
class View:
    """A tensor as the pickle describes it, which has been checked: it lies inside its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(cursor: Cursor) -> tuple[Any, dict[str, Storage]]:
    """Return what a pickle holds, with `View`s instead of tensors, and the storages that it refers to, by key."""
    storages: dict[str, Storage] = {}
    machine = Machine(
        cursor,
        functions={
            "torch._utils._rebuild_tensor": partial(_rebuild_tensor, cursor.path),
            "torch._utils._rebuild_tensor_v2": partial(_rebuild_tensor_v2, cursor.path),
            "torch._utils._rebuild_parameter": partial(_rebuild_parameter, cursor.path),
        },
        constants=frozenset(KINDS),
        persistent=partial(_storage, cursor.path, storages),
    )
    return machine.run(), storages


def _storage(path: Path, storages: dict[str, Storage], reference: Any) -> Storage:
    """Return the storage behind `("storage", kind, key, device, numel)`; old files add a None."""
    if type(reference) is not tuple or [type(each) for each in reference[:5]] != [str, Name, str, str, int]:
        raise refusal(path, "storage", "another reference", "its kind, key, device and size", then=SAVE_STATE)
    _, kind, key, _, numel = reference[:5]
    if reference[0] != "storage" or reference[5:] not in ((), (None,)):
        raise refusal(path, "storage", "a view of another storage", "a storage of its own", then=SAVE_STATE)
    if kind.text not in KINDS:
        raise refusal(path, "storage", f"the kind {kind.text}", "numbers")
    nbytes_of(path, "storage", (numel,), KINDS[kind.text])
    storage = Storage(kind.text, key, numel)
    if storages.setdefault(key, storage) != storage:
        raise refusal(path, f"storage {key}", "two kinds or sizes", "one")
    return storage


def _rebuild_tensor(path: Path, arguments: tuple[Any, ...]) -> View:
    """Return the view that the arguments `(storage, offset, sizes, strides)` describe, checked."""
    if [type(each) for each in arguments] != [Storage, int, tuple, tuple]:
        raise refusal(path, "tensor", "other arguments", "a storage, an offset, sizes and strides")
    storage, offset, shape, strides = arguments
    field = f"tensor in storage {storage.key}"
    if not len(shape) == len(strides) <= MAX_RANK:
        raise refusal(path, field, f"{len(shape)} sizes and {len(strides)} strides", f"as many, at most {MAX_RANK}")
    if any(type(each) is not int or each < 0 for each in (offset, *shape, *strides)):
        raise refusal(path, field, "a negative number, or none", "an offset, sizes and strides of at least 0")
    nbytes_of(path, field, shape, storage.dtype)
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) if count else offset - 1
    if last >= storage.numel:
        raise refusal(path, field, f"element {last}", f"one of the {storage.numel} of the storage")
    if count > storage.numel:  # stride 0 repeats: a storage of one element would fill any memory
        raise refusal(path, field, f"{count} elements", f"at most the {storage.numel} of the storage")
    return View(storage, offset, shape, strides)


def _rebuild_tensor_v2(path: Path, arguments: tuple[Any, ...]) -> View:
    """Return the same; requires_grad follows. Hooks, and marks like "negative" in newer files, are refused."""
    view = _rebuild_tensor(path, arguments[:4])
    extra = arguments[4:]
    if not 2 <= len(extra) <= 3 or type(extra[0]) is not bool or not all(each in (None, {}) for each in extra[1:]):
        raise refusal(path, f"tensor in storage {view.storage.key}", "hooks or marks", "plain numbers", then=SAVE_STATE)
    return view


def _rebuild_parameter(path: Path, arguments: tuple[Any, ...]) -> View:
    """Return the tensor of the arguments `(tensor, requires_grad, hooks)`."""
    if [type(each) for each in arguments] != [View, bool, dict] or arguments[2]:
        raise refusal(path, "parameter", "other arguments", "a tensor without hooks", then=SAVE_STATE)
    view: View = arguments[0]
    return view


def collect(found: Collected, top: Any, numbers: Callable[[Storage], np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors in what a pickle holds, as arrays: nested names joined by dots, everything else passed over.

    numbers: gives the elements of a storage, a flat array of `storage.dtype` in either byte order.
    """
    storages: dict[str, np.ndarray] = {}
    for name, view in _tensors(found.path, top):
        key = view.storage.key
        if key not in storages:
            raw = numbers(view.storage)
            storages[key] = from_bfloat16(raw) if view.storage.kind == "torch.BFloat16Storage" else raw
        found.add(name, _array(storages[key], view))
    if not found.arrays:
        raise refusal(found.path, "pickle", "no tensors", "a state dict", then=SAVE_STATE)
    return found.arrays


def _tensors(path: Path, top: Any) -> Iterator[tuple[str, View]]:
    """Yield every tensor with its name, in the file's order. A dict may hold itself: depth and visits are counted."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), top)]
    visits = 0
    while waiting:
        keys, value = waiting.pop()
        visits += 1
        if type(value) is View:
            yield ".".join(map(str, keys)) or SINGLE, value
            continue
        if type(value) is dict:
            inside = list(value.items())
        elif type(value) in (list, tuple):
            inside = list(enumerate(value))
        else:
            continue
        if len(keys) >= MAX_DEPTH or visits + len(waiting) + len(inside) > MAX_WORDS:
            found = "nested too deep or too widely"
            raise refusal(path, "pickle", found, f"at most {MAX_DEPTH} levels", then=SAVE_STATE)
        if any(type(key) is str and len(key) > MAX_NAME for key, _ in inside):
            raise refusal(path, "names", "a longer one", f"at most {MAX_NAME} letters")
        waiting.extend(((*keys, key), each) for key, each in reversed(inside))


def _array(numbers: np.ndarray, view: View) -> np.ndarray:
    """Return the view, read-only; NumPy checks the bounds once more."""
    # The stride of a size of 0 or 1 is never taken, and may be any number.
    strides = [
        stride * numbers.itemsize if size > 1 else numbers.itemsize for size, stride in zip(view.shape, view.strides)
    ]
    offset = view.offset * numbers.itemsize if math.prod(view.shape) else 0
    array = np.ndarray(view.shape, numbers.dtype, numbers.data, offset=offset, strides=strides)
    array.flags.writeable = False
    return array
