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
# about half an hour, reading and all exercises together 75 minutes.

# %% tags=["varies"]
import inspect
import platform
import time

import numpy as np
import pictures
from exercises import n02
from PIL import Image

import minifcn
from minifcn import ops
from minifcn.backend import to_host, xp_on
from minifcn.gradcheck import gradcheck
from minifcn.graph import graph
from minifcn.kernels import products
from minifcn.kernels.convolution import correlate, spread, weigh
from minifcn.kernels.im2col import Windows, col2im, im2col
from minifcn.kernels.threads import threads

SEED = 2
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy

print(f"device {DEVICE}, {threads()} threads")


# %% [markdown]
# ## 1 · What does a convolution do to a photograph?
#
# A convolution moves nine weights over the image. At each place it multiplies them with the nine pixels below them
# and adds the products. The nine numbers determine what the result shows. Grey is 0 in the two pictures on the right:
# in an area of one brightness, right minus left and below minus above are 0, since their weights add up to 0.

# %%
photo = Image.open("photos/chelsea.jpg").convert("L").resize((180, 120))
image = xp.asarray(np.asarray(photo, dtype=np.float64)[None, None] / 255)
filters = {
    "as it is": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "mean of nine": np.full((3, 3), 1 / 9),
    "right minus left": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "below minus above": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
}
w = xp.asarray(np.array(list(filters.values()), dtype=np.float64)[:, None])
maps = ops.conv2d(image, w, padding=1)
assert xp.allclose(maps.data[0, 0], image[0, 0])  # the first filter changes nothing
assert np.allclose([np.sum(weights) for weights in filters.values()], [1, 1, 0, 0])
pictures.filters(filters, maps.data[0])

# %% [markdown]
# ## 2 · Six loops
#
# With $C$ input channels and $O$ output channels, stride $s$, and without padding:
#
# $$ y_{o,i,j} = b_o + \sum_{c} \sum_{u} \sum_{v} w_{o,c,u,v} \; x_{c,\; is+u,\; js+v} $$
#
# Three indices on the left, three sums on the right: six loops. The picture below has one channel, and the window of
# one output is framed.


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

assert y[0, 1, 2] == (x[0, 1:4, 2:5] * w[0, 0]).sum()
pictures.panels(
    {"x, and the window of one output": x[0], "w": w[0, 0], "y": y[0]},
    size=(7, 2.3),
    cmap="RdBu_r",
    limits="signed",
    numbers="{:g}",
    boxes={"x, and the window of one output": [(1, 2, 3, 3)], "y": [(1, 2, 1, 1)]},
    widths=(5, 3, 3),
)

# %% [markdown]
# `conv2d` of the library agrees, on several channels and with a stride.

# %%
rng = np.random.default_rng(SEED)
x, w, b = (rng.standard_normal(shape) for shape in ((3, 9, 8), (4, 3, 3, 2), (4,)))
for stride in (1, 2, 3):
    theirs = ops.conv2d(xp.asarray(x[None]), xp.asarray(w), xp.asarray(b), stride=stride)
    ours = six_loops(x, w, b, stride)
    assert xp.allclose(xp.asarray(ours), theirs.data[0])
    print(f"stride {stride}: {ours.shape[1:]} outputs, equal")

# %% [markdown]
# How long do they take? The layer below has 32×32 pixels, 8 channels in and 8 out, and windows of 3×3. Every output
# of every channel takes $C k^2 = 72$ multiply-adds.

# %% tags=["varies"]
x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 32, 32), (8, 8, 3, 3), (8,)))
begin = time.perf_counter()
slow = six_loops(x, w, b)
loops = time.perf_counter() - begin
on_device = [xp.asarray(array) for array in (x[None], w, b)]
ops.conv2d(*on_device)  # once in advance: the first call prepares
begin = time.perf_counter()
fast = to_host(ops.conv2d(*on_device).data)[0]  # waits until a GPU has it
library = time.perf_counter() - begin
assert np.allclose(slow, fast, atol=1e-3)
multiply_adds = slow.size * w[0].size
assert w[0].size == 72
print(f"{multiply_adds:,} multiply-adds on {platform.machine()}, {threads()} threads")
print(f"six loops {loops * 1000:8.1f} ms\nconv2d    {library * 1000:8.1f} ms, {loops / library:,.0f} times as fast")

# %% [markdown]
# ## 3 · Windows
#
# Four numbers for each axis determine where the windows lie: kernel, stride, padding, dilation. minifcn keeps them in
# one object, `Windows`. Along one axis, output $i$ uses the pixels
#
# $$ i s + u d - p \qquad u = 0 \ldots k-1 $$
#
# Pixels outside the image are zero. Below, you see the outputs (0, 0) in blue and (1, 1) in orange; the padding is
# grey. (To move a kernel yourself, [drag it over an image](../docs/explorer/convolution.html).)

# %%
geometries = {
    "kernel 3": Windows((3, 3)),
    "stride 2": Windows((3, 3), stride=(2, 2)),
    "padding 1": Windows((3, 3), padding=(1, 1)),
    "dilation 2": Windows((3, 3), dilation=(2, 2)),
}
side = 7
assert [g.out_size((side, side))[0] for g in geometries.values()] == [5, 3, 7, 3]
pictures.windows(geometries, side)

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
# Here is an image of 4×4 pixels, numbered, with its windows of 2×2. The frames show one window and its column.

# %%
x = xp.arange(16.0).reshape(1, 1, 4, 4)
g = Windows((2, 2))
columns = im2col(x, g)
assert columns.shape == (1, 2, 2, 1, 3, 3)  # (C, kh, kw, N, H', W')
matrix = columns.reshape(4, 9)
assert matrix[:, 4].tolist() == x[0, 0, 1:3, 1:3].ravel().tolist()
pictures.panels(
    {"the image": x[0, 0], "its columns: a row for each weight, a column for each window": matrix},
    size=(8, 2.3),
    numbers="{:g}",
    boxes={
        "the image": [(1, 1, 2, 2)],
        "its columns: a row for each weight, a column for each window": [(0, 4, 4, 1)],
    },
    widths=(4, 9),
)

# %% [markdown]
# Each column is a window. Each *row* is the image, shifted and without its border: it holds the pixels that one
# weight meets. So `im2col` need not loop over windows at all. It copies one shifted image for each weight: nine
# copies for a kernel of 3×3, whatever the size of the image. In its source `g.taps` yields, for each weight, the rows
# and columns of the image that it meets.

# %%
print(inspect.getsource(im2col))
shifted = xp.stack([x[0, 0, i : i + 3, j : j + 3].ravel() for i in range(2) for j in range(2)])
assert (matrix == shifted).all()
nine = Windows((3, 3))
assert [len(list(nine.taps(nine.out_size((side, side))))) for side in (5, 50, 500)] == [9, 9, 9]

# %% [markdown]
# One product of two matrices then gives what `conv2d` gives, here with three channels, a stride and a padding.

# %%
x, w = (xp.asarray(rng.standard_normal(shape)) for shape in ((2, 3, 8, 7), (5, 3, 3, 3)))
g = Windows((3, 3), stride=(2, 2), padding=(1, 1))
columns = im2col(x, g).reshape(3 * 3 * 3, -1)
y = w.reshape(5, -1) @ columns
y = y.reshape(5, 2, *g.out_size((8, 7))).transpose(1, 0, 2, 3)  # columns are numbered image by image
assert xp.allclose(y, ops.conv2d(x, w, stride=2, padding=1).data)
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
# These pixels are a row of the columns. The picture shows each weight of a 2×2 kernel and, in an image of 5×5, all the
# pixels that it multiplies: sixteen, as many as there are outputs.

# %%
met = {}
for tap, (rows, columns) in Windows((2, 2)).taps((4, 4)):
    met[tap] = np.zeros((5, 5))
    met[tap][rows, columns] = 1
    assert met[tap].sum() == 16 == 4 * 4
pictures.taps(met)

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
counts = {}
for stride in (1, 2, 3):
    g = Windows((3, 3), stride=(stride, stride))
    ones = xp.ones((1, 3, 3, 1, *g.out_size((9, 9))))
    counts[f"kernel 3, stride {stride}"] = to_host(col2im(ones, g, (9, 9)))[0, 0]
first, second, third = counts.values()
assert first.max() == first[4, 4] == 9 and first[0, 0] == 1
assert set(second.flat) == {1, 2, 4} and (third == 1).all()
pictures.panels(counts, size=(8, 2.8), numbers="{:g}", limits=(0, 9))

# %% [markdown]
# In the middle, with stride 1, a pixel is in nine windows, with a different weight in each. At a corner it is in one.
# With stride 2 the number depends on where the pixel lies: 1, 2 or 4. Remember this checkerboard: in notebook 07 it
# is the best-known pitfall of upsampling. With stride 3 the windows do not overlap, and each pixel is in one.
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
#
# Compare them, and the sum for the bias, with the gradients of `conv2d`. (Rounding aside: the order of the sums is
# another.)

# %%
x, w, b = (xp.asarray(rng.standard_normal(shape)) for shape in ((2, 3, 8, 7), (5, 3, 3, 3), (5,)))
g = Windows((3, 3), stride=(2, 2), padding=(1, 1))
gy = xp.asarray(rng.standard_normal((2, 5, *g.out_size((8, 7)))))

flat = gy.transpose(1, 0, 2, 3).reshape(5, -1)  # (O, N H' W'), like the columns
columns = im2col(x, g)
gb = flat.sum(axis=1)
gw = (flat @ columns.reshape(27, -1).T).reshape(w.shape)
back = (w.reshape(5, -1).T @ flat).reshape(columns.shape)
gx = col2im(back, g, (8, 7))

parameters = [minifcn.Parameter(array) for array in (x, w, b)]
ops.conv2d(*parameters, stride=2, padding=1).backward(gy)
for name, ours, parameter in zip(("x", "w", "b"), (gx, gw, gb), parameters, strict=True):
    assert abs(ours - parameter.grad).max() < 1e-12
    print(f"gradient of {name} {ours.shape}: equal up to rounding")

# %% [markdown]
# This is the operation in the library. The value is `correlate`. The three gradients are three short functions, and
# each is one of the formulas above. (With `relu=True` the operation sets negative outputs to zero at once; then all
# three gradients begin with `passing`, the gradient of that ReLU.)

# %%
print(inspect.getsource(ops.conv2d))

# %% [markdown]
# What do `spread` and `weigh` do? Look for the products in their source: `spread` computes `weights @ gy` and passes
# it to `col2im`; `weigh_block`, which `weigh` calls for each block of the image, adds `gy @ columns.T`. (`fused` is a
# faster way on a GPU, and a `Block` is some rows of the image.)

# %%
print(inspect.getsource(products.spread))
print(inspect.getsource(products.weigh_block))

# %% [markdown]
# The columns are nine times as large as the image. They are made one block at a time, and again for the gradient: the
# graph remembers only the image.

# %%
x = xp.asarray(rng.standard_normal((1, 16, 64, 64)))
w = minifcn.Parameter(xp.asarray(rng.standard_normal((16, 16, 3, 3))))
kept = graph(ops.conv2d(x, w, padding=1))
print(kept)
all_columns = im2col(x, Windows((3, 3), padding=(1, 1)))
print(f"its columns would be {all_columns.nbytes / x.nbytes:.0f} times as large as x")
assert kept.nbytes == x.nbytes and all_columns.nbytes == 9 * x.nbytes

# %% [markdown]
# You can check the gradients without any formula: move every number a little. `gradcheck` does that, and returns the
# largest relative error. Notebook 03 shows how.

# %%
small = [xp.asarray(rng.standard_normal(shape)) for shape in ((1, 2, 5, 4), (3, 2, 3, 2), (3,))]
error = gradcheck(ops.conv2d, *small, stride=(2, 1), padding=1)
print(f"largest relative error of three gradients: {'below' if error < 1e-7 else 'above'} 1e-7")
assert error < 1e-7

# %% [markdown]
# ## 7 · One matrix, and its transpose
#
# For fixed weights a convolution is linear in the image. So it *is* a matrix $A$ with a row for each output and a
# column for each pixel, mostly zeros. Images in which one pixel is 1 give the columns of $A$ (`correlate` is the
# forward pass of `conv2d`, on plain arrays). Gradients in which one output is 1, passed to `spread`, give the columns
# of its matrix $B$.

# %%
w = xp.array([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
g, size = Windows((3, 3), stride=(2, 2), padding=(1, 1)), (6, 6)
out = g.out_size(size)
pixels = xp.eye(36).reshape(36, 1, *size)  # a batch of images, each with one pixel
cells = xp.eye(out[0] * out[1]).reshape(-1, 1, *out)
A = correlate(pixels, w, g).reshape(36, -1).T
B = spread(cells, w, g, size).reshape(len(cells), -1).T
assert (B == A.T).all()  # exactly
assert (A == 0).mean() > 0.8  # mostly zeros
pictures.panels({"A: correlate, 36 pixels to 9 outputs": A, "B: spread": B}, size=(7, 3.2), widths=(36, 12))

# %% [markdown]
# $B$ is exactly the transpose of $A$. For a transposed matrix, this holds for all vectors:
#
# $$ \langle A x, g \rangle = \langle x, A^T g \rangle $$
#
# A convolution is linear in its weights as well, so there are three ways to compute one number. They agree for every
# geometry, and no matrix has to be written down. Here are five:

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
    x, w, gy = (xp.asarray(array) for array in (x, w, gy))
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
# convolution" of section 3.3. The library needs no new code for it: `conv_transpose2d` calls `spread`.

# %%
dot = xp.zeros((1, 1, 4, 4))
dot[0, 0, 1, 1], dot[0, 0, 2, 3] = 16, 8
bilinear = xp.asarray(np.outer([1, 3, 3, 1], [1, 3, 3, 1])[None, None] / 16)
large = ops.conv_transpose2d(dot, bilinear, stride=2)
same = spread(dot, bilinear, Windows((4, 4), stride=(2, 2)), large.shape[2:])
assert (large.data == same).all() and large.shape[2:] == (10, 10)
shown = {"two numbers": dot[0, 0], "each paints a kernel, 2 pixels apart": large.data[0, 0]}
pictures.panels(shown, size=(8, 3.6), numbers="{:g}", widths=(2, 3))

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
# * [Notebook 12](12_fast.ipynb) makes them fast. Next: [03 Is my gradient right?](03_gradient_check.ipynb).
