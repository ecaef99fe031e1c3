"""Keep what the frozen stages of a net make of each image, so that they compute it once.

Where the first stages of a trunk do not learn, each image comes out of them alike in every epoch, and in every run that
has the same weights there. `CachedFeatures` is the net with a folder of such outputs: it looks an image up by its
pixels, and computes only what is new.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from minifcn.backend import device_of, to_device, to_host
from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import load_checkpoint, pieces_of, replace_file
from minifcn.formats.limits import path_of
from minifcn.geometry import out_size
from minifcn.models.fcn import FCN
from minifcn.nn import Dropout, Module, evaluating
from minifcn.tensor import Tensor

LIMIT = 8 << 30  # bytes of a folder
Outputs = dict[str, np.ndarray]


class CachedFeatures(Module):
    """`net`, which keeps the outputs of its frozen first stages in `folder`, up to `limit` bytes.

    The scores of a batch are those of the net. Images of unequal size go through the frozen stages one by one, without
    the border that fills up the batch, as they do when the net is evaluated; their maps are filled up with zeros.

    A file has the name of a digest: of the frozen weights, the windows, and the numbers of the image as the net takes
    it. So other weights, another preprocessing or an augmentation find nothing. A file that is damaged is written
    again. When there is no more room, nothing is added. Several runs may share a folder.
    """

    def __init__(self, net: FCN, folder: str | Path, *, limit: int | None = None) -> None:
        """Raise `UsageError` where the first stage of the trunk learns, or has dropout."""
        self.net, self.folder, trunk = net, path_of(folder), net.trunk
        frozen = list(takewhile(self._is_constant, trunk.stages))
        self.stages = [trunk.stages[output] for output in frozen]
        self.parameters_kept = [p for stage in self.stages for p in getattr(trunk, stage).parameters()]
        if not self.parameters_kept:
            first = next(stage for stage in trunk.stages.values() if stage not in self.stages)
            raise UsageError(
                "option cache_features keeps the outputs of the trunk's first stages if they are frozen and without "
                f"dropout, and {first} is not; expected `freeze={first}`, `freeze=trunk` or the like, or nothing "
                'kept (`cache_features=""`)'
            )
        self.outputs = [output for output in frozen if output in net.skips or output == frozen[-1]]
        self._versions: list[tuple[int, int]] = []  # which arrays the weights are, and which version of each
        self._weights = b""
        self.limit = LIMIT if limit is None else limit
        self.room = self._measured()
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder}: found a file, expected a folder to keep features in, or a new name")

    def _measured(self) -> int:
        """Return how many bytes there is room for. When an eighth of it is used, it is measured again: others write."""
        used = 0
        for file in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):  # of another run, which has renamed it since
                used += file.stat().st_size
        room = self.limit - used
        self._count_again = room - room // 8
        return room

    def _is_constant(self, output: str) -> bool:
        stage = getattr(self.net.trunk, self.net.trunk.stages[output])
        random = (module for module in stage.modules() if isinstance(module, Dropout) and module.p > 0)
        return all(parameter.frozen for parameter in stage.parameters()) and not any(random)

    def bytes_for(self, size: tuple[int, int]) -> int:
        """Return how many bytes the outputs of an image of this height and width take."""
        return sum(4 * channels * height * width for channels, height, width in self._shapes(size).values())

    def _shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
        """Return the shapes (C, h, w) of the outputs for an image of this height and width, by name."""
        paths, channels, (height, width) = self.net.trunk.paths(), self.net.trunk.channels, size
        return {
            name: (channels[name], out_size(paths[name], height), out_size(paths[name], width)) for name in self.outputs
        }

    def forward(self, images: Tensor, *, sizes: Sequence[tuple[int, int]] = ()) -> Tensor:
        """Return the net's scores of a batch (N, C, H, W); `sizes` are the images' own, where some are filled up."""
        height, width = images.shape[2:]
        pairs = enumerate(sizes or [(height, width)] * len(images.data))
        found = [self._found(images.data[i : i + 1, :, :h, :w]) for i, (h, w) in pairs]
        begun = {}
        for name, shape in self._shapes((height, width)).items():
            maps = np.zeros((len(found), *shape), found[0][name].dtype)
            for place, one in zip(maps, found, strict=True):
                place[:, : one[name].shape[1], : one[name].shape[2]] = one[name]
            begun[name] = Tensor(to_device(maps, device_of(images.data)))
        return self.net(images, begun=begun)

    def _found(self, image: np.ndarray) -> Outputs:
        """Return the outputs (C, h, w) for an image (1, C, H, W), by name, computed if they are not kept."""
        file = self.folder / f"{self._key(to_host(image))}.safetensors"
        shapes = self._shapes((image.shape[2], image.shape[3]))
        with contextlib.suppress(FormatError, UsageError):  # not there, or damaged
            kept, _ = load_checkpoint(file)
            if {name: array.shape for name, array in kept.items()} == shapes:
                return kept
        trunk = self.net.trunk.until(self.outputs[-1])
        with evaluating(self.net):
            outputs = trunk(Tensor(image), keep=self.outputs)
        found = {name: np.array(to_host(outputs[name].data[0])) for name in self.outputs}
        pieces = pieces_of(file, found, {"outputs": self.outputs})
        size = sum(map(len, pieces))
        if size <= self.room:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                replace_file(file, pieces, sync=False)
                self.room -= size
                if self.room < self._count_again:
                    self.room = self._measured()
            except (OSError, UsageError):  # a full disk is a full cache
                self.room = 0
        return found

    def _key(self, image: np.ndarray) -> str:
        versions = [(id(parameter.data), parameter.leaf.version) for parameter in self.parameters_kept]
        if versions != self._versions:
            weights = hashlib.blake2b(repr([self.outputs, self.net.trunk.paths()[self.outputs[-1]]]).encode())
            for parameter in self.parameters_kept:
                weights.update(to_host(parameter.data).tobytes())
            self._versions, self._weights = versions, weights.digest()
        key = hashlib.blake2b(f"{image.dtype} {image.shape}".encode(), key=self._weights, digest_size=20)
        key.update(image.tobytes())
        return key.hexdigest()
