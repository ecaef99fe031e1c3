"""Convolution and transposed convolution, two uses of the same three products.

| product | computes | conv2d | conv_transpose2d |
|---|---|---|---|
| correlate(x, w) | y = sum of w * window(x) | forward | grad_x |
| spread(gy, w) | its adjoint in x | grad_x | forward |
| weigh(x, gy) | its adjoint in w | grad_w | grad_w |

so upsampling really is "backwards strided convolution" (FCN, section 3.3).
"""

from minifcn.backend import Array
from minifcn.errors import ShapeError
from minifcn.kernels.convolution import correlate, spread, weigh
from minifcn.kernels.planes import channel_sums, rectified
from minifcn.ops.checks import Size, images, kernel_of, pair, windows
from minifcn.tensor import ValueAndGradients, op


@op
def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    relu: bool = False,
) -> ValueAndGradients:
    """y[n,o,i,j] = b[o] + sum_{c,u,v} w[o,c,u,v] x[n, c, i*s + u*d - p, j*s + v*d - p], zeros outside the image.

    x (N, I, H, W), w (O, I/groups, kh, kw), b (O,) -> y (N, O, H', W'), H' = floor((H + 2p - d(kh-1) - 1)/s) + 1.
    With `groups`, output channel o sees only its own I/groups inputs. `relu=True` computes max(y, 0) while a block of y
    is still in the cache; it equals `relu(conv2d(...))` to the bit. Errors: `ShapeError`. FCN, section 3.
    """
    images(x, op="conv2d")
    kernel = kernel_of(w, op="conv2d")
    g = windows(kernel, op="conv2d", stride=stride, padding=padding, dilation=dilation, groups=groups)
    size = x.shape[2:]
    y = correlate(x, w, g, b, relu=relu)

    def passing(gy):
        return rectified(gy, y)

    def grad_x(gy):
        return spread(gy, w, g, size)

    def grad_w(gy):
        return weigh(x, gy, g)

    def grad_b(gy):
        return channel_sums(gy)

    gradients = (grad_x, grad_w, grad_b)
    return (y, gradients, passing) if relu else (y, gradients)


@op
def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> ValueAndGradients:
    """y[n,o, i*s + u*d - p, j*s + v*d - p] += w[c,o,u,v] x[n,c,i,j]: every input paints a kernel; then b[o] is added.

    x (N, I, H, W), w (I, O/groups, kh, kw), b (O,) -> y (N, O, H', W'),
    H' = (H-1)s + d(kh-1) + 1 - 2p + output_padding. This is `conv2d`'s gradient used as a layer ("deconvolution").
    Errors: `ShapeError`. FCN, section 3.3.
    """
    images(x, op="conv_transpose2d")
    kernel = kernel_of(w, op="conv_transpose2d")
    g = windows(kernel, op="conv_transpose2d", stride=stride, padding=padding, dilation=dilation, groups=groups)
    extra = pair(output_padding, op="conv_transpose2d", name="output_padding", least=0)
    if any(e >= s for e, s in zip(extra, g.stride, strict=True)):
        raise ShapeError(f"conv_transpose2d: output_padding {extra} must be smaller than the stride {g.stride}")
    h, v = (
        (n - 1) * s + e - 2 * p + o
        for n, s, e, p, o in zip(x.shape[2:], g.stride, g.span, g.padding, extra, strict=True)
    )
    if h < 1 or v < 1:
        raise ShapeError(f"conv_transpose2d: padding {g.padding} leaves {h}x{v} of the output; use less")
    y = spread(x, w, g, (h, v), b)

    def grad_x(gy):
        return correlate(gy, w, g)

    def grad_w(gy):
        return weigh(gy, x, g)

    def grad_b(gy):
        return channel_sums(gy)

    return y, (grad_x, grad_w, grad_b)
