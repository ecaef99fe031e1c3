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
# # 02 · Convolution is a matrix product
#
# One operation takes nearly all the time of a convolutional network. You can write it as six loops, which are easy to
# understand and very slow, or as one matrix product, which a computer does fastest.
#
# Afterwards you can
#
# * say for any kernel, stride, padding and dilation which pixels an output depends on, and how many outputs there
#   are;
# * turn windows into columns, and a convolution into a matrix product;
# * derive the three gradients of a convolution, and find them in the source, one line each;
# * test the gradient of any linear function with two dot products.
#
# **The paper.** Section 3 says of every layer, with kernel size $k$ and stride $s$,
#
# $$ y_{ij} = f_{ks}\left(\{x_{si+\delta i,\; sj+\delta j}\}_{0 \le \delta i,\, \delta j < k}\right) $$
#
# An output depends on a window of side $k$, and the windows step by $s$. (The paper prints $\le k$; there are $k$
# values of $\delta i$.) Section 3.3 builds upsampling from the gradient that you derive below.
#
# **Before you begin.** You need notebook 01: an operation is its value and one gradient for each input. Reading takes
# about half an hour, all exercises together 75 minutes.

# %% tags=["varies"]
import inspect
import platform
import time

import numpy as np
from exercises import n02
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import minifcn
from minifcn import ops, viz
from minifcn.backend import to_device, to_host
from minifcn.gradcheck import gradcheck
from minifcn.graph import graph
from minifcn.kernels import products
from minifcn.kernels.convolution import correlate, spread, weigh
from minifcn.kernels.im2col import Windows, col2im, im2col
from minifcn.kernels.threads import threads

SEED = 2
DEVICE = "cpu"  # or "gpu"

print(f"device {DEVICE}, {threads()} threads")


def numbers(axes, values, *, title="", fmt="{:g}", cmap="Blues", limits=(None, None)):
    """A small array as squares with their numbers."""
    axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1])
    low, high = axes.images[0].get_clim()
    for (i, j), value in np.ndenumerate(values):
        dark = cmap == "Blues" and value > low + 0.6 * (high - low)
        axes.text(j, i, fmt.format(value), ha="center", va="center", fontsize=8, color="white" if dark else viz.INK)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def box(axes, row, col, height, width, colour, **options):
    axes.add_patch(Rectangle((col - 0.5, row - 0.5), width, height, fill=False, edgecolor=colour, lw=2.5, **options))


# %% [markdown]
# ## 1 · What does a convolution do to a photograph?
#
# A convolution moves nine weights over the image. At each place it multiplies them with the nine pixels below them
# and adds the products. The nine numbers determine what the result shows.

# %%
photo = Image.open("photos/chelsea.jpg").convert("L").resize((180, 120))
image = np.asarray(photo, dtype=np.float64)[None, None] / 255
filters = {
    "as it is": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "mean of nine": np.full((3, 3), 1 / 9),
    "right minus left": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "below minus above": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
}
w = np.array(list(filters.values()), dtype=np.float64)[:, None]
maps = ops.conv2d(to_device(image, DEVICE), to_device(w, DEVICE), padding=1)

figure = Figure(figsize=(8, 2.6), layout="constrained")
panels = figure.subplots(2, 4, height_ratios=(1, 1.6))
for column, (name, kernel) in enumerate(filters.items()):
    numbers(panels[0, column], np.asarray(kernel), fmt="{:.2g}", cmap="RdBu", limits=(-3, 3), title=name)
    panels[1, column].imshow(to_host(maps.data)[0, column], cmap="gray")
    panels[1, column].axis("off")
assert np.allclose(to_host(maps.data)[0, 0], image[0, 0])  # the first filter changes nothing
viz.show(figure)

# %% [markdown]
# ## 2 · Six loops
#
# With $C$ input channels and $O$ output channels, stride $s$, and without padding:
#
# $$ y_{o,i,j} = b_o + \sum_{c} \sum_{u} \sum_{v} w_{o,c,u,v} \; x_{c,\; is+u,\; js+v} $$
#
# Three indices on the left, three sums on the right: six loops.


# %%
def six_loops(x, w, b, stride=1):
    (channels, height, width), (outputs, _, kh, kw) = x.shape, w.shape
    y = np.zeros((outputs, (height - kh) // stride + 1, (width - kw) // stride + 1))
    for o in range(outputs):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                y[o, i, j] = b[o]
                for c in range(channels):
                    for u in range(kh):
                        for v in range(kw):
                            y[o, i, j] += w[o, c, u, v] * x[c, i * stride + u, j * stride + v]
    return y


x = np.arange(25.0).reshape(1, 5, 5) % 7
w = np.array([[[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]]])
b = np.zeros(1)
y = six_loops(x, w, b)

figure = Figure(figsize=(7, 2.3), layout="constrained")
panels = figure.subplots(1, 3, width_ratios=(5, 3, 3))
numbers(panels[0], x[0], title="x, and the window of one output")
box(panels[0], 1, 2, 3, 3, viz.SECOND)
numbers(panels[1], w[0, 0], title="w", cmap="RdBu", limits=(-4, 4))
numbers(panels[2], y[0], title="y", cmap="RdBu", limits=(-40, 40))
box(panels[2], 1, 2, 1, 1, viz.SECOND)
assert y[0, 1, 2] == (x[0, 1:4, 2:5] * w[0, 0]).sum()
viz.show(figure)

# %% [markdown]
# The library agrees, on several channels and with a stride.

# %%
rng = np.random.default_rng(SEED)
x, w, b = (rng.standard_normal(shape) for shape in ((3, 9, 8), (4, 3, 3, 2), (4,)))
for stride in (1, 2, 3):
    theirs = ops.conv2d(to_device(x[None], DEVICE), to_device(w, DEVICE), to_device(b, DEVICE), stride=stride)
    ours = six_loops(x, w, b, stride)
    assert np.allclose(ours, to_host(theirs.data)[0])
    print(f"stride {stride}: {ours.shape[1:]} outputs, equal")

# %% [markdown]
# How long do they take? The layer below has 32×32 pixels, 8 channels in and 8 out, and windows of 3×3. Every output
# of every channel takes $C k^2 = 72$ multiply-adds.

# %% tags=["varies"]
x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 32, 32), (8, 8, 3, 3), (8,)))
begin = time.perf_counter()
slow = six_loops(x, w, b)
loops = time.perf_counter() - begin
on_device = [to_device(array, DEVICE) for array in (x[None], w, b)]
ops.conv2d(*on_device)  # once in advance: the first call prepares
begin = time.perf_counter()
fast = to_host(ops.conv2d(*on_device).data)[0]
library = time.perf_counter() - begin
assert np.allclose(slow, fast, atol=1e-3)
multiply_adds = slow.size * w[0].size
assert w[0].size == 72
print(f"{multiply_adds:,} multiply-adds on {platform.machine()}, {threads()} threads")
print(f"six loops {loops * 1000:8.1f} ms\nconv2d    {library * 1000:8.1f} ms, {loops / library:,.0f} times as fast")

# %% [markdown]
# ## 3 · Windows
#
# Four numbers determine where the windows lie: kernel, stride, padding, dilation. Along one axis, output $i$ uses the
# pixels
#
# $$ i s + u d - p \qquad u = 0 \ldots k-1 $$
#
# Pixels outside the image are zero. Below, you see the outputs (0, 0) in blue and (1, 1) in orange; the padding is
# grey.

# %%
geometries = {
    "kernel 3": Windows((3, 3)),
    "stride 2": Windows((3, 3), stride=(2, 2)),
    "padding 1": Windows((3, 3), padding=(1, 1)),
    "dilation 2": Windows((3, 3), dilation=(2, 2)),
}
side = 7
figure = Figure(figsize=(8, 2.3), layout="constrained")
for axes, (name, g) in zip(figure.subplots(1, 4), geometries.items(), strict=True):
    out, p = g.out_size((side, side)), g.padding[0]
    reach = (-p - 0.5, side + p - 0.5)
    axes.imshow(np.pad(np.ones((side, side)), p), cmap="gray", vmin=-2.5, vmax=1, extent=(*reach, *reach[::-1]))
    for _, (rows, cols) in g.taps(out):  # for each weight: the rows and columns of the padded image, one per window
        for window, colour, size in ((0, viz.ACCENT, 60), (1, viz.SECOND, 16)):
            row, col = (range(side + 2 * p)[part][window] - p for part in (rows, cols))
            axes.scatter(col, row, s=size, color=colour, marker="s")
    for line in range(side + 1):
        axes.plot([-0.5, 6.5], [line - 0.5] * 2, color=viz.FAINT, lw=0.5)
        axes.plot([line - 0.5] * 2, [-0.5, 6.5], color=viz.FAINT, lw=0.5)
    axes.set(xticks=[], yticks=[], xlim=(-1.6, 7.6), ylim=(7.6, -1.6))
    axes.set_title(f"{name}: {out[0]}×{out[1]} outputs", fontsize=9)
    axes.axis("off")
assert [g.out_size((side, side))[0] for g in geometries.values()] == [5, 3, 7, 3]
viz.show(figure)

# %% [markdown]
# ### Exercise 1: how many outputs?
#
# Write a function `(size, kernel, stride, padding, dilation)` that returns the number of outputs along one axis: how
# many windows fit wholly into the padded image. (A window that hangs over the edge does not count. Pooling is
# different; see notebook 04.)

# %%
answer = ...
n02.check_outputs(answer)


# %% tags=["solution"] jupyter={"source_hidden": true}
def outputs(size, kernel, stride, padding, dilation):
    span = (kernel - 1) * dilation + 1  # from the first pixel under the kernel to the last
    return (size + 2 * padding - span) // stride + 1


assert n02.check_outputs.accepts(outputs)

# %% [markdown]
# ## 4 · Windows become columns
#
# The three inner loops are a dot product: the weights as one long row, the pixels of the window as one long column.
# All windows side by side are a matrix. Then the whole layer is one product of two matrices:
#
# $$ \underbrace{y}_{O \times H'W'} = \underbrace{w}_{O \times C k_h k_w} \cdot
# \underbrace{\mathrm{im2col}(x)}_{C k_h k_w \times H'W'} $$
#
# Here is an image of 4×4 pixels, numbered, with its windows of 2×2.

# %%
x = np.arange(16.0).reshape(1, 1, 4, 4)
g = Windows((2, 2))
columns = im2col(to_device(x, DEVICE), g)
print("columns (C, kh, kw, N, H', W'):", columns.shape)
matrix = to_host(columns).reshape(4, 9)

figure = Figure(figsize=(8, 2.3), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(4, 9))
numbers(left, x[0, 0], title="the image")
box(left, 1, 1, 2, 2, viz.SECOND)
numbers(right, matrix, title="its columns: a row for each weight, a column for each window")
box(right, 0, 4, 4, 1, viz.SECOND)
assert matrix[:, 4].tolist() == x[0, 0, 1:3, 1:3].ravel().tolist()
viz.show(figure)

# %% [markdown]
# Each column is a window. Each *row* is the image, shifted and without its border: it holds the pixels that one
# weight meets. So `im2col` need not loop over windows at all. It copies one shifted image for each weight: nine
# copies for a kernel of 3×3, whatever the size of the image.

# %%
print(inspect.getsource(im2col))

# %%
x, w = rng.standard_normal((2, 3, 8, 7)), rng.standard_normal((5, 3, 3, 3))
g = Windows((3, 3), stride=(2, 2), padding=(1, 1))
columns = to_host(im2col(to_device(x, DEVICE), g)).reshape(3 * 3 * 3, -1)
y = w.reshape(5, -1) @ columns
y = y.reshape(5, 2, *g.out_size((8, 7))).transpose(1, 0, 2, 3)  # columns are numbered image by image
theirs = to_host(ops.conv2d(to_device(x, DEVICE), to_device(w, DEVICE), stride=2, padding=1).data)
assert np.allclose(y, theirs)
print(f"({w.reshape(5, -1).shape[0]}, {w[0].size}) @ {columns.shape} -> y {y.shape}, as conv2d says")

# %% [markdown]
# ## 5 · Three gradients, on paper
#
# The loss $L$ sends $g_{o,i,j} = \partial L / \partial y_{o,i,j}$ back. Take stride 1 and follow one letter at a time
# through $y_{o,i,j} = b_o + \sum_{c,u,v} w_{o,c,u,v} \, x_{c,i+u,j+v}$.
#
# **The bias.** $b_o$ is part of every output of channel $o$, with slope 1:
#
# $$ \frac{\partial L}{\partial b_o} = \sum_{i,j} g_{o,i,j} $$
#
# **A weight.** $w_{o,c,u,v}$ is part of every output of channel $o$ as well. At output $(i, j)$ it multiplies the
# pixel $x_{c,i+u,j+v}$, and that is the slope:
#
# $$ \frac{\partial L}{\partial w_{o,c,u,v}} = \sum_{i,j} g_{o,i,j} \; x_{c,i+u,j+v} $$
#
# These pixels are a row of the columns. The picture shows each weight of a 2×2 kernel and all the pixels that it
# multiplies.

# %%
figure = Figure(figsize=(8, 2.2), layout="constrained")
colours = (viz.ACCENT, viz.SECOND, "#3c8d40", "#7a4fb5")
taps = list(Windows((2, 2)).taps((4, 4)))
panels = figure.subplots(1, 5, width_ratios=(2.4, 5, 5, 5, 5))
numbers(panels[0], np.zeros((2, 2)), fmt="", title="w")
for axes, colour, ((u, v), (rows, cols)) in zip(panels[1:], colours, taps, strict=True):
    met = np.zeros((5, 5))
    met[rows, cols] = 1
    axes.imshow(met, cmap="Greys", vmax=4)
    box(axes, rows.start, cols.start, 4, 4, colour)
    box(panels[0], u, v, 1, 1, colour)
    panels[0].text(v, u, f"{u},{v}", ha="center", va="center", color=colour)
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"w[{u},{v}] meets", fontsize=9, color=colour)
    assert met.sum() == 16  # as many pixels as there are outputs
viz.show(figure)

# %% [markdown]
# **A pixel.** $x_{c,p,q}$ is part of the outputs whose windows contain it. Output $(i, j)$ uses it with the weight
# $(u, v) = (p - i, q - j)$:
#
# $$ \frac{\partial L}{\partial x_{c,p,q}} = \sum_{o} \sum_{u,v} w_{o,c,u,v} \; g_{o,\,p-u,\,q-v} $$
#
# Here $g$ is zero outside of $y$. The signs have turned: the kernel runs backwards. How many windows contain a pixel?
# Let every window put a 1 on each of its pixels. That is what `col2im` does, the adjoint of `im2col`: each copy goes
# back to the pixel it came from, and is *added* there.

# %%
figure = Figure(figsize=(8, 2.8), layout="constrained")
counts = {}
for axes, stride in zip(figure.subplots(1, 3), (1, 2, 3), strict=True):
    g = Windows((3, 3), stride=(stride, stride))
    out = g.out_size((9, 9))
    ones = to_device(np.ones((1, 3, 3, 1, *out)), DEVICE)
    counts[stride] = to_host(col2im(ones, g, (9, 9)))[0, 0]
    numbers(axes, counts[stride], title=f"kernel 3, stride {stride}", limits=(0, 9))
assert counts[1].max() == 9 and set(counts[2].flat) == {1, 2, 4} and (counts[3] == 1).all()
viz.show(figure)

# %% [markdown]
# In the middle, with stride 1, a pixel is in nine windows, with a different weight in each. At a corner it is in one.
# With stride 2 the number depends on where the pixel lies: 1, 2 or 4. Remember this checkerboard: in notebook 07 it
# is the best-known pitfall of upsampling.
#
# ### Exercise 2: the gradient at the image
#
# Write a function `(gy, w, size, stride)` that returns the gradient at an image of one channel: `gy` (H', W'), `w`
# (kh, kw), `size` (H, W). No padding, no dilation. Four loops will do.

# %%
answer = ...
n02.check_grad_x(answer)


# %% tags=["solution"] jupyter={"source_hidden": true}
def grad_x(gy, w, size, stride):
    gx = np.zeros(size)
    for i, j in np.ndindex(gy.shape):
        for u, v in np.ndindex(w.shape):
            gx[i * stride + u, j * stride + v] += w[u, v] * gy[i, j]  # the forward line, turned round
    return gx


assert n02.check_grad_x.accepts(grad_x)

# %% [markdown]
# ## 6 · Three gradients, in the source
#
# With columns, the two longer formulas become matrix products, too:
#
# $$ \frac{\partial L}{\partial w} = g \cdot \mathrm{im2col}(x)^T \qquad \frac{\partial L}{\partial x} =
# \mathrm{col2im}(w^T \cdot g) $$

# %%
x, w, b = (rng.standard_normal(shape) for shape in ((2, 3, 8, 7), (5, 3, 3, 3), (5,)))
g = Windows((3, 3), stride=(2, 2), padding=(1, 1))
gy = rng.standard_normal((2, 5, *g.out_size((8, 7))))

flat = gy.transpose(1, 0, 2, 3).reshape(5, -1)  # (O, N H' W'), like the columns
columns = to_host(im2col(to_device(x, DEVICE), g))
gb = flat.sum(axis=1)
gw = (flat @ columns.reshape(27, -1).T).reshape(w.shape)
back = (w.reshape(5, -1).T @ flat).reshape(columns.shape)
gx = to_host(col2im(to_device(back, DEVICE), g, (8, 7)))

parameters = [minifcn.Parameter(to_device(array, DEVICE)) for array in (x, w, b)]
ops.conv2d(*parameters, stride=2, padding=1).backward(to_device(gy, DEVICE))
for name, ours, parameter in zip(("x", "w", "b"), (gx, gw, gb), parameters, strict=True):
    apart = np.abs(ours - to_host(parameter.grad)).max()
    assert apart < 1e-12
    print(f"gradient of {name} {ours.shape}: equal")

# %% [markdown]
# This is the operation in the library. The value is `correlate`. The three gradients are three short functions, and
# each is one of the formulas above. (With `relu=True` the operation sets negative outputs to zero at once; then all
# three gradients begin with `passing`, the gradient of that ReLU.)

# %%
print(inspect.getsource(ops.conv2d))

# %%
print(inspect.getsource(products.spread))
print(inspect.getsource(products.weigh_block))

# %% [markdown]
# `spread` computes `weights @ gy` and passes it to `col2im`; `weigh_block` adds `gy @ columns.T` (in `add_product`).
# The columns are nine times as large as the image. They are made one block at a time, and again for the gradient: the
# graph remembers only the image.

# %%
x = to_device(rng.standard_normal((1, 16, 64, 64)), DEVICE)
w = minifcn.Parameter(to_device(rng.standard_normal((16, 16, 3, 3)), DEVICE))
told = graph(ops.conv2d(x, w, padding=1))
print(told)
all_columns = im2col(x, Windows((3, 3), padding=(1, 1)))
print(f"its columns would be {all_columns.nbytes / x.nbytes:.0f} times as large as x")
assert told.nbytes == x.nbytes and all_columns.nbytes == 9 * x.nbytes

# %% [markdown]
# You can check the formulas without any formula: move every number a little. Notebook 03 does that.

# %%
small = [to_device(rng.standard_normal(shape), DEVICE) for shape in ((1, 2, 5, 4), (3, 2, 3, 2), (3,))]
error = gradcheck(ops.conv2d, *small, stride=(2, 1), padding=1)
print(f"largest relative error below 1e-7: {error < 1e-7}")
assert error < 1e-7

# %% [markdown]
# ## 7 · One matrix, and its transpose
#
# For fixed weights a convolution is linear in the image. So it *is* a matrix $A$ with a row for each output and a
# column for each pixel, mostly zeros. Images in which one pixel is 1 give the columns of $A$. Gradients in which one
# output is 1, passed to `spread`, give the columns of its matrix.

# %%
kernel = np.array([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
g, size = Windows((3, 3), stride=(2, 2), padding=(1, 1)), (6, 6)
out = g.out_size(size)
w = to_device(kernel, DEVICE)
pixels = to_device(np.eye(36).reshape(36, 1, *size), DEVICE)  # a batch of images, each with one pixel
cells = to_device(np.eye(out[0] * out[1]).reshape(-1, 1, *out), DEVICE)
A = to_host(correlate(pixels, w, g)).reshape(36, -1).T
B = to_host(spread(cells, w, g, size)).reshape(len(cells), -1).T

figure = Figure(figsize=(7, 3.2), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(36, 12))
left.imshow(A, cmap="Blues")
left.set(title="A: correlate", xlabel="36 pixels", ylabel=f"{len(A)} outputs", yticks=[0, 4, 8])
right.imshow(B, cmap="Blues")
right.set(title="spread", xlabel=f"{len(A)} outputs", ylabel="36 pixels", xticks=[0, 4, 8])
assert (B == A.T).all()  # exactly
viz.show(figure)

# %% [markdown]
# The gradient at the image is exactly the transpose. For a transposed matrix, this holds for all vectors:
#
# $$ \langle A x, g \rangle = \langle x, A^T g \rangle $$
#
# A convolution is linear in its weights as well, so there are three ways to compute one number. They agree for any
# geometry, without writing down a matrix:

# %%
print("kernel  stride  padding  dilation  groups     <y, gy>     <x, gx>     <w, gw>")
for kernel, stride, padding, dilation, groups in (
    (3, 1, 0, 1, 1),
    (3, 2, 1, 1, 1),
    (2, 3, 0, 1, 2),
    (3, 1, 2, 2, 1),
    (5, 2, 3, 1, 2),
):
    g = Windows(*[(value, value) for value in (kernel, stride, padding, dilation)], groups)
    x, w = rng.standard_normal((2, 4, 11, 10)), rng.standard_normal((6, 4 // groups, kernel, kernel))
    gy = rng.standard_normal((2, 6, *g.out_size((11, 10))))
    x, w, gy = (to_device(array, DEVICE) for array in (x, w, gy))
    pairs = (correlate(x, w, g), gy), (x, spread(gy, w, g, (11, 10))), (w, weigh(x, gy, g))
    products_ = [(a * b).sum().item() for a, b in pairs]
    print(f"{kernel:>6}  {stride:>6}  {padding:>7}  {dilation:>8}  {groups:>6}", *[f"{v:11.6f}" for v in products_])
    assert np.allclose(products_, products_[0], rtol=1e-10)

# %% [markdown]
# ### Exercise 3: find the adjoint
#
# `n02.suspects` holds three functions `(gy, w, size)`: "A", "B" and "C". Each claims to be the gradient at the image
# for a convolution of one channel with stride 1 and padding 1. One of them is right. Find it with two dot products
# and random numbers: `n02.forward(x, w)` computes $y$. Answer with its letter.

# %%
answer = ...
n02.check_adjoint(answer)

# %% tags=["solution"] jupyter={"source_hidden": true}
draw = np.random.default_rng(SEED)
x, w = draw.standard_normal((6, 7)), draw.standard_normal((3, 3))
y = n02.forward(x, w)
gy = draw.standard_normal(y.shape)
kept = [name for name, f in n02.suspects.items() if np.isclose((y * gy).sum(), (x * f(gy, w, x.shape)).sum())]
assert n02.check_adjoint.accepts(kept[0])

# %% [markdown]
# ## 8 · The gradient, used forward
#
# `spread` takes a small map and adds a window for each of its numbers. As the gradient of a convolution with stride 2
# it makes a larger map out of a smaller one. Called forward, it is upsampling: the paper's "backwards strided
# convolution" of section 3.3. It needs no second operation; the same three products are enough.

# %%
dot = np.zeros((1, 1, 4, 4))
dot[0, 0, 1, 1], dot[0, 0, 2, 3] = 16, 8
bilinear = np.outer([1, 3, 3, 1], [1, 3, 3, 1])[None, None] / 16
large = ops.conv_transpose2d(to_device(dot, DEVICE), to_device(bilinear, DEVICE), stride=2)
g = Windows((4, 4), stride=(2, 2))
same = spread(to_device(dot, DEVICE), to_device(bilinear, DEVICE), g, large.shape[2:])
assert (to_host(large.data) == to_host(same)).all()

figure = Figure(figsize=(6, 2.6), layout="constrained")
left, right = figure.subplots(1, 2)
numbers(left, dot[0, 0], title="two numbers")
numbers(right, to_host(large.data)[0, 0], title="each paints a kernel, 2 pixels apart")
viz.show(figure)

# %% [markdown]
# ## Summary
#
# A convolution multiplies every window of the image with the same weights. With the windows as columns it is one
# matrix product, and so are its gradients: `gy` times the columns for the weights, the weights times `gy`, added back
# into the image, for the image. The gradient at the image is the transpose of the convolution, and two dot products
# test it.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. An image of 32 pixels, a kernel of 5, stride 1, padding 2. How many outputs are there along an axis?
#    * (a) 28
#    * (b) 30
#    * (c) 32
#
# 2. Which pixels does an output of a 3x3 kernel with dilation 2 span?
#    * (a) 5x5, of which it uses 9
#    * (b) 6x6, of which it uses 9
#    * (c) 5x5, of which it uses 25
#
# 3. What does `col2im` do where two windows overlap?
#    * (a) it keeps the later one
#    * (b) it takes the mean
#    * (c) it adds

# %%
letters = ...
n02.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n02.check_quiz.accepts("cac")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/kernels/im2col.py`: windows, columns and back, with the padding and dilation left out above.
# * `minifcn/kernels/products.py`: the three products in bounded memory.
# * `minifcn/ops/conv.py`: `conv2d` and `conv_transpose2d`, the same three products in another order.
# * Notebook 11 makes them fast. Next: [03 Is my gradient right?](03_gradient_check.ipynb).
