"""Solutions of notebook 08."""

from minifcn import ops
from minifcn.models.fcn import vgg_fcn


def offset(score, skip):
    return (score.start - skip.start) / skip.stride  # pixels between the two first cells, in cells


def rung(score, skip, w, b, at):
    score = ops.bilinear_upsample(score, kernel_size=4, stride=2)
    return score + ops.crop(ops.conv2d(skip, w, b), like=score, at=at)


def multiplier(c):
    # v = c*w: a step of w moves v by c times as much, and the gradient at w is c times that at v.
    return c**2, 1 / c**2  # and the decay of v, rate * decay, stays that of w


_net = vgg_fcn(("pool4", "pool3", "pool2"), width=1, padding=100, init="zero")
fcn4s = tuple(rung.at for rung in _net.ladder.rungs[2:])
