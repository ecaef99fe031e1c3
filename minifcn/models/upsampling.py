"""Nonlinear upsampling: small deconvolutions with ReLUs in place of one bilinear kernel.

"A stack of deconvolution layers and activation functions can even learn a nonlinear upsampling" (FCN, section 3.3).
This one starts where bilinear upsampling would, doubling by doubling, so that the two can be compared from one start:
a ReLU would cut the negative scores off, so the first step sends on every score x as the pair x and -x, of which one
survives, and the last step puts the pair together again: relu(x) - relu(-x) = x.
"""

import numpy as np

from minifcn import ops
from minifcn.errors import UsageError
from minifcn.geometry import Grid, Layer
from minifcn.models.fcn import FCN
from minifcn.nn import ConvTranspose2d, Module, Upsample, bilinear
from minifcn.tensor import Tensor


class Deconvolutions(Module):
    """Upsamples `channels` maps by `layer.stride`, a power of two, onto the very grid and size of `Upsample` there.

    Raises `UsageError` for a stride that is no power of two.
    """

    def __init__(self, channels: int, layer: Layer) -> None:
        count = layer.stride.bit_length() - 1
        if layer.stride != 2**count or count < 1:
            raise UsageError(f"Deconvolutions: stride is {layer.stride}; expected a power of two, to be doubled up to")
        self.layer, self.names = layer, [f"double{i}" for i in range(1, count + 1)]
        kernel = 4 if layer.kernel % 2 == 0 else 3  # on half pixels or on pixels, like the kernel it replaces
        for i, name in enumerate(self.names):
            incoming, outgoing = (channels if end else 2 * channels for end in (i == 0, i == count - 1))
            step = ConvTranspose2d(incoming, outgoing, kernel, stride=2, padding=1, init="zero")
            step.w.data[...] = pairs(incoming, outgoing)[:, :, None, None] * bilinear(kernel)
            setattr(self, name, step)
        stack = [Layer(kernel, 2, 1, transpose=True)] * count
        # Padded by 1, the steps keep to the cells' own area; what the kernel paints beyond it is left at 0 here.
        self.border = -Grid.of(stack).offset(Grid().through(layer), name="the stack", other_name="the kernel")

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
            if name != self.names[-1]:
                x = ops.relu(x)
        return ops.pad(x, padding=self.border)

    def layers(self) -> list[Layer]:
        """Return its upsamplings, one after another."""
        return [self.layer]


def pairs(incoming: int, outgoing: int) -> np.ndarray:
    """Return a matrix (I, O): x to (x, -x) where channels double, the pair to x where they halve, else the identity."""
    if incoming == outgoing:
        return np.eye(incoming, dtype=np.float32)
    one = np.eye(min(incoming, outgoing), dtype=np.float32)
    return np.concatenate([one, -one], axis=int(outgoing > incoming))


def nonlinear(net: FCN) -> FCN:
    """Replace each upsampling of an FCN by a stack and return the FCN. One that only doubles is one learned kernel."""
    for name, module in list(vars(net).items()):
        if isinstance(module, Upsample):
            channels = net.classes if isinstance(net.classes, int) else net.classes[name.rsplit("_", 1)[1]]
            setattr(net, name, Deconvolutions(channels, module.layer))
    return net
