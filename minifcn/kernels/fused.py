"""Kernels written by hand for a GPU, each in place of many that CuPy would launch one by one.

On a GPU every array function is a kernel of its own: Python takes some microseconds to launch it, and it reads and
writes its arrays in whole. A formula of six functions therefore waits six times for Python and moves six arrays. Here
the whole formula is one kernel: CUDA C, in which a thread computes one number (or one window, or one pixel) and nothing
but the result is written.

    columns, pixels          im2col and its adjoint, on a block of windows           products.py
    outputs                  bias, ReLU, and the way back from a matrix to images    products.py
    rectified                the gradient of a ReLU                                  planes.py
    pooled, unpooled         max pooling and its gradient                            ops/pool.py
    softmax, softmax_grad    softmax cross entropy of each pixel and its gradient    ops/loss.py
    upsampled, downsampled   bilinear upsampling and its gradient                    ops/resize.py
    sgd, adam                one step for one parameter                              optim.py

Each stands beside the NumPy form of the same formula, which is the one to read first, and is equal to it in a test.
`serves(x)` decides between the two, here and nowhere else: these are used where the library of x can compile them.

No thread adds to a number of another thread: a gradient is gathered by the pixel that gets it, in the order in which
the NumPy form adds. So the result is the same in every run; and as products and sums are not contracted to one rounding
(`--fmad=false`), which costs nothing where memory is the limit, it mostly is the CPU's to the last bit.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from minifcn.backend import FLOATS, Array, Scope, xp_of
from minifcn.kernels.im2col import Pair, Windows

THREADS = 256
"""Threads in a block: enough to hide the memory's latency on every card since 2016."""
NARROW = 2**31 - 1
"""Threads up to which their numbers are 32 bits wide: those of 64 bits are slower to divide."""
C_NAMES = {
    "float32": "float",
    "float64": "double",
    "int64": "long long",
    "int32": "int",
    "int16": "short",
    "int8": "signed char",
    "uint64": "unsigned long long",
    "uint32": "unsigned int",
    "uint16": "unsigned short",
    "uint8": "unsigned char",
}
SCALARS: dict[str, Any] = {"int": np.int32, "long long": np.int64, "double": np.float64}
ALLOWED: Scope[bool] = Scope("fused", True)


def serves(x: Array, *others: Array) -> bool:
    """Return whether arrays like x are computed by these kernels: on a GPU, in float32 or float64, unless `plain`
    forbids.

    Beside `others`, all must have the dtype of x: a kernel takes the bytes as numbers of that one dtype.
    """
    fits = x.dtype in FLOATS and all(other.dtype == x.dtype for other in others)
    return hasattr(xp_of(x), "RawKernel") and fits and ALLOWED()


def plain() -> AbstractContextManager[None]:
    """Return a block inside which this thread computes on a GPU with CuPy's functions alone."""
    return ALLOWED.set(False)


@dataclass(frozen=True)
class Kernel:
    """One kernel: what each thread does, `at` being its number below `count`.

    T is the dtype of the numbers, L that of labels. Of the parameters, `const` arrays are read, `OUT` arrays are
    written, and other arrays both.
    """

    name: str
    parameters: str
    body: str

    def source(self, types: tuple[tuple[str, str], ...], wide: bool = False) -> str:
        """Return the CUDA C for dtypes such as (("T", "float32"),); `wide` for more than `NARROW` threads."""
        named = "".join(f"typedef {C_NAMES[dtype]} {name};\n" for name, dtype in types)
        number = "long long" if wide else "int"
        return (
            f'{named}#define OUT\nextern "C" __global__ void {self.name}({number} count, {self.parameters}) {{\n'
            f"  const {number} at = ({number})blockIdx.x * blockDim.x + threadIdx.x;\n"
            f"  if (at >= count) return;\n{self.body}}}\n"
        )

    @cached_property
    def kinds(self) -> tuple[Any, ...]:
        """What NumPy calls the type of each parameter that is a number; None for an array."""
        return tuple(SCALARS.get(text.strip().rsplit(" ", 1)[0]) for text in self.parameters.split(","))

    def __call__(self, count: int, *arguments: Any, **types: Any) -> None:
        """Run `count` threads; the first argument is an array. `types` are the dtypes that T and L stand for."""
        if not count:
            return
        wide = count > NARROW
        values = [kind(value) if kind else value for kind, value in zip(self.kinds, arguments, strict=True)]
        function = compiled(xp_of(arguments[0]), self, tuple(types.items()), wide)
        number = np.int64(count) if wide else np.int32(count)
        function((-(-count // THREADS),), (THREADS,), (number, *values))


@lru_cache(maxsize=256)
def compiled(library: Any, kernel: Kernel, types: tuple[tuple[str, Any], ...], wide: bool) -> Any:
    """Return the kernel as the library's function; CuPy compiles it at the first call and keeps it on the disk."""
    named = tuple((name, str(dtype)) for name, dtype in types)
    return library.RawKernel(kernel.source(named, wide), kernel.name, options=("--fmad=false",))


def steps(x: Array) -> list[int]:
    """Return the strides of an array, in numbers: so a view needs no copy."""
    return [stride // x.itemsize for stride in x.strides]


def whole(x: Array) -> Array:
    """Return x with its numbers one after another in memory, itself if they are."""
    return xp_of(x).ascontiguousarray(x)


# ---- convolution: columns, pixels, outputs -----------------------------------------------------------------------

COLUMNS = Kernel(
    "columns",
    "const T* x, OUT T* columns, long long x_n, long long x_c, long long x_row, long long x_col, "
    "int images, int height, int width, int top, int left, int rows, int cols, "
    "int kh, int kw, int sh, int sw, int dh, int dw",
    """
  // A thread is one channel of one window (image n, window row r and column q): it copies the pixels under all taps.
  const int q = at % cols, r = at / cols % rows, n = at / cols / rows % images, c = at / cols / rows / images;
  const long long windows = (long long)images * rows * cols, window = ((long long)n * rows + r) * cols + q;
  const T* image = x + n * x_n + c * x_c;
  for (int i = 0; i < kh; i++)
    for (int j = 0; j < kw; j++) {
      const int h = r * sh + i * dh - top, w = q * sw + j * dw - left;
      const bool inside = 0 <= h && h < height && 0 <= w && w < width;
      columns[((long long)(c * kh + i) * kw + j) * windows + window] = inside ? image[h * x_row + w * x_col] : (T)0;
    }
""",
)

PIXELS = Kernel(
    "pixels",
    "const T* columns, T* x, long long x_n, long long x_c, long long x_row, long long x_col, "
    "int channels, int images, int height, int width, int top, int left, int rows, int cols, "
    "int kh, int kw, int sh, int sw, int dh, int dw, int add",
    """
  // A thread is one pixel: it adds up its copies, one for each tap under which some window sees it.
  const int w = at % width, h = at / width % height, c = at / width / height % channels;
  const int n = at / width / height / channels;
  const long long windows = (long long)images * rows * cols;
  T sum = 0;
  for (int i = 0; i < kh; i++) {
    const int down = h + top - i * dh;  // of the window's row, in pixels
    if (down < 0 || down % sh || down / sh >= rows) continue;
    for (int j = 0; j < kw; j++) {
      const int across = w + left - j * dw;
      if (across < 0 || across % sw || across / sw >= cols) continue;
      const long long window = ((long long)n * rows + down / sh) * cols + across / sw;
      sum += columns[((long long)(c * kh + i) * kw + j) * windows + window];
    }
  }
  T* pixel = x + n * x_n + c * x_c + h * x_row + w * x_col;
  *pixel = add ? *pixel + sum : sum;
""",
)

OUTPUTS = Kernel(
    "outputs",
    "const T* product, const T* b, OUT T* y, long long y_n, long long y_c, long long y_row, long long y_col, "
    "int images, int rows, int cols, int biased, int relu",
    """
  // A thread is one output: bias, ReLU, and from the matrix (channel; image, row, column) to its place in the images.
  const int q = at % cols, r = at / cols % rows, n = at / cols / rows % images, c = at / cols / rows / images;
  T value = product[at];
  if (biased) value += b[c];
  y[n * y_n + c * y_c + r * y_row + q * y_col] = relu && value < 0 ? (T)0 : value;
""",
)


def columns(x: Array, g: Windows, windows: tuple[int, int, int], corner: Pair) -> Array:
    """Return the columns (C, kh, kw, N, rows, cols) of `windows` (N, rows, cols); x (N, C, H, W) is what they see.

    The first window begins `corner` pixels above and to the left of x.
    """
    n, c, h, w = x.shape
    made = xp_of(x).empty((c, *g.kernel, *windows), dtype=x.dtype)
    shape = (n, h, w, *corner, *windows[1:], *g.kernel, *g.stride, *g.dilation)
    COLUMNS(c * n * windows[1] * windows[2], x, made, *steps(x), *shape, T=x.dtype)
    return made


def pixels(columns: Array, x: Array, g: Windows, corner: Pair, *, add: bool) -> None:
    """Write (or add) to each pixel of x (N, C, H, W) the sum of its copies in the columns: the adjoint of `columns`."""
    n, c, h, w = x.shape
    shape = (c, n, h, w, *corner, *columns.shape[4:], *g.kernel, *g.stride, *g.dilation, int(add))
    PIXELS(x.size, columns, x, *steps(x), *shape, T=x.dtype)


def outputs(product: Array, y: Array, b: Array | None, relu: bool) -> None:
    """Write the product (O, windows), plus the bias, cut off at 0 if `relu`, into y (N, O, rows, cols)."""
    n, _, rows, cols = y.shape
    bias = None if b is None else whole(b)
    OUTPUTS(y.size, product, bias, y, *steps(y), n, rows, cols, int(b is not None), int(relu), T=y.dtype)


# ---- between the convolutions ------------------------------------------------------------------------------------

RECTIFIED = Kernel(
    "rectified",
    "const T* gy, const T* y, OUT T* gx, int channels, int images, int size",
    """
  // A thread is one number of the gradient, which is laid out channel by channel: so it is a matrix already.
  const int p = at % size, n = at / size % images, c = at / size / images;
  const long long from = ((long long)n * channels + c) * size + p;
  gx[at] = y[from] <= 0 ? (T)0 : gy[from];
""",
)

POOLED = Kernel(
    "pooled",
    "const T* x, OUT T* y, int height, int width, int rows, int cols, "
    "int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw",
    """
  // A thread is one window. NaN is larger than any number, as in NumPy.
  const int q = at % cols, r = at / cols % rows;
  const T* image = x + (long long)(at / cols / rows) * height * width;
  bool any = false;
  T best = 0;
  for (int i = 0; i < kh; i++)
    for (int j = 0; j < kw; j++) {
      const int h = r * sh - ph + i * dh, w = q * sw - pw + j * dw;
      if (h < 0 || h >= height || w < 0 || w >= width) continue;
      const T value = image[(long long)h * width + w];
      if (!any || (best == best && !(value <= best))) best = value;
      any = true;
    }
  y[at] = best;
""",
)

UNPOOLED = Kernel(
    "unpooled",
    "const T* gy, const T* x, const T* y, OUT T* gx, int height, int width, int rows, int cols, "
    "int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw",
    """
  // A thread is one pixel: it gets the gradient of each window of which it is the first maximum.
  const int w = at % width, h = at / width % height;
  const long long plane = at / width / height;
  const T *image = x + plane * height * width, value = x[at];
  T sum = 0;
  for (int i = 0; i < kh; i++) {
    const int down = h + ph - i * dh;
    if (down < 0 || down % sh || down / sh >= rows) continue;
    for (int j = 0; j < kw; j++) {
      const int across = w + pw - j * dw;
      if (across < 0 || across % sw || across / sw >= cols) continue;
      const int r = down / sh, q = across / sw;
      const long long window = (plane * rows + r) * cols + q;
      const T top = y[window];
      bool first = value == top || (value != value && top != top);
      for (int tap = 0; first && tap < i * kw + j; tap++) {
        const int a = r * sh - ph + tap / kw * dh, b = q * sw - pw + tap % kw * dw;
        if (a < 0 || a >= height || b < 0 || b >= width) continue;
        const T other = image[(long long)a * width + b];
        first = !(other == top || (other != other && top != top));
      }
      if (first) sum += gy[window];
    }
  }
  gx[at] = sum;
""",
)

SOFTMAX = Kernel(
    "softmax",
    "const T* x, const L* label, const T* weight, OUT T* top, OUT T* total, OUT T* loss, int classes, int size",
    """
  // A thread is one pixel: the largest score, the sum of e^(score - largest), and the weighted loss of its label.
  const T* scores = x + (long long)(at / size) * classes * size + at % size;
  T most = scores[0], sum = 0;
  for (int c = 1; c < classes; c++)
    if (most == most && !(scores[(long long)c * size] <= most)) most = scores[(long long)c * size];
  for (int c = 0; c < classes; c++) sum += exp(scores[(long long)c * size] - most);
  top[at] = most;
  total[at] = sum;
  const long long own = (long long)label[at];
  const bool known = 0 <= own && own < classes;  // a label that is no class reads no memory, and makes the loss NaN
  const bool counts = weight[at] != 0;           // an infinite score counts only where its pixel does
  loss[at] = counts ? (log(sum) - ((known ? scores[own * size] : (T)nan("")) - most)) * weight[at] : (T)0;
""",
)

SOFTMAX_GRAD = Kernel(
    "softmax_grad",
    "const T* gy, const T* x, const L* label, const T* weight, const T* top, const T* total, OUT T* gx, "
    "int classes, int size",
    """
  // A thread is one score: p - 1 at the label and p elsewhere, times the pixel's weight.
  const int c = at / size % classes;
  const long long pixel = (long long)(at / size / classes) * size + at % size;
  const T scale = gy[0] * weight[pixel];
  const T p = exp(x[at] - top[pixel]) * (scale / total[pixel]);
  gx[at] = weight[pixel] == 0 ? (T)0 : label[pixel] == (L)c ? p - scale : p;
""",
)


def rectified(gy: Array, y: Array) -> Array:
    """Return gy where y is above 0 (or NaN), else 0; (N, C, H, W), but with the channels outermost in memory."""
    n, c, h, w = gy.shape
    gx = xp_of(gy).empty((c, n, h, w), dtype=gy.dtype)
    RECTIFIED(gx.size, whole(gy), whole(y), gx, c, n, h * w, T=gy.dtype)
    return gx.transpose(1, 0, 2, 3)


def pooled(x: Array, g: Windows, out: Pair) -> Array:
    """Return the largest number of each window, (N, C, *out)."""
    y = xp_of(x).empty((*x.shape[:2], *out), dtype=x.dtype)
    POOLED(y.size, whole(x), y, *x.shape[2:], *out, *g.kernel, *g.stride, *g.padding, *g.dilation, T=x.dtype)
    return y


def unpooled(gy: Array, x: Array, y: Array, g: Windows) -> Array:
    """Return the gradient of `pooled` in x."""
    gx = xp_of(x).empty(x.shape, dtype=x.dtype)
    shape = (*x.shape[2:], *y.shape[2:], *g.kernel, *g.stride, *g.padding, *g.dilation)
    UNPOOLED(gx.size, whole(gy), whole(x), y, gx, *shape, T=x.dtype)
    return gx


def softmax(x: Array, label: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return the weighted cross entropy of each pixel, and what `softmax_grad` needs; label, weight (N, 1, H, W)."""
    top, total, loss = (xp_of(x).empty(weight.shape, dtype=x.dtype) for _ in range(3))
    shape = (x.shape[1], x.shape[2] * x.shape[3])
    SOFTMAX(loss.size, whole(x), whole(label), whole(weight), top, total, loss, *shape, T=x.dtype, L=label.dtype)
    return loss, (top, total)


def softmax_grad(gy: Array, x: Array, label: Array, weight: Array, kept: tuple[Array, Array]) -> Array:
    """Return the gradient of the sum of those losses in x, times the single number gy."""
    gx = xp_of(x).empty(x.shape, dtype=x.dtype)
    shape = (x.shape[1], x.shape[2] * x.shape[3])
    SOFTMAX_GRAD(x.size, gy, whole(x), whole(label), whole(weight), *kept, gx, *shape, T=x.dtype, L=label.dtype)
    return gx


# ---- bilinear upsampling -----------------------------------------------------------------------------------------

UPSAMPLED = Kernel(
    "upsampled",
    "const T* x, OUT T* y, int height, int width, int rows, int cols, int kh, int kw, int sh, int sw, int ph, int pw",
    """
  // A thread is one output: the few inputs whose kernel covers it, each by how near it is.
  const int q = at % cols + pw, r = at / cols % rows + ph, uh = (kh + 1) / 2 * 2, uw = (kw + 1) / 2 * 2;
  const T* image = x + (long long)(at / cols / rows) * height * width;
  const int first_row = r < kh ? 0 : (r - kh) / sh + 1, first_col = q < kw ? 0 : (q - kw) / sw + 1;
  T sum = 0;
  for (int h = first_row; h < height && h * sh <= r; h++) {
    T line = 0;
    for (int w = first_col; w < width && w * sw <= q; w++)
      line += image[(long long)h * width + w] * ((T)(uw - abs(2 * (q - w * sw) - (kw - 1))) / uw);
    sum += line * ((T)(uh - abs(2 * (r - h * sh) - (kh - 1))) / uh);
  }
  y[at] = sum;
""",
)

DOWNSAMPLED = Kernel(
    "downsampled",
    "const T* gy, OUT T* gx, int height, int width, int rows, int cols, int kh, int kw, int sh, int sw, int ph, int pw",
    """
  // A thread is one input: the outputs under its kernel, by the same weights.
  const int w = at % width, h = at / width % height, uh = (kh + 1) / 2 * 2, uw = (kw + 1) / 2 * 2;
  const T* image = gy + (long long)(at / width / height) * rows * cols;
  T sum = 0;
  for (int i = 0; i < kh; i++) {
    const int r = h * sh + i - ph;
    if (r < 0 || r >= rows) continue;
    T line = 0;
    for (int j = 0; j < kw; j++) {
      const int q = w * sw + j - pw;
      if (0 <= q && q < cols) line += image[(long long)r * cols + q] * ((T)(uw - abs(2 * j - (kw - 1))) / uw);
    }
    sum += line * ((T)(uh - abs(2 * i - (kh - 1))) / uh);
  }
  gx[at] = sum;
""",
)


def upsampled(x: Array, g: Windows, out: Pair) -> Array:
    """Return x (N, C, H, W) spread by the bilinear kernel of `g`, (N, C, *out)."""
    y = xp_of(x).empty((*x.shape[:2], *out), dtype=x.dtype)
    UPSAMPLED(y.size, whole(x), y, *x.shape[2:], *out, *g.kernel, *g.stride, *g.padding, T=x.dtype)
    return y


def downsampled(gy: Array, g: Windows, size: Pair) -> Array:
    """Return the gradient of `upsampled` in x, (N, C, *size)."""
    gx = xp_of(gy).empty((*gy.shape[:2], *size), dtype=gy.dtype)
    DOWNSAMPLED(gx.size, whole(gy), gx, *size, *gy.shape[2:], *g.kernel, *g.stride, *g.padding, T=gy.dtype)
    return gx


# ---- updates -----------------------------------------------------------------------------------------------------

SGD = Kernel(
    "sgd",
    "T* w, const T* g, T* h, double momentum, double gain, double shrink",
    """
  // h = momentum h + gain g + shrink w;  w = w - h
  h[at] = h[at] * (T)momentum + (shrink ? g[at] * (T)gain + w[at] * (T)shrink : g[at] * (T)gain);
  w[at] -= h[at];
""",
)

ADAM = Kernel(
    "adam",
    "T* w, const T* g, T* m, T* v, double beta1, double beta2, double rest1, double rest2, double gain, double rate, "
    "double root, double epsilon, double shrink",
    """
  // m and v: fading means of the gradient and of its square;  w = w - rate m / (root sqrt(v) + epsilon) - shrink w
  const T gradient = g[at] * (T)gain;
  m[at] = m[at] * (T)beta1 + (T)rest1 * gradient;
  v[at] = v[at] * (T)beta2 + (T)rest2 * gradient * gradient;
  T change = m[at] * (T)rate / (sqrt(v[at]) * (T)root + (T)epsilon);
  if (shrink) change += w[at] * (T)shrink;
  w[at] -= change;
""",
)

KERNELS = (
    COLUMNS,
    PIXELS,
    OUTPUTS,
    RECTIFIED,
    POOLED,
    UNPOOLED,
    SOFTMAX,
    SOFTMAX_GRAD,
    UPSAMPLED,
    DOWNSAMPLED,
    SGD,
    ADAM,
)
