"""Softmax cross entropy over the pixels of an image, the loss of an FCN, and two losses to compare with it.

Because cross entropy is a sum over pixels, its gradient is the sum of the pixels' gradients: training on whole images
is training on every patch at once (FCN, sections 3.4 and 4.3).
"""

import math

from minifcn.backend import Array, finite, is_host, xp_of
from minifcn.errors import ShapeError
from minifcn.kernels import fused
from minifcn.kernels.planes import by_rows
from minifcn.ops.checks import images
from minifcn.tensor import ValueAndGradients, op

NORMALIZATIONS = ("none", "valid", "batch_size")


def check_labels(op: str, x: Array, labels: Array, ignore_index: int) -> None:
    """Refuse labels that do not fit. Their range is checked on the host only: CuPy would wait for the device."""
    wanted = (x.shape[0], *x.shape[2:])
    if labels.shape != wanted or labels.dtype.kind not in "iu":
        raise ShapeError(
            f"{op}: labels are {labels.dtype} {labels.shape}; expected whole numbers {wanted}, "
            f"one for each pixel of the scores {x.shape}"
        )
    if is_host(labels):
        wrong = labels[(labels != ignore_index) & ((labels < 0) | (labels >= x.shape[1]))]
        if wrong.size:
            raise ShapeError(
                f"{op}: label {int(wrong.flat[0])} found; expected 0..{x.shape[1] - 1}, "
                f"or {ignore_index} where a pixel is to be ignored"
            )


def counting(op: str, x: Array, labels: Array, ignore_index: int, sampling: Array | None) -> tuple[Array, Array]:
    """Return which pixels count (N, H, W), and the labels (N, 1, H, W), 0 where one does not."""
    images(x, op=op)
    check_labels(op, x, labels, ignore_index)
    if sampling is not None and sampling.shape != labels.shape:
        raise ShapeError(f"{op}: sampling has shape {sampling.shape}; expected {labels.shape}")
    counts = labels != ignore_index
    if sampling is not None:
        counts = counts & (sampling != 0)
    return counts, xp_of(x).where(counts, labels, 0)[:, None]  # 255 must never be used as an index


def log_softmax_where(x: Array, counts: Array) -> Array:
    """Return ln softmax of the scores where a pixel counts, of zeros elsewhere: an infinite score there has no say."""
    xp = xp_of(x)
    log_p = xp.where(counts[:, None], x, 0)
    log_p -= log_p.max(axis=1, keepdims=True)
    log_p -= xp.log(xp.exp(log_p).sum(axis=1, keepdims=True))
    return log_p


def weighted(
    op: str,
    x: Array,
    counts: Array,
    label: Array,
    weights: Array | None,
    normalize: str,
    divisor: int | None,
) -> Array:
    """Return the weight of each pixel in the loss (N, H, W), divided by Z."""
    if normalize not in NORMALIZATIONS:
        raise ShapeError(f"{op}: normalize is {normalize!r}; expected one of {', '.join(NORMALIZATIONS)}")
    if weights is not None and weights.shape != (x.shape[1],):
        raise ShapeError(f"{op}: weights have shape {weights.shape}; expected ({x.shape[1]},)")
    if divisor is not None:
        z = max(divisor, 1)
    elif normalize == "valid":
        z = xp_of(x).maximum(counts.sum(), 1).astype(x.dtype)
    else:
        z = 1 if normalize == "none" else x.shape[0]
    weight = counts.astype(x.dtype) if weights is None else counts * weights.astype(x.dtype)[label[:, 0]]
    return weight / z


def places(label: Array, channels: int) -> Array:
    """Return where the number of each pixel's label (N, 1, H, W) is in scores (N, C, H, W) that lie in one line."""
    n, _, h, w = label.shape
    first = xp_of(label).arange(n)[:, None] * (channels * h * w) + xp_of(label).arange(h * w)
    return label.astype("int64") * (h * w) + first.reshape(label.shape)  # in uint8, as masks come, it would wrap


@op
def softmax_cross_entropy(
    x: Array,
    labels: Array,
    *,
    ignore_index: int = 255,
    weights: Array | None = None,
    sampling: Array | None = None,
    normalize: str = "valid",
    divisor: int | None = None,
) -> ValueAndGradients:
    """loss = -1/Z sum_{n,i,j} m[n,i,j] w[l] ln softmax(x[n,:,i,j])_l with l = labels[n,i,j]: one number.

    x (N, C, H, W) scores; labels (N, H, W) whole numbers, `ignore_index` where a pixel has none. `weights` (C,) weighs
    the classes; `sampling` (N, H, W) of 0 and 1 keeps a sample of the pixels (section 4.3). Z is 1 (`normalize="none"`,
    the released nets), the number of pixels that count (`"valid"`), or N (`"batch_size"`), and never below 1: an image
    that is all void has loss 0 and gradient 0. Where x is a part of a batch, `divisor` is the Z of all of it: the
    losses of the parts then add up to the loss of the batch. The three are Caffe's NONE, VALID and BATCH_SIZE;
    `"none"` is PyTorch's `reduction="sum"`, and `"valid"` without weights its `"mean"`. Errors: `ShapeError`.
    """
    counts, label = counting("softmax_cross_entropy", x, labels, ignore_index, sampling)
    weight = weighted("softmax_cross_entropy", x, counts, label, weights, normalize, divisor)[:, None]
    if fused.serves(x):
        x = fused.whole(x)
        losses, kept = fused.softmax(x, label, weight)

        def grad_of_fused(gy):
            return fused.softmax_grad(gy, x, label, weight, kept)

        return losses.sum(), (grad_of_fused, None)
    xp = xp_of(x)
    e = xp.empty(x.shape, dtype=x.dtype)  # e^x, each pixel's largest being 1: a softmax p = e / total
    own, total = (xp.empty(weight.shape, dtype=x.dtype) for _ in range(2))

    def forward(part):
        top = x[part].max(axis=1, keepdims=True)
        below = x[part] - xp.where(xp.isfinite(top), top, math.nan)  # infinity minus infinity would warn
        own[part] = below.reshape(-1)[places(label[part], x.shape[1])]
        xp.exp(below, out=e[part])
        total[part] = e[part].sum(axis=1, keepdims=True)

    by_rows(forward, x)
    if not finite(own):  # an infinite score must not count where the pixel does not
        x = xp.where(weight != 0, x, 0)
        by_rows(forward, x)
    loss = ((xp.log(total) - own) * weight).sum()

    def grad_x(gy):
        gx, scale = xp.empty(e.shape, dtype=e.dtype), gy * weight

        def backward(part):
            xp.multiply(e[part], scale[part] / total[part], out=gx[part])

        by_rows(backward, e)
        gx.reshape(-1)[places(label, gx.shape[1])] -= scale  # p - 1 at the label, p elsewhere
        return gx

    return loss, (grad_x, None)


@op
def focal_loss(
    x: Array,
    labels: Array,
    *,
    gamma: float = 2.0,
    ignore_index: int = 255,
    weights: Array | None = None,
    sampling: Array | None = None,
    normalize: str = "valid",
    divisor: int | None = None,
) -> ValueAndGradients:
    """loss = -1/Z sum_{n,i,j} m[n,i,j] w[l] (1 - p)^gamma ln p with p = softmax(x[n,:,i,j])_l, l = labels[n,i,j].

    Cross entropy in which a pixel that is right already (p near 1) hardly counts, so that many easy pixels do not
    drown the few hard ones (Lin et al., 2017). `gamma` is at least 1; 0 would be cross entropy. The other options, and
    the errors, are those of `softmax_cross_entropy`.
    """
    if not gamma >= 1:
        raise ShapeError(f"focal_loss: gamma is {gamma}; expected at least 1 (softmax_cross_entropy is gamma 0)")
    counts, label = counting("focal_loss", x, labels, ignore_index, sampling)
    weight = weighted("focal_loss", x, counts, label, weights, normalize, divisor)
    xp = xp_of(x)
    log_p = log_softmax_where(x, weight != 0)
    at_label = xp.take_along_axis(log_p, label, axis=1)[:, 0]
    missing = -xp.expm1(at_label)  # 1 - p
    loss = -(missing**gamma * at_label * weight).sum()
    classes = xp.arange(x.shape[1])[:, None, None]

    def grad_x(gy):
        p = xp.exp(at_label)
        slope = missing ** (gamma - 1) * (missing - gamma * p * at_label)  # of cross entropy it would be 1
        return (xp.exp(log_p) - (label == classes)) * (gy * weight * slope)[:, None]

    return loss, (grad_x, None)


@op
def dice_loss(
    x: Array, labels: Array, *, ignore_index: int = 255, sampling: Array | None = None, smooth: float = 1.0
) -> ValueAndGradients:
    """loss = 1/|K| sum_{c in K} 1 - (2 I_c + s) / (P_c + T_c + s), K the classes that occur in the labels.

    I_c sums p_c = softmax(x)_c over the pixels of class c, P_c over all pixels of the batch, and T_c counts the pixels
    of class c; s is `smooth`. It is one minus the overlap that mean IU measures, made smooth: a class counts the same
    however few its pixels are (Milletari et al., 2016). Pixels that are ignored, or not in `sampling` (N, H, W), do not
    count; without a label at all the loss is 0. Errors: `ShapeError`.
    """
    if not smooth > 0:
        raise ShapeError(f"dice_loss: smooth is {smooth}; expected above 0")
    counts, label = counting("dice_loss", x, labels, ignore_index, sampling)
    xp = xp_of(x)
    p = xp.exp(log_softmax_where(x, counts))
    counts = counts[:, None].astype(x.dtype)
    truth = (label == xp.arange(x.shape[1])[:, None, None]) * counts

    def per_class(values: Array) -> Array:
        return values.sum(axis=(0, 2, 3), keepdims=True)

    true = per_class(truth)
    shared, all_of_it = 2 * per_class(p * truth) + smooth, per_class(p * counts) + true + smooth
    occurs = (true > 0).astype(x.dtype)
    occurs = occurs / xp.maximum(occurs.sum(), 1)
    loss = (occurs * (1 - shared / all_of_it)).sum()

    def grad_x(gy):
        gp = (shared * counts - 2 * truth * all_of_it) * (gy * occurs / all_of_it**2)  # of the quotient
        return p * (gp - (p * gp).sum(axis=1, keepdims=True))  # of the softmax

    return loss, (grad_x, None)
