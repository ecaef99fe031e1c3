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
# # 04 · Pools, receptive fields, and why the padding is 100
#
# A cell of a deep layer depends on a part of the image. The size of that part, and exactly where it lies, determine
# how you can build a fully convolutional network.
#
# Afterwards you can
#
# * say where a pool's gradient goes, at ties and where windows overlap, and how many windows Caffe counts;
# * combine any chain of layers into one kernel and one stride, with the paper's rule;
# * draw what a cell sees on a photograph, and measure what it really uses;
# * say why the first convolution of the released nets has a padding of 100, and show that 97 is enough.
#
# **The paper.** Section 3 (receptive fields, and the rule for two layers in a row), section 4.1 (the nets), section 4.2
# (which maps can be laid on each other). The padding is in the released code only.
#
# **Before you begin.** You need notebook 02 (windows, stride, padding), and of notebook 03 what a tie is. Reading
# takes about half an hour, reading and all exercises together 75 minutes.

# %% tags=["varies"]
import inspect
from dataclasses import replace

import numpy as np
import pictures
from exercises import n04

from minifcn import convolution, ops, viz
from minifcn.backend import rng as random_numbers
from minifcn.backend import to_host, xp_on
from minifcn.data.files import read_image
from minifcn.errors import GeometryError
from minifcn.experiments.classify import classifier_of
from minifcn.geometry import Grid, Layer, out_size
from minifcn.kernels.threads import threads
from minifcn.models.fcn import vgg_fcn
from minifcn.models.ladder import Ladder, safe_padding
from minifcn.models.vgg import VGG
from minifcn.nn import AvgPool2d
from minifcn.tensor import Parameter
from minifcn.weights.published import imagenet_squeezenet

SEED = 0
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy
rng = random_numbers(SEED)
print(f"device {DEVICE}, {threads()} threads")


# %% [markdown]
# ## 1 · A pool passes its gradient to one pixel
#
# A max pool keeps the largest pixel of each window. Only that pixel determines the output, so the whole gradient of
# the window goes there. Here windows of 3 with stride 2 overlap: a pixel that is the maximum of two windows receives
# the gradient of both.

# %%
x = xp.asarray(1.0 * rng.permutation(49).reshape(1, 1, 7, 7))
y, (grad_x,) = ops.max_pool2d.__wrapped__(x, kernel_size=3, stride=2)
gx = grad_x(xp.ones(y.shape))
assert y.size == gx.sum() == 9 and gx.max() == 2
shown = {"x": x[0, 0], "y: 3x3, stride 2": y[0, 0], "gradient of x": gx[0, 0]}
pictures.panels(shown, size=(8, 2.8), numbers="{:.0f}")

# %% [markdown]
# There are nine windows and nine units of gradient. What if two pixels of a window are equally large? In photographs
# that happens often: brightness has 256 steps. Here is the share of such windows in four photographs.

# %%
photos = {name: read_image(f"photos/{name}.jpg") for name in ("astronaut", "chelsea", "coffee", "rocket")}


def tied(image):
    """For each 2x2 window of the red channel, whether its largest value occurs more than once."""
    rows, columns = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    windows = image[:rows, :columns, 0].reshape(rows // 2, 2, columns // 2, 2).swapaxes(1, 2)
    windows = windows.reshape(rows // 2, columns // 2, 4)
    return (windows == windows.max(axis=-1, keepdims=True)).sum(axis=-1) > 1


shares = {name: 100 * tied(image).mean() for name, image in photos.items()}
print("  ".join(f"{name}: {share:.0f} %" for name, share in shares.items()))
assert min(shares.values()) > 10  # it happens often, in every photograph

# %% [markdown]
# And here they are in one of them.

# %%
ties = f"black: ties, {shares['rocket']:.0f} % of the 2x2 windows"
pictures.panels({"the rocket": photos["rocket"], ties: tied(photos["rocket"])}, size=(8, 2.8), cmap="gray_r")

# %% [markdown]
# Of equal pixels minifcn takes the first one, row by row. Any choice would do (notebook 03: there is no derivative at
# a tie), but it has to be *one*. An op that gives the gradient to every equal pixel multiplies it in every piece of
# sky. Count what arrives.

# %%
sky = xp.asarray(photos["rocket"][None, :200, :200, 0] / 255.0)[:, None]
y, (grad_x,) = ops.max_pool2d.__wrapped__(sky, kernel_size=2)
arrives = float(grad_x(xp.ones(y.shape)).sum())
to_each = float((sky == y.repeat(2, axis=2).repeat(2, axis=3)).sum())
print(f"{y.size} windows: {arrives:.0f} arrive; given to each equal pixel, {to_each / y.size:.1f} times as much")
assert arrives == y.size == 10_000 < 1.5 * y.size < to_each

# %% [markdown]
# ## 2 · How many windows? Floor and ceil
#
# A window of 2 with stride 2 fits three times into seven pixels, and one pixel is left over. Most libraries drop it
# (floor). Caffe, the library in which the paper's nets were trained, counts one more window that extends past the end
# (ceil), unless that window would begin in the padding. In minifcn a `Layer` is a kernel, a stride and a padding,
# without weights, and `out_size` counts its windows.

# %%
pools = {"floor": Layer(2, stride=2), "ceil": Layer(2, stride=2, ceil=True)}
assert [pool.out_size(7) for pool in pools.values()] == [3, 4]
pictures.floor_and_ceil(pools, 7)

# %% [markdown]
# One pixel more or less, five times, matters. VGG-16 is the classifier behind the paper's best nets. Follow a side of
# 500 pixels through its pools, from the 698 that its first layer, conv1_1, makes of it, with 100 zeros on either side
# and a kernel of 3.

# %%
assert Layer(3, padding=100).out_size(500) == 500 + 2 * 100 - 2 == 698
for ceil in (True, False):
    sides = [698]
    for _ in range(5):
        sides.append(Layer(2, stride=2, ceil=ceil).out_size(sides[-1]))
    print(f"{'ceil' if ceil else 'floor'}:", *sides)
    assert sides[-1] == (22 if ceil else 21)

# %% [markdown]
# ### Exercise 1: count the windows
#
# Write `count(size, kernel, stride, padding, ceil)` by Caffe's rule. `padding` is added on both sides. A window
# larger than the padded line does not occur here.

# %%
count = ...  # instead of this line: def count(size, kernel, stride, padding, ceil): ...
n04.check_out_size(count)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(size, kernel, stride, padding, ceil):
    free = size + 2 * padding - kernel  # how far the window can move
    count = free // stride + 1
    if ceil and free % stride:
        count += 1  # one more, which hangs over the end
        if (count - 1) * stride >= size + padding:
            count -= 1  # it would begin in the padding
    return count


assert n04.check_out_size.accepts(solution)

# %% [markdown]
# Compare your function with the library's. (`extent` is the kernel with its dilation; `transpose` and `extra` belong to
# layers of later notebooks.)

# %%
print(inspect.getsource(Layer.out_size))

# %% [markdown]
# ## 3 · Two layers are one layer
#
# Let a first layer have kernel $k'$ and stride $s'$, and a second one on top of it $k$ and $s$. The first and the
# last cell under the second window are $k-1$ steps of $s'$ pixels apart, and each cell sees $k'$ pixels. If the second
# window moves by one step, it moves by $s$ cells. So the two together are one layer, with a larger kernel and stride.
#
# ### Exercise 2: the rule
#
# Which ones? Write `compose((k, s), (k2, s2))`: kernel and stride of the two layers in one, where `(k2, s2)` looks at
# the image.

# %%
compose = ...  # instead of this line: def compose(outer, inner): ...
n04.check_compose(compose)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(outer, inner):
    (k, s), (k2, s2) = outer, inner
    return k2 + (k - 1) * s2, s * s2


assert n04.check_compose.accepts(solution)

# %% [markdown]
# This is the paper's rule:
#
# $$ f_{ks} \circ g_{k's'} = (f \circ g)_{k' + (k-1)s',\; ss'} $$
#
# For two linear convolutions you can write down the combined kernel: $h_{as'+u} \mathrel{+}= f_a\, g_u$. Take $k'=3,
# s'=2$ and $k=4, s=3$, and compare two convolutions with one: its kernel must be 9 and its stride 6. (In the picture,
# 3/2 is a layer with kernel 3 and stride 2.)

# %%
g, f = rng.standard_normal(3), rng.standard_normal(4)
h = np.zeros(3 + (4 - 1) * 2)
for a in range(4):
    h[2 * a : 2 * a + 3] += f[a] * g
line = xp.asarray(rng.standard_normal((1, 1, 1, 40)))


def along(x, kernel, stride):
    return ops.conv2d(x, xp.asarray(kernel).reshape(1, 1, 1, -1), stride=(1, stride))


two, one = along(along(line, g, 2), f, 3).data, along(line, h, 6).data
assert h.size == 9 and xp.allclose(two, one)
centres = 4 + 6 * np.arange(two.size)  # of windows of 9, a step of 6 apart
pictures.lines(
    {
        "the line": (range(40), line[0, 0, 0]),
        "3/2, then 4/3": (centres, two[0, 0, 0]),
        "9/6": (centres, one[0, 0, 0]),
    },
    size=(8, 2.2),
    styles=(".-", "o", "x"),
    colours=(pictures.FAINT, pictures.ACCENT, pictures.SECOND),
    xlabel="pixel",
)

# %% [markdown]
# ## 4 · A whole net as one layer
#
# Apply the rule from the image upwards. Here are the twenty windows of VGG-16: 13 convolutions, 5 pools, and the two
# fully connected layers that became convolutions of 7 and 1 (notebook 05). `vgg["fc7"]` is the *path* to the map fc7:
# the list of all layers from the image to it.

# %%
vgg = n04.vgg(padding=100)
kernel, stride, fields = 1, 1, []
for layer in vgg["fc7"]:
    kernel, stride = kernel + (layer.kernel - 1) * stride, stride * layer.stride
    fields.append(kernel)
named = {name: len(path) for name, path in vgg.items()}
assert [fields[depth - 1] for depth in named.values()] == [6, 16, 44, 100, 212, 404] and stride == 32
before, after = fields[named["pool5"] - 1], fields[named["pool5"]]
assert after - before == (7 - 1) * 32 == 192 and 0.45 < 192 / fields[-1] < 0.5
kernels = [layer.kernel for layer in vgg["fc7"]]
assert len(fields) == 20 and [kernels.count(size) for size in (3, 2, 7, 1)] == [13, 5, 1, 1]
pictures.growth(fields, named)

# %% [markdown]
# A cell of pool5 sees 212 pixels, one of fc7 404. Almost half of them, 192, come from fc6 alone: a window adds its
# kernel minus one, times the stride below it, and the strides grow.
#
# ### Exercise 3: VGG-19
#
# VGG-19 has one more 3x3 convolution in each of block3, block4 and block5. What does its fc7 see? Work it out on
# paper.

# %%
vgg19 = ...
n04.check_vgg19(vgg19)

# %% tags=["solution"] jupyter={"source_hidden": true}
solution = 404 + 2 * (4 + 8 + 16)  # one more window of 3 in each of block3, block4 and block5
assert n04.check_vgg19.accepts(solution)

# %% [markdown]
# ## 5 · Where is it? The `Grid`
#
# Size and stride are two parts of the answer. The third is the *position*: the centre of cell 0. A layer moves it by
# half its window, minus its padding, in steps of the stride below:
#
# $$ \text{stride} \leftarrow s \cdot \text{stride}, \qquad
#    \text{start} \leftarrow \text{start} + \text{stride}\left(\frac{k-1}{2} - p\right), \qquad
#    \text{field} \leftarrow \text{field} + (k-1)\,\text{stride} $$
#
# In `minifcn/geometry.py` this is `Grid.through`. It computes in fractions, so that half a pixel is half a pixel.
# Cell 0 of pool1 lies 98.5 pixels outside the photograph, in the padding; cell 0 of fc7 lies inside. The page [Where
# does a cell look?](../docs/explorer/index.html) does the same for any chain of layers that you type.

# %%
grids = {name: Grid.of(path) for name, path in vgg.items()}
for name, grid in grids.items():
    print(f"{name}: {grid}")
assert (grids["fc7"].field, grids["pool5"].field, grids["fc7"].stride) == (404, 212, 32)
assert grids["pool1"].start == -98.5 < 0 < grids["fc7"].start

# %% [markdown]
# The picture shows, on a photograph, the cell of each layer that lies nearest to the astronaut's nose, and what it
# sees.

# %%
astronaut = photos["astronaut"]
pictures.fields(astronaut, grids, at=(123, 226))

# %% [markdown]
# The boxes are not quite concentric: coarse cells are far apart, and the centre of the nearest one may be 16 pixels
# away along each axis. The area outside the photograph is padding. At the corner it is most of what a cell sees. The
# dots are the centres of all 17 x 17 cells of fc7.

# %%
cells = tuple(out_size(vgg["fc7"], side) for side in astronaut.shape[:2])
fc7 = grids["fc7"]
inside = fc7.start + (fc7.field + 1) / 2  # pixels of the photograph that the corner cell sees, along one axis
assert cells == (17, 17) and fc7.stride / 2 == 16 and (inside / fc7.field) ** 2 < 0.5
pictures.fields(astronaut, {"fc7": fc7}, at=(0, 0), sizes={"fc7": cells})

# %% [markdown]
# ## 6 · What does a cell really see?
#
# The gradient shows it. Send a 1 back from a single cell, and see which pixels receive something: those are the
# pixels that could change the cell. First take a net in which every path counts: positive weights, and means in place
# of maxima.

# %%
trunk = VGG(width=1, padding=1, init=rng, rng=rng).until("pool5").to(DEVICE).astype(np.float64)
for number in range(1, 6):
    getattr(trunk, f"block{number}").pool = AvgPool2d(2, ceil_mode=True)
for parameter in trunk.parameters():
    parameter.data = abs(parameter.data)


def reached(tensor, image, row, col, channel=slice(None)):
    """The size of the gradient of one cell at every pixel (H, W)."""
    gy = xp.zeros(tensor.shape, tensor.dtype)
    gy[0, channel, row, col] = 1
    image.zero_grad()
    tensor.backward(gy)
    return to_host((image.grad[0] ** 2).sum(axis=0) ** 0.5)


image = Parameter(xp.ones((1, 3, 320, 320)))
seen = reached(trunk(image)["pool5"], image, 5, 4)
rows, columns = np.nonzero(seen.any(axis=1))[0], np.nonzero(seen.any(axis=0))[0]
grid = Grid.of(trunk.layers())
top, left, bottom, right = viz.field_box(grid, 5, 4)
print(f"the gradient reaches rows {rows[0]} to {rows[-1]} and columns {columns[0]} to {columns[-1]}")
print(
    f"the Grid says       rows {top + 0.5:.0f} to {bottom - 0.5:.0f} and columns {left + 0.5:.0f} to {right - 0.5:.0f}"
)
assert (rows[0] - 0.5, columns[0] - 0.5, rows[-1] + 0.5, columns[-1] + 0.5) == (top, left, bottom, right)
assert (seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] > 0).all() and len(rows) == 212

# %% [markdown]
# These are exactly the 212 x 212 pixels of the box. But not all count equally: a pixel in the middle is reached over
# many paths, one at the edge over few. The profile is a bell: ten pixels from the edge, a pixel gets less than a tenth
# of what one in the middle gets.

# %%
middle_row = seen[int(top + 106)]
assert middle_row.max() > 10 * middle_row[columns[0] + 10]
pictures.reach(seen, (top, left, bottom, right), "gradient of one cell of pool5 (log)", middle_row)

# %% [markdown]
# Now take a trained net: SqueezeNet, trained on ImageNet, is included in minifcn. Which pixels of the cat does the
# score "Egyptian cat" of one cell depend on? The title says how much of the squared gradient lies in the inner quarter
# of the box. (The code uses `convolution("im2col")` because the faster ways round even the zeros.)

# %%
weights = imagenet_squeezenet()
net, preprocessing = classifier_of(weights)
net.to(DEVICE).eval()
cat = photos["chelsea"]
number = next(i for i, name in enumerate(weights.classes) if name.startswith("Egyptian cat"))
image = Parameter(xp.asarray(preprocessing(cat)[None]))
with convolution("im2col"):
    scores = net.top.conv10(net.trunk(image)["fire9"])
    row, col = 9, 14
    seen = reached(scores, image, row, col, number)
grid = Grid.of([*net.trunk.layers(), *net.top.conv10.layers()])
box = viz.field_box(grid, row, col)
top, left, bottom, right = (round(edge + 0.5) for edge in box)
inside = seen[top:bottom, left:right]
quarter = inside.shape[0] // 4
middle = inside[quarter:-quarter, quarter:-quarter]
share = 100 * float((middle**2).sum() / (seen**2).sum())
outside = seen.copy()
outside[top:bottom, left:right] = 0
assert (inside > 0).any() and not outside.any() and grid.field == 155

assert share > 50  # mostly the middle
pictures.reach(seen, box, f"score of a cat: {share:.0f} % from the inner quarter", cat)

# %% [markdown]
# The field is the largest area that a cell can see. It uses less of it, mostly the middle. So a receptive field
# larger than the things in the image is not too large, and a good part of it may be padding without much harm.
#
# ## 7 · Why is the padding 100?
#
# The released nets put 100 zeros around the image, at conv1_1; the paper does not mention them. The net upsamples the
# score of fc7 by 32, back to pixels, and crops it to the image. For this, two conditions must hold at every image size:
#
# 1. *There is a score.* fc6 is a window of 7, so pool5 must have at least 7 cells. After conv1_1 a side of $H$ pixels
#    is $H + 2P - 2$ long, and five pools reduce it to $\lceil (H + 2P - 2)/32 \rceil$ cells.
# 2. *It covers the image.* Upsampled by 32, the score's first pixel must lie at or before the image's first, and its
#    last pixel at or after the image's last. Then it can be cropped.
#
# From the paths of a net's maps, `Ladder` works out every upsampling and every crop on the way from the coarsest score
# to the pixels. Each step on this way is a rung; notebook 08 climbs it. `Ladder` raises an error if a crop would be
# negative, and `fits(size)` says whether an image of that size comes out whole. Try the paddings from 60 to 109 and the
# sizes from 1 to 72, for FCN-32s, which uses the score of fc7 alone, and for FCN-8s, which adds scores of pool4 and
# pool3.


# %%
def with_padding(padding, ceil=True):
    """VGG-16's paths with another border, and with another rule for its pools."""
    changed = {}
    for name, path in vgg.items():
        windows = [replace(layer, ceil=ceil) if layer.stride == 2 else layer for layer in path]
        changed[name] = (replace(windows[0], padding=padding), *windows[1:])
    return changed


LADDERS = {"FCN-32s": (), "FCN-16s": ("pool4",), "FCN-8s": ("pool4", "pool3")}
paddings, sizes = range(60, 110), range(1, 73)


def outcomes(skips):
    """0: the crop would be negative. 1: this size comes out too small, or not at all. 2: it comes out whole."""
    table = np.zeros((len(sizes), len(paddings)))
    for place, padding in enumerate(paddings):
        try:
            ladder = Ladder(with_padding(padding), skips)
        except GeometryError:
            continue
        table[:, place] = [1 + ladder.fits(size) for size in sizes]
    return table


tables = {name: outcomes(LADDERS[name]) for name in ("FCN-32s", "FCN-8s")}
assert all(out_size(vgg["pool5"], size) == -(-(size + 198) // 32) for size in range(1, 1025))
assert all((table[:, 97 - 60 :] == 2).all() and (table[0, : 97 - 60] < 2).all() for table in tables.values())
pictures.outcomes(tables, paddings, sizes, at=97)

# %% [markdown]
# Blue: the output is as large as the image. Orange: the image is too small for the net. Grey: the crop would have to
# begin before the score does. From 97 on everything is blue. The orange edge is the first condition: $H + 2P - 2 \ge
# 6 \cdot 32 + 1$, so $P \ge (195 - H)/2$, which for a single pixel is 97. The grey edge is the second. And `Ladder`
# computes where the crops begin at a padding of 100: these are the numbers in the released nets.

# %%
for name, skips in LADDERS.items():
    ladder = Ladder(with_padding(100), skips)
    at = ", ".join(str(rung.at) for rung in ladder.rungs)
    print(f"{name}: smallest safe padding {safe_padding(with_padding, skips)}; crops at padding 100: {at}")
    assert safe_padding(with_padding, skips) == 97
crops = [[rung.at for rung in Ladder(with_padding(100), skips).rungs] for skips in LADDERS.values()]
assert crops == [[19], [5, 27], [5, 9, 31]]
edge = np.argmax(tables["FCN-32s"] == 2, axis=0)[np.arange(81 - 60, 97 - 60)]
assert (edge + 1 == [max(1, 195 - 2 * padding) for padding in range(81, 97)]).all()

# %% [markdown]
# 97 is enough, and 100 is a round number above it. For images of 33 pixels and more 81 would be enough: then the crop
# of FCN-32s begins at 0.
#
# All of this holds for Caffe's ceil. With floor, as in most libraries, the same net with the same padding fails at 397
# of the sizes up to 1024, 500 among them: a pool drops a row, and the score ends before the image does. A port to
# another library must not forget the ceil.

# %%
by_floor = Ladder(with_padding(100, ceil=False), ())
failing = [size for size in range(1, 1025) if not by_floor.fits(size)]
assert len(failing) == 397 and 500 in failing
at_81 = Ladder(with_padding(81), ())
assert at_81.rungs[-1].at == 0 and [size for size in range(1, 1025) if not at_81.fits(size)] == list(range(1, 33))
pictures.stripes(failing, 1024, f"floor, padding 100: {len(failing)} of 1024 sides fail (orange)")

# %% [markdown]
# The border has a cost. It is computed like the image: at a side of 500 it nearly doubles the work, at 64 it is nearly
# all of it. So minifcn's default for nets trained from scratch is `padding="same"`: no border, and fc6 padded by 3.

# %%
cells = {side: ((side + 198) ** 2, side**2) for side in (64, 500)}
for side, (bordered, alone) in cells.items():
    print(f"side {side}: with the border {bordered / alone:.1f} times the cells of conv1_1")
assert 1.9 < cells[500][0] / cells[500][1] < 2 and cells[64][1] / cells[64][0] < 0.06
same = VGG(width=1, padding="same", init="zero", rng=rng).paths()["fc7"]
assert inspect.signature(vgg_fcn).parameters["padding"].default == "same"
assert same[0].padding == 1 and [layer.padding for layer in same if layer.kernel == 7] == [3]

# %% [markdown]
# ### Exercise 4: another head
#
# Replace fc6 by a window of 5. What is the smallest padding that is safe for images of every size (FCN-32s)? Work it
# out on paper, with the first condition.

# %%
padding = ...
n04.check_padding(padding)

# %% tags=["solution"] jupyter={"source_hidden": true}
solution = 65  # ceil((H + 2P - 2) / 32) >= 5 at H = 1: 2P - 1 >= 4 * 32 + 1
assert n04.check_padding.accepts(solution)

# %% [markdown]
# ## Summary
#
# A pool passes its gradient to one pixel of each window, and Caffe's pools count a last window that extends past the
# edge. In size and stride, any chain of layers is one layer: its kernel is the receptive field, its stride the product
# of the strides, and `Grid` adds the position. Padding by 97 is enough for VGG-16's FCN at every size; 100 is a round
# number above it.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. Two 3x3 convolutions with stride 1. How many pixels a side does an output see?
#    * (a) 5
#    * (b) 6
#    * (c) 9
#
# 2. A pool of 2 with stride 2 in ceil mode on 7 pixels. How many windows?
#    * (a) 3
#    * (b) 4
#    * (c) 5
#
# 3. A window of 7 follows layers with a total stride of 32. By how many pixels does the receptive field grow?
#    * (a) 7
#    * (b) 192
#    * (c) 224

# %%
letters = ...
n04.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n04.check_quiz.accepts("abb")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/geometry.py`: `Layer` and `Grid`, in exact fractions; `minifcn/ops/pool.py`: the pools.
# * `minifcn/models/ladder.py`: how crops follow from grids, and `safe_padding`.
# * `minifcn design vgg16 --skips pool4,pool3` on the command line, for any chain of layers.
# * `minifcn/viz/fields.py`: the code that drew the boxes.
# * Next: [05 From a classifier to a fully convolutional network](05_classifier_to_fcn.ipynb).
