"""Fully Convolutional Networks for Semantic Segmentation (Long, Shelhamer, Darrell), from scratch in NumPy.

net = minifcn.FCN8s(classes=21, width=16, seed=0)
opt = minifcn.SGD(net, lr=0.02)
loss = minifcn.ops.softmax_cross_entropy(net(x), labels)
loss.backward()
opt.step()
"""

import signal as _signal
import sys as _sys

__version__ = "0.1.0"

# `minifcn` and `python -m minifcn`: Ctrl-C during the imports below ends at once, without a traceback. From the guard
# of cli/command.py on it is an exception again. A program that imports this library keeps its own handler.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler and (
    _sys.argv[0].replace("\\", "/").endswith("/minifcn")
    or (_sys.argv[0] == "-m" and any(word.partition(".")[0] == "minifcn" for word in _sys.orig_argv))
):
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from minifcn import ops
from minifcn.geometry import Grid, Layer
from minifcn.introspect import detective as _detective
from minifcn.introspect import notebook as _notebook
from minifcn.introspect.figure import figure
from minifcn.kernels.convolution import convolution
from minifcn.metrics import ConfusionMatrix
from minifcn.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from minifcn.optim import SGD
from minifcn.tensor import OPS, Parameter, Tensor, no_grad, op

_detective.register()
_notebook.register()

__all__ = [
    "FCN",
    "OPS",
    "SGD",
    "ConfusionMatrix",
    "FCN8s",
    "FCN16s",
    "FCN32s",
    "Grid",
    "Layer",
    "Parameter",
    "Tensor",
    "convolution",
    "figure",
    "no_grad",
    "op",
    "ops",
]
