# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Making it fast
#
# After this notebook you can
#
# * explain each step from six loops to Winograd's convolution, with its gain and its cost;
# * derive why F(4x4, 3x3) needs a quarter of the multiplications, and show that it is exact in fractions;
# * compute the arithmetic intensity of a layer, and find from the roofline of *your* machine what limits it;
# * say when a second thread helps, and what changes on a GPU.
#
# The paper has no section on this: it relies on Caffe, which computes a convolution by im2col. Section 3.1 explains
# why speed matters: dense prediction in one pass is only useful if the pass is fast.
#
# Every time below was measured on the machine that the first cell names, while it had other work. Your times will
# differ; the text claims only what the cells assert.
#
# **Before you begin.** You need notebook 02 (im2col). A GPU is optional. Reading takes about half an hour, all
# exercises together 75 minutes.

# %% tags=["varies"]
import inspect
import platform
import time
from fractions import Fraction

import numpy as np
import pictures
from exercises import n12

import minifcn
from minifcn.backend import to_host, xp_on
from minifcn.experiments.bench.stopwatch import extra_bytes, take_turns
from minifcn.experiments.bench.studies import Layer, six_loops, vgg_layers
from minifcn.kernels import blocks, winograd
from minifcn.kernels.convolution import WAYS, choose, correlate
from minifcn.kernels.im2col import Windows, im2col
from minifcn.kernels.products import WORKSPACE
from minifcn.kernels.threads import ALONE, cores, set_threads, threads, useful_threads

SEED = 0
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy
MACHINE = f"{platform.machine()}, {cores()} cores, NumPy {np.__version__}"
print(f"threads: {threads()}; device: {DEVICE}; machine: {MACHINE}")

# %% [markdown]
# ## 1 · Rung 1: the definition
#
# The ways to compute a convolution are like the rungs of a ladder: each is faster than the one below, and harder to
# read. The lowest is the definition, six loops: over output channels, rows, columns, input channels, and the two sides
# of the kernel. It is slow, because Python interprets every multiplication.

# %%
print(inspect.getsource(six_loops))

# %%
rng = np.random.default_rng(SEED)
tiny_x, tiny_w = rng.standard_normal((2, 8, 8)), rng.standard_normal((2, 2, 3, 3))
by_definition = six_loops(tiny_x, tiny_w)
ours = to_host(correlate(xp.asarray(tiny_x[None]), xp.asarray(tiny_w), Windows((3, 3))))[0]
assert np.allclose(by_definition, ours, atol=1e-12)
print("six loops and minifcn's product agree to twelve digits")

# %% [markdown]
# ## 2 · Rung 2: one matrix product
#
# Write the pixels under each kernel tap side by side, and all loops become one matrix product (notebook 02). Products
# of matrices are what BLAS is for: every machine has a library (OpenBLAS, MKL) that computes them near the limit of its
# processor, and NumPy's `@` calls it. Below you see an image of 4x4 pixels that count from 0, and its nine rows of
# columns for a kernel of 3x3. Each row is the image again, shifted by one tap. The price is memory: nine copies.

# %%
image = np.arange(16.0).reshape(1, 1, 4, 4)
columns = im2col(image, Windows((3, 3), padding=(1, 1)))
assert columns.nbytes == 9 * image.nbytes
shown = {"image": image[0, 0], "its columns: a row for each tap, one number for each window": columns.reshape(9, 16)}
pictures.panels(shown, size=(9, 2.8), widths=(1, 3), cmap="viridis", limits=(0, 15))

# %% [markdown]
# ### Exercise 1: the bytes of the columns
#
# How many bytes do the columns of one float32 image take, with stride 1? (`conv1_2` of VGG-16, on a photograph of
# 500x500 padded by 100: more than a gigabyte.)

# %%
column_bytes = ...  # instead of this line: def column_bytes(channels, height, width, kernel, padding): ...
n12.check_column_bytes(column_bytes)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(channels, height, width, kernel, padding):
    windows = (height + 2 * padding - kernel + 1) * (width + 2 * padding - kernel + 1)
    return 4 * channels * kernel * kernel * windows


assert n12.check_column_bytes.accepts(solution)

# %%
conv1_2 = next(layer for layer in vgg_layers(64, 500) if layer.name == "conv1_2")
gigabytes = n12.bytes_of_columns(64, conv1_2.size, conv1_2.size, 3, 1) / 1e9
print(f"conv1_2: {conv1_2.size}x{conv1_2.size} pixels, columns of {gigabytes:.2f} GB")
assert gigabytes > 1 and conv1_2.size == 698

# %% [markdown]
# ### Exercise 2: one tap at a time
#
# Between the six loops and the columns there is a way without nine copies: one matrix product for each *tap*, on the
# image shifted by that tap. It needs only two loops. Write it.

# %%
taps = ...  # instead of this line: def taps(x, w): ..., x (I, H, W), w (O, I, kh, kw), no padding, stride 1
n12.check_taps(taps)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(x, w):
    o, i, kh, kw = w.shape
    h, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    y = np.zeros((o, h * width), x.dtype)
    for down in range(kh):
        for across in range(kw):
            y += w[:, :, down, across] @ x[:, down : down + h, across : across + width].reshape(i, -1)
    return y.reshape(o, h, width)


assert n12.check_taps.accepts(solution)

# %% [markdown]
# ## 3 · The ladder
#
# How much does each rung gain? We measure one layer, 64 to 64 channels of 64x64 pixels, forward.
#
# A machine has other work, so the times are those in which this thread was running, the best of several runs (on a
# GPU, the clock):


# %%
def fresh(layer):
    """Random x, w of a layer on the device, float32, and its windows."""
    x, w, _ = layer.arrays(1)
    return xp.asarray(x), xp.asarray(w), layer.windows


def seconds_of(work, runs=5):
    """The least of some runs, after one that does not count: seconds of this thread, or of the clock for a GPU."""
    clock = getattr(time, "thread_time", time.process_time) if DEVICE == "cpu" else time.perf_counter
    taken = []
    for _ in range(runs + 1):
        start = clock()
        y = work()
        to_host(y.ravel()[:1])  # a GPU has to be done before it can hand over a number
        taken.append(clock() - start)
    return min(taken[1:])


layer = Layer("64 to 64", 64, 64, 64, 3, 1)
x, w, g = fresh(layer)
exact = to_host(correlate(x.astype("float64"), w.astype("float64"), g))
print(f"x {x.shape}, w {w.shape}: {layer.multiply_adds:,} multiply-adds")
assert layer.multiply_adds == 9 * 64 * 64 * 64 * 64

# %% [markdown]
# Two rungs we write ourselves: all columns at once, and one tap at a time, which exercise 2 asks for. The others are
# minifcn's. It has several ways behind one function, and `with minifcn.convolution("im2col"):` forces one:
#
# * *im2col* takes the columns in pieces of at most 32 MB;
# * *blocks* takes pieces that fit the cache, and shares them among threads;
# * *lines* is for layers with few channels, where making the columns costs as much as the product;
# * *depthwise* is for layers that filter each channel alone, so it cannot compute ours;
# * *winograd* multiplies less (section 5).
#
# The first line of each file says the same:


# %%
def all_columns():
    return (w.reshape(len(w), -1) @ im2col(x, g).reshape(w[0].size, -1)).reshape(exact.shape)


def one_tap_at_a_time():
    padded = xp.pad(x[0], ((0, 0), (1, 1), (1, 1)))
    return sum(
        (w[:, :, i, j] @ padded[:, rows, cols].reshape(64, -1)).reshape(exact.shape)
        for (i, j), (rows, cols) in g.taps((64, 64))
    )


def in_this_way(way):
    def work():
        with minifcn.convolution(way):
            return correlate(x, w, g)

    return work


for way, file in WAYS.items():
    print(f"{way:<11}{(file.__doc__ or '').strip().splitlines()[0]}")
SERVING = [way for way, file in WAYS.items() if not hasattr(file, "serves") or file.serves(g, 64, 64)]
assert WORKSPACE == 32 << 20 and set(WAYS) - set(SERVING) == {"depthwise"}
rungs = {"taps": one_tap_at_a_time, "all columns": all_columns, **{way: in_this_way(way) for way in SERVING}}

# %% [markdown]
# The table shows time, memory beyond input and output, and the error against the same sum in float64, divided by its
# largest value:

# %% tags=["varies"]
set_threads(1)
six = min(take_turns([lambda: six_loops(tiny_x, tiny_w)], 5)[0]) * layer.multiply_adds / (6 * 6 * 9 * 2 * 2)
print(f"{MACHINE}, one thread; {layer.multiply_adds / 1e6:.0f} million multiply-adds")
print(f"{'rung':<24}{'ms':>10}{'extra MB':>10}{'error':>10}")
print(f"{'six loops, scaled up':<24}{six * 1e3:>10.0f}")
ladder = {}
for name, work in rungs.items():
    error = float(abs(to_host(work()) - exact).max() / abs(exact).max())
    memory = extra_bytes(work) / 1e6 if DEVICE == "cpu" else float("nan")
    ladder[name] = seconds_of(work), memory, error
    print(f"{name:<24}{ladder[name][0] * 1e3:>10.1f}{memory:>10.1f}{error:>10.1e}")
fastest = min(SERVING, key=lambda way: ladder[way][0])
gains = six / ladder["im2col"][0], ladder["im2col"][0] / ladder[fastest][0]
print(f"six loops to im2col: {gains[0]:,.0f} times as fast; im2col to {fastest}: {gains[1]:.1f} times")
assert gains[0] > 1000 and 1 <= gains[1] < 4
assert all(error < 3e-6 for name, (_, _, error) in ladder.items() if name != "winograd")
if DEVICE == "cpu":
    assert ladder["winograd"][2] < 3e-5 and 3 < ladder["winograd"][2] / ladder["blocks"][2] < 60
    assert 2 * ladder["blocks"][1] < ladder["im2col"][1] and 2 * ladder["lines"][1] < ladder["im2col"][1]

# %% [markdown]
# The step from six loops to a matrix product gains a factor of thousands. All later steps together gain what the last
# line of the table says: on this layer and one thread less than a factor of four, and it may be next to nothing. What
# they do save here is memory: blocks and lines need less than half of im2col's. With more channels Winograd gains more
# (`docs/performance.md` has the measurements of other layers), and with more threads blocks do (section 10).

# %% tags=["varies"]
measures = {"ms": 1e3, "extra MB": 1, "error": 1}
pictures.rungs(
    {
        title: {name: factor * values[place] for name, values in ladder.items()}
        for place, (title, factor) in enumerate(measures.items())
    }
)

# %% [markdown]
# ## 4 · Why blocks: the size of a piece
#
# All columns of a large layer do not fit into a cache, so they are written to memory and read back. A piece of them
# fits. But if the pieces are small, the weights are read again and again, for each piece, and Python takes more steps.
# How long does a layer of 256 channels take with pieces of different sizes, and how much memory?

# %% tags=["varies"]
wider = Layer("256 to 256", 256, 256, 64, 3, 1)
sizes = [1 << power for power in range(14, 27, 2)]
before, ms, megabytes = (blocks.CACHE, blocks.LEAST), [], []
x, w, g = fresh(wider)
blocks.LEAST = 32  # windows in a block, else the smallest sizes are not tried
for blocks.CACHE in sizes:
    ms.append(1e3 * seconds_of(in_this_way("blocks"), 9))
    megabytes.append(extra_bytes(in_this_way("blocks")) / 1e6 if DEVICE == "cpu" else 0)
blocks.CACHE, blocks.LEAST = before
if DEVICE == "cpu":
    assert ms[0] > 1.3 * min(ms) and megabytes[-1] > 4 * megabytes[0]
pictures.sizes_of_blocks(sizes, {"ms": ms, "extra MB": megabytes}, blocks.CACHE)

# %% [markdown]
# Small pieces are slow; large ones take memory. In between, on one thread, the size matters little. The library's 4 MB
# are for two threads: there small pieces mean short steps, and between two steps only one thread can run Python.

# %%
assert blocks.CACHE == 4 << 20
x, w, g = fresh(layer)  # the layer of the ladder again
print(f"a block of the library holds {blocks.CACHE >> 20} MB")

# %% [markdown]
# ## 5 · Winograd: multiply less
#
# A filter of 3 taps that slides over 6 values makes 4 outputs, for which the definition needs 12 multiplications. There
# is a way with 6. It comes from multiplying polynomials: one with 3 coefficients times one with 4 has degree 5, so it
# is determined by its values at 6 points. Evaluate both at $0, 1, -1, 2, -2, \infty$ (at infinity: the highest
# coefficient), multiply value by value, interpolate: 6 multiplications instead of $3 \cdot 4$. Sliding a filter is the
# same computation backwards (its transpose), so it needs as many:
#
# $$y = A^T \left[ (G w) \odot (B^T d) \right]$$
#
# $G$ evaluates the filter $w$ at the 6 points, $B^T$ and $A^T$ are the transposed interpolation and evaluation, $d$ are
# the 6 values, and $\odot$ multiplies value by value. Here are the matrices of the library, and a test in *fractions*,
# where nothing is rounded:

# %%
d, taps_of_row = [Fraction(int(v)) for v in (3, -1, 4, 1, -5, 9)], [Fraction(int(v)) for v in (2, 7, -1)]
G = np.array([[Fraction(v).limit_denominator(24) for v in row] for row in winograd.G])
BT, AT = (np.array([[Fraction(v) for v in row] for row in matrix]) for matrix in (winograd.BT, winograd.AT))
products = (G @ taps_of_row) * (BT @ d)
y = AT @ products
by_sums = [sum(taps_of_row[k] * d[i + k] for k in range(3)) for i in range(4)]
print("G w       ", *(G @ taps_of_row))
print("B^T d     ", *(BT @ d))
print("products  ", *products)
print("A^T of it ", *y, "  by definition:", *by_sums)
assert list(y) == by_sums and len(products) == 6

# %% [markdown]
# In two dimensions each matrix acts on rows and on columns: 36 multiplications for 16 outputs, instead of 144. The
# transform is again a matrix product, with `np.kron(BT, BT)`. These are the matrices of the library:

# %%
matrices = {"$B^T$": winograd.BT, "$G$": winograd.G, "$A^T$": winograd.AT}
inputs, outputs = len(winograd.BT), len(winograd.AT)
assert (inputs**2, outputs**2, 9 * outputs**2) == (36, 16, 144)
tile = np.arange(36.0).reshape(6, 6) ** 2
bt = np.array(winograd.BT, float)
assert np.array_equal(np.kron(bt, bt) @ tile.ravel(), (bt @ tile @ bt.T).ravel())
pictures.panels(
    {name: np.array(matrix, float) for name, matrix in matrices.items()},
    size=(9, 2.6),
    cmap="RdBu",
    limits=(-8, 8),
    numbers=lambda value: str(Fraction(value).limit_denominator(24)),
)

# %% [markdown]
# ### Exercise 3: what Winograd saves
#
# F(m x m, r x r) makes m x m outputs of a filter of r x r. By what factor does it need fewer multiplications than the
# definition?

# %%
saving = ...  # instead of this line: def saving(m, r): ...
n12.check_saving(saving)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(m, r):
    return (m * m * r * r) / (m + r - 1) ** 2


assert n12.check_saving.accepts(solution)

# %% [markdown]
# ## 6 · What Winograd costs
#
# Three quarters of the multiplications are saved, but by far not three quarters of the time: the transforms are
# products and copies, too (section 3 has the times). The other price is accuracy. Why not use F(6x6, 3x3), or larger?
# Each additional output needs one more point, and points far from 1 make large powers that cancel again. In fractions
# that is harmless; in float32 it loses digits. Here is the recipe for any points: $A^T$ holds their powers, $G$
# evaluates the filter and divides, and $B^T$ is then determined by the correct result.


# %%
def winograd_matrices(points, r):
    """A^T (m, n), G (n, r), B^T (n, n) of F(m, r) for n - 1 points and infinity, in fractions; m = n + 1 - r."""
    n = len(points) + 1
    m = n + 1 - r

    def powers(degree):
        rows = [[Fraction(p) ** k for k in range(degree)] for p in points]
        return np.array([*rows, [Fraction(0)] * (degree - 1) + [Fraction(1)]])

    scale = [Fraction(1, int(np.prod([p - q for q in points if q != p]))) for p in points] + [Fraction(1)]
    a, g_rows = powers(m), powers(r) * np.array(scale)[:, None]
    # B^T turns values into coefficients: its rows are the polynomials that vanish at all points but one
    bt = np.zeros((n, n), dtype=object) + Fraction(0)
    for row in range(n):
        polynomial = [Fraction(1)]
        for q in points if row == n - 1 else [q for k, q in enumerate(points) if k != row]:
            polynomial = [
                (polynomial[k - 1] if k else 0) - (q * polynomial[k] if k < len(polynomial) else 0)
                for k in range(len(polynomial) + 1)
            ]
        bt[row, : len(polynomial)] = polynomial
    return a.T, g_rows, bt


POINTS = {
    "F(2, 3)": (0, 1, -1),
    "F(4, 3)": (0, 1, -1, 2, -2),
    "F(6, 3)": (0, 1, -1, 2, -2, 3, -3),
    "F(8, 3)": (0, 1, -1, 2, -2, 3, -3, 4, -4),
}
largest = {}
for name, points in POINTS.items():
    at, g_, bt = winograd_matrices(points, 3)
    n = len(bt)
    signal, row = [Fraction(k * k - 7) for k in range(n)], [Fraction(2), Fraction(7), Fraction(-1)]
    y = at @ ((g_ @ row) * (bt @ signal))
    assert list(y) == [sum(row[k] * signal[i + k] for k in range(3)) for i in range(n - 2)]
    largest[name] = int(abs(bt).max())
    print(f"{name}: {n} points, exact in fractions; the largest number in B^T is {largest[name]}")
assert list(largest.values()) == [1, 5, 49, 820]

# %% [markdown]
# The numbers in $B^T$ grow quickly. What does that cost in float32?


# %% tags=["varies"]
def error_of(points, dtype="float32"):
    """The largest error of 1-D outputs, each a sum over 64 channels, against the sums in float64."""
    at, g_, bt = (matrix.astype(float) for matrix in winograd_matrices(points, 3))
    n = len(bt)
    rng = np.random.default_rng(SEED)
    d, w = rng.standard_normal((400, 64, n)), rng.standard_normal((64, 3))
    exact = sum(np.einsum("bcm,c->bm", d[:, :, k : k + n - 2], w[:, k]) for k in range(3))
    d, w, at, g_, bt = (array.astype(dtype) for array in (d, w, at, g_, bt))
    y = ((d @ bt.T) * (w @ g_.T)).sum(axis=1) @ at.T
    return float(abs(y - exact).max() / abs(exact).max())


saved = [n12.times_fewer(len(points) - 1, 3) for points in POINTS.values()]
errors = [error_of(points) for points in POINTS.values()]
assert errors == sorted(errors) and errors[2] > 5 * errors[1] and saved[2] < 1.3 * saved[1] and saved[1] == 4
pictures.compromise(list(POINTS), saved, errors)

# %% [markdown]
# F(4, 3) needs a quarter of the multiplications, and its error is about ten times that of the plain sum (section 3).
# The next one loses about another digit and saves little more. So the library has F(4, 3). float64, which serves to
# check gradients, never takes Winograd's way.
#
# The next picture shows the errors of all outputs of our layer, by the way that computed them.

# %% tags=["varies"]
errors = {way: abs(to_host(in_this_way(way)()) - exact).ravel() / abs(exact).max() for way in SERVING}
digits = {way: np.log10(values + 1e-12) for way, values in errors.items()}
medians = {way: float(np.median(values)) for way, values in digits.items()}
assert all(medians["winograd"] > medians[way] + 0.3 for way in SERVING if way != "winograd") or DEVICE == "gpu"
pictures.histograms(digits, np.linspace(-11, -4, 100), xlabel="log10 of the error, by the largest output")

# %% [markdown]
# ## 7 · How minifcn chooses
#
# `choose` in `minifcn/kernels/convolution.py` decides by dtype and geometry alone, so the same net takes the same way
# every time. Here is its code (`i` and `o` are the channels, `n` images, `out` windows), and what it chooses for the
# layers of FCN-8s on a photograph of 500x500. Wide layers of 3x3 take Winograd's way, which no other kernel can:

# %%
print(inspect.getsource(choose).split('"""')[2])
chosen = {}
for layer_ in vgg_layers(64, 500):
    array = np.empty(0, "float32")
    way = choose(array, layer_.windows, layer_.inputs, layer_.outputs, 1, (layer_.out, layer_.out))
    kernel = f"{layer_.kernel}x{layer_.kernel}"
    chosen[layer_.name] = way
    print(f"{layer_.name:<9}{layer_.inputs:>5} to {layer_.outputs:<5}{kernel}  {layer_.out:>4} windows a side: {way}")
assert chosen["conv2_1"] == "winograd"
assert {each.kernel for each in vgg_layers(64, 500) if chosen[each.name] == "winograd"} == {3}
assert choose(np.empty(0, "float64"), layer.windows, 64, 64, 1, (64, 64)) == "im2col"

# %% [markdown]
# ## 8 · What limits a layer: arithmetic intensity
#
# A layer must multiply, and it must move its images and its weights, each at least once. The number of multiply-adds
# per byte is its *arithmetic intensity*. It follows from the shapes alone, and is the same on every machine.

# %%
layers = vgg_layers(64, 500)
intensity = {each.name: each.multiply_adds / each.least_bytes(1) for each in layers}
assert round(intensity["conv1_1"]) == 7
assert all(50 < value < 460 for name, value in intensity.items() if name != "conv1_1")
pictures.bars(
    {"": list(intensity.values())}, list(intensity), colours=pictures.COLOURS[:1], ylabel="multiply-adds per byte"
)

# %% [markdown]
# `conv1_1`, from three channels, uses each byte 7 times; every other layer more than 50 times.
#
# ### Exercise 4: arithmetic intensity
#
# Write the arithmetic intensity for a layer with stride 1 whose output is as large as its image, in float32.

# %%
intensity_of = ...  # instead of this line: def intensity_of(inputs, outputs, size, kernel): ...
n12.check_intensity(intensity_of)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(inputs, outputs, size, kernel):
    multiply_adds = size**2 * kernel**2 * inputs * outputs
    numbers = size**2 * inputs + size**2 * outputs + kernel**2 * inputs * outputs
    return multiply_adds / (4 * numbers)


assert n12.check_intensity.accepts(solution)

# %% [markdown]
# ## 9 · The roofline of this machine
#
# Two numbers define the roof: how fast a large matrix product multiplies, and how fast memory moves data. If a layer
# does few multiply-adds per byte, the slope limits it, otherwise the flat part; they meet at the *ridge*. Each point is
# a layer of a thin FCN-8s on 256x256, computed in one way. (A multiply-add is two operations, FLOP.)

# %% tags=["varies"]
side = 1024
a = xp.ones((side, side), "float32")
wide = xp.ones(1 << 23, "float32")  # 32 MB, too large for a core's cache
target = wide.copy()


def copying():
    target[...] = wide
    return target


flops, bandwidth = 2 * side**3 / seconds_of(lambda: a @ a) / 1e9, 2 * wide.nbytes / seconds_of(copying) / 1e9
thin = 2 * 16 * side**2 / seconds_of(lambda: a[:16] @ a) / 1e9  # 16 rows, as in a layer of 16 channels
ridge = flops / bandwidth / 2
print(f"{MACHINE}, one thread")
print(f"{flops:.0f} GFLOP/s in a matrix product, {bandwidth:.1f} GB/s in a copy: the ridge is at {ridge:.1f}")
print(f"{thin:.0f} GFLOP/s in a product with 16 rows")
assert DEVICE == "gpu" or thin < flops

points = {}
for each in vgg_layers(16, 256 - 200)[:-2]:  # padded by 100 they are as large as an image of 256
    x, w, g = fresh(each)
    across = each.multiply_adds / each.least_bytes(1)
    for way in SERVING:
        points.setdefault(way, []).append((across, 2 * each.multiply_adds / seconds_of(in_this_way(way), 9) / 1e9))
assert DEVICE == "gpu" or all(points[way][0][1] < points[way][-1][1] for way in ("im2col", "blocks"))
pictures.roofline(points, flops, bandwidth)

# %% [markdown]
# The points lie below the roof, those with few channels (on the left) the furthest. They are right of the ridge, if
# your machine is like ours, so it is not memory that limits them, but the shape of their matrices: BLAS copies matrices
# into its own order before it multiplies, and with 16 rows that copy is a large part of the work. A point above the
# roof is possible: Winograd is credited with multiplications that it does not do.
#
# ## 10 · A second thread
#
# NumPy releases Python's lock while it multiplies, so blocks of one convolution can be computed on all cores at once.
# Waking a thread costs time, too: below `ALONE`, twenty million multiply-adds, `useful_threads` in
# `minifcn/kernels/threads.py` gives all of a layer to one thread.

# %%
assert ALONE == 20_000_000 and useful_threads(ALONE - 1) == 1
side_alone = (ALONE / (9 * 64 * 64)) ** 0.5
print(f"{ALONE:,} multiply-adds: a layer of 64 channels with {side_alone:.0f} pixels a side")

# %% [markdown]
# The picture shows the time on the clock of a layer of 64 channels against its side, on one thread and on all cores.
# The line above it says what the other cores gain for the largest layer. If they have other work meanwhile, that is
# little, nothing, or even a loss.

# %% tags=["varies"]
sides, clocks = (16, 32, 64, 96), {}
for count in sorted({1, cores()}):
    set_threads(count)
    times = []
    for pixels in sides:
        x, w, g = fresh(Layer("", 64, 64, pixels, 3, 1))
        times.append(1e3 * min(take_turns([in_this_way("blocks")], 15)[0]))  # the clock, for two threads share it
    clocks[count] = times
set_threads(None)
gain = clocks[1][-1] / clocks[max(clocks)][-1]
print(f"{sides[-1]} pixels a side: {gain:.2f} times as fast on {max(clocks)} threads")
pictures.lines(
    {f"{count} thread{'s' if count > 1 else ''}": (sides, times) for count, times in clocks.items()},
    styles=("-o",),
    across={"below, one thread is used": side_alone},
    xscale="log",
    yscale="log",
    xticks=sides,
    xticklabels=sides,
    xlabel="pixels a side",
    ylabel="ms",
)

# %% [markdown]
# The result does not depend on which thread takes which block: every task writes its own part of the output.

# %%
x, w, g = fresh(Layer("", 64, 64, 64, 3, 1))
results = []
for count in (1, 2, 3):
    set_threads(count)
    results.append(to_host(in_this_way("blocks")()))
set_threads(None)
apart = max(float(abs(result - results[0]).max()) for result in results) / float(abs(results[0]).max())
again = to_host(in_this_way("blocks")())
assert apart < 1e-6 and np.array_equal(again, to_host(in_this_way("blocks")()))
print("one, two and three threads agree within rounding; the same call twice gives the same bits")

# %% [markdown]
# ## 11 · The same on a GPU
#
# Set `DEVICE = "gpu"` in the first cell and run everything again. No line of an op changes, because each op gets the
# library of its arrays from `xp_of(x)`. But caches, blocks and threads are those of a CPU, so on a GPU `choose`
# always returns im2col. Its copies are strided slices, without atomic additions, so that every run gives the same bits,
# and its product is cuBLAS's. A clock must wait for the GPU: `seconds_of` above does.

# %%
print(inspect.getsource(im2col))
x = xp.asarray(rng.standard_normal((1, 8, 32, 32), dtype="float32"))
w = xp.asarray(rng.standard_normal((8, 8, 3, 3), dtype="float32"))
g = Windows((3, 3), padding=(1, 1))
here = correlate(x, w, g)
there = correlate(to_host(x).astype("float64"), to_host(w).astype("float64"), g)
assert here.dtype == "float32" and np.allclose(to_host(here), there, atol=1e-4)
print(f"computed on the {DEVICE}; equal to float64 on the host within rounding")

# %% [markdown]
# ## Summary
#
# The step from loops to a matrix product gains most. All later steps, which keep pieces in the cache, copy less or
# multiply less, gain a small factor, and not for every layer; what they save surely is memory. Winograd's convolution
# trades multiplications for digits. The arithmetic intensity of a layer and the roofline of a machine say what limits
# it; threads pay only above a certain amount of work.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. By what factor does F(2x2, 3x3) need fewer multiplications than the definition?
#    * (a) 2.25
#    * (b) 4
#    * (c) 9
#
# 2. How many times as large as the image are the columns of a 3x3 kernel with stride 1?
#    * (a) 3
#    * (b) 6
#    * (c) 9
#
# 3. Why does float64 never take Winograd's way here?
#    * (a) it is slower
#    * (b) it serves to check gradients, and must be exact
#    * (c) NumPy has no float64 product

# %%
letters = ...
n12.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n12.check_quiz.accepts("acb")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/kernels/im2col.py` and `products.py`, then the files of `WAYS` in `minifcn/kernels/convolution.py`: each
#   is one rung.
# * `minifcn/kernels/threads.py`: how the work is divided among threads.
# * `minifcn/experiments/bench/stopwatch.py`: how to measure on a machine that has other work;
#   `minifcn/experiments/bench/studies.py`: what is measured.
# * `docs/performance.md`: all layers, beside PyTorch. On your machine: `minifcn bench ladder`, `minifcn bench layers`.
# * This was the last notebook. `docs/CONTRIBUTING.md` shows how to add an op: write one.
