"""Softmax cross entropy over the pixels of an image, the loss of an FCN.

Because it is a sum over pixels, its gradient is the sum of the pixels' gradients: training on whole images is training
on every patch at once (FCN, sections 3.4 and 4.3).
"""

from minifcn.backend import Array, finite, is_host, xp_of
from minifcn.errors import ShapeError
from minifcn.kernels.planes import by_rows
from minifcn.ops.checks import images
from minifcn.tensor import ValueAndGradients, op

NORMALIZATIONS = ("sum", "valid", "batch")


def check_labels(x: Array, labels: Array, ignore_index: int) -> None:
    """Refuse labels that do not fit. Their range is checked on the host only: CuPy would wait for the device."""
    wanted = (x.shape[0], *x.shape[2:])
    if labels.shape != wanted or labels.dtype.kind not in "iu":
        raise ShapeError(
            f"softmax_cross_entropy: labels are {labels.dtype} {labels.shape}; expected whole numbers {wanted}, "
            f"one for each pixel of the scores {x.shape}"
        )
    if is_host(labels):
        wrong = labels[(labels != ignore_index) & ((labels < 0) | (labels >= x.shape[1]))]
        if wrong.size:
            raise ShapeError(
                f"softmax_cross_entropy: label {int(wrong.flat[0])} found; expected 0..{x.shape[1] - 1}, "
                f"or {ignore_index} where a pixel is to be ignored"
            )


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
    the classes; `sampling` (N, H, W) of 0 and 1 keeps a sample of the pixels (section 4.3). Z is 1 (`normalize="sum"`,
    the released nets), the number of pixels that count (`"valid"`), or N (`"batch"`), and never below 1: an image
    that is all void has loss 0 and gradient 0. Where x is a part of a batch, `divisor` is the Z of all of it: the
    losses of the parts then add up to the loss of the batch. PyTorch's `reduction="sum"` is `normalize="sum"`, and its
    `"mean"` without weights is `"valid"`; Caffe calls the three NONE, VALID and BATCH_SIZE. Errors: `ShapeError`.
    """
    images(x, op="softmax_cross_entropy")
    check_labels(x, labels, ignore_index)
    if normalize not in NORMALIZATIONS:
        raise ShapeError(
            f"softmax_cross_entropy: normalize is {normalize!r}; expected one of {', '.join(NORMALIZATIONS)}"
        )
    if weights is not None and weights.shape != (x.shape[1],):
        raise ShapeError(f"softmax_cross_entropy: weights have shape {weights.shape}; expected ({x.shape[1]},)")
    if sampling is not None and sampling.shape != labels.shape:
        raise ShapeError(f"softmax_cross_entropy: sampling has shape {sampling.shape}; expected {labels.shape}")
    xp = xp_of(x)
    counts = labels != ignore_index
    if sampling is not None:
        counts = counts & (sampling != 0)
    label = xp.where(counts, labels, 0)[:, None]  # 255 must never be used as an index
    if divisor is not None:
        z = max(divisor, 1)
    elif normalize == "valid":
        z = xp.maximum(counts.sum(), 1).astype(x.dtype)
    else:
        z = 1 if normalize == "sum" else x.shape[0]
    weight = counts.astype(x.dtype) if weights is None else counts * weights.astype(x.dtype)[label[:, 0]]
    weight = (weight / z)[:, None]
    if not finite(x):
        x = xp.where(weight != 0, x, 0)  # else an infinite score would count where the pixel does not
    e = xp.empty(x.shape, dtype=x.dtype)  # e^x, each pixel's largest being 1: a softmax p = e / total
    own, total = (xp.empty(weight.shape, dtype=x.dtype) for _ in range(2))

    def forward(part):
        xp.subtract(x[part], x[part].max(axis=1, keepdims=True), out=e[part])
        own[part] = xp.take_along_axis(e[part], label[part], axis=1)
        xp.exp(e[part], out=e[part])
        total[part] = e[part].sum(axis=1, keepdims=True)

    by_rows(forward, x)
    loss = ((xp.log(total) - own) * weight).sum()

    def grad_x(gy):
        gx, scale = xp.empty(e.shape, dtype=e.dtype), gy * weight

        def backward(part):
            xp.multiply(e[part], scale[part] / total[part], out=gx[part])
            own = xp.take_along_axis(gx[part], label[part], axis=1) - scale[part]  # p - 1 at the label, p elsewhere
            xp.put_along_axis(gx[part], label[part], own, axis=1)

        by_rows(backward, e)
        return gx

    return loss, (grad_x, None)
