"""What a network computes: each op is one function with one named gradient per input.

Read the files in this order; each imports only those before it.
"""

from minifcn.ops.activation import dropout, log_softmax, relu, sigmoid, softmax, tanh
from minifcn.ops.arithmetic import abs, add, clip, div, exp, log, matmul, maximum, mul, neg, power, sqrt, sub, where
from minifcn.ops.arrays import concat, crop, getitem, max, mean, min, pad, reshape, stack, sum, transpose
from minifcn.ops.conv import conv2d, conv_transpose2d
from minifcn.ops.loss import dice_loss, focal_loss, softmax_cross_entropy
from minifcn.ops.norm import batch_norm, l2_normalize, local_response_norm
from minifcn.ops.pool import avg_pool2d, max_pool2d
from minifcn.ops.resize import bilinear_resize, bilinear_upsample, nearest_resize
from minifcn.ops.shift_and_stitch import shift, stitch

FILES = (
    "checks",
    "arithmetic",
    "arrays",
    "activation",
    "conv",
    "pool",
    "norm",
    "resize",
    "loss",
    "shift_and_stitch",
)
