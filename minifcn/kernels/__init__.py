"""How a convolution is computed: arrays in, arrays out, no gradients recorded.

im2col.py        the windows of a convolution, and the readable adjoint pair im2col / col2im
fused.py         kernels in CUDA C for a GPU, each in place of many small ones
products.py      correlate, spread, weigh: the three products of a convolution over columns, in bounded memory
threads.py       a few threads that take blocks of work in turn
planes.py        work on single pixels (pooling, the masks of ReLU) a few planes at a time
blocks.py        the three products in blocks that fit into the cache, on all cores
depthwise.py     the three products where each channel is filtered alone, with banded matrices
lines.py         the three products of a thin layer, one matrix product for all kernel rows
winograd.py      the three products of a 3x3 convolution with a quarter of the multiplications
convolution.py   the public three products: check the arguments, choose the implementation
"""

FILES = (
    "im2col",
    "fused",
    "products",
    "threads",
    "planes",
    "blocks",
    "depthwise",
    "lines",
    "winograd",
    "convolution",
    "memory",
)
