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
# # 06 · Shift-and-stitch is filter rarefaction
#
# A net with strides answers at every 16th or 32nd pixel. You can get dense answers from it in two ways: shift the
# image and run it again, or dilate the filters. This notebook shows that the two give the same result. Afterwards you
# will be able to
#
# * interlace the answers of a coarse net by hand;
# * rarefy a filter, a pool and a whole net, and say why the answers are equal, to the bit;
# * say where they are not equal, and why;
# * compute what either way costs in multiply-adds and in memory before it runs.
#
# *The paper: section 3.2, and a remark of section 4.2 that is off by one.*
#
# **Before you begin.** You need notebooks 04 (strides and cells) and 05 (a fully convolutional net). Reading takes
# about half an hour, reading and all exercises together 60 minutes.

# %% tags=["varies"]
import copy
import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
from exercises import n06

from minifcn import ops, viz
from minifcn.backend import to_host, xp_on
from minifcn.cli.dense import main as four_ways
from minifcn.data.files import read_image
from minifcn.experiments import classify, dense
from minifcn.geometry import Grid, Layer
from minifcn.introspect.describe import describe, last
from minifcn.kernels.threads import cores, set_threads, threads
from minifcn.models.vgg import VGG
from minifcn.nn import Conv2d, MaxPool2d, Sequential, evaluating
from minifcn.stitch import rarefied, rarefy, shift_and_stitch, sliding
from minifcn.weights.published import imagenet_squeezenet

SEED = 0
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy
print(f"device {DEVICE}, {threads()} threads")

# %% [markdown]
# ## 1 · In one dimension, by hand
#
# Here is the smallest net with a stride: the larger of each pair of numbers, then a filter of three weights over the
# pairs. It answers once for every two pixels. Shifted by one pixel, the image is divided into other pairs, and the
# net gives the answers in between.

# %%
x = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7])
f = np.array([1, -2, 3])


def coarse(x):
    pairs = np.maximum(x[:-1:2], x[1::2])  # stride 2
    return np.correlate(pairs, f, "valid")


answers = [coarse(x[shift:]) for shift in (0, 1)]
print("as it is:    ", answers[0])
print("moved by one:", answers[1])
assert [len(each) for each in answers] == [5, 4]  # of fourteen pixels: one for every two

# %% [markdown]
# Draw each answer under the middle of the six pixels that it depends on, and the two rows alternate. To *stitch* is
# to write them into one row. (Try [other strides and filters](../docs/explorer/stitch.html), beside the second way,
# which comes next.)

# %%
stitched = np.zeros(9, int)
stitched[0::2], stitched[1::2] = answers
assert stitched[4] == coarse(x[4:])[0] and stitched[5] == coarse(x[5:])[0]  # each is the answer of its six pixels
blue, orange = pictures.ACCENT, pictures.SECOND
pictures.rows(
    {
        "image": [(0, 1, x, pictures.GREY)],
        "as it is": [(2.5, 2, answers[0], blue)],
        "moved by one": [(3.5, 2, answers[1], orange)],
        "stitched": [(2.5, 1, stitched, (blue, orange))],
    },
    14,
)

# %% [markdown]
# ## 2 · The same without moving anything
#
# You do not have to run twice. Remove the stride: the larger of each pixel and its neighbour, at every pixel. All
# pairs of both runs are now in one row of 13. What if the filter slides over that row?

# %%
pairs = np.maximum(x[:-1], x[1:])
print("stitched:           ", stitched)
overlapping = np.correlate(pairs, f, "valid")
print("the filter as it is:", overlapping, " other numbers, and too many")
assert len(overlapping) == 11 > len(stitched) == 9 and (overlapping[:9] != stitched).all()

# %% [markdown]
# The filter was made for pairs that lie two pixels apart, and got pairs that overlap. It has to skip every second
# one. So put a zero between its weights:

# %%
rare = np.array([f[0], 0, f[1], 0, f[2]])
one_run = np.correlate(pairs, rare, "valid")
print("the filter, rarefied:", rare)
print("one run with it:     ", one_run)
print("stitched:            ", stitched)
assert np.array_equal(one_run, stitched) and len(pairs) == 13

# %% [markdown]
# Equal. In two dimensions this is the rule of section 3.2, for a stride $s$ that has been taken out (zero-based):
#
# $$f'_{ij} = \begin{cases}
# f_{i/s,\,j/s} & \text{if } s \text{ divides both } i \text{ and } j \\
# 0 & \text{otherwise}
# \end{cases}$$
#
# and it applies layer by layer: each layer is rarefied by **all** strides removed before it. The literature calls it
# *à trous* ("with holes"), or dilation. A dilated convolution skips the zeros instead of multiplying with them.
#
# ### Exercise 1: a filter taken apart
#
# Write that rule for a filter of any size: `apart(f, s)` takes f (k, k) and returns f'.

# %%
apart = ...  # instead of this line: def apart(f, s): ...
n06.check_rarefied_filter(apart)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(f: np.ndarray, s: int) -> np.ndarray:
    extent = s * (len(f) - 1) + 1
    apart = np.zeros((extent, extent), f.dtype)
    apart[::s, ::s] = f
    return apart


assert n06.check_rarefied_filter.accepts(solution)

# %% [markdown]
# The effect of dilation in the library: a single 1 is sent through a 3x3 convolution, with dilation 1, 2 and 4. The
# output is the filter (turned by 180 degrees).

# %%
rng = np.random.default_rng(SEED)
w = rng.integers(1, 10, (1, 1, 3, 3)) * 1.0
impulse = np.zeros((1, 1, 17, 17))
impulse[..., 8, 8] = 1
shown = {}
for dilation in (1, 2, 4):
    y = ops.conv2d(impulse, w, dilation=dilation, padding=dilation).data[0, 0, 4:13, 4:13]
    assert np.count_nonzero(y) == 9 and (np.ptp(np.nonzero(y), axis=1) + 1 == 2 * dilation + 1).all()
    side = 2 * dilation + 1
    shown[f"rarefied by {dilation}: on {side} x {side} pixels"] = np.where(y == 0, np.nan, y)
pictures.panels(shown, size=(7, 2.6), cmap="viridis", limits=(0, 9))

# %% [markdown]
# ## 3 · In two dimensions, by hand
#
# Now take a net with two strides of 2: convolution, pool, convolution, pool, convolution. Its weights are random
# whole numbers, and the pixels of the photograph are whole numbers. Then every sum is exact in any order, and you can
# compare the results to the bit. The net answers at every 4th pixel.


# %%
def whole(shape):
    return rng.integers(-1, 2, shape) * 1.0


net = Sequential(
    conv1=Conv2d(1, 4, 3, relu=True, init=rng),
    pool1=MaxPool2d(2, ceil_mode=True),
    conv2=Conv2d(4, 4, 3, relu=True, init=rng),
    pool2=MaxPool2d(3, stride=2, ceil_mode=True),
    conv3=Conv2d(4, 1, 3, init=rng),
)
for parameter in net.parameters():
    parameter.data = whole(parameter.shape)
net.to(DEVICE)

photo = read_image(Path("photos/chelsea.jpg"))[40:200:2, 100:300:2]
image = xp.asarray(photo.astype(np.int64).sum(axis=2)[None, None] * 1.0)


def run(net, x):
    """Return the net's answers, in main memory."""
    with evaluating(net):
        return to_host(last(net(x)).data)


factor = int(Grid.of(net.layers()).stride)
print("image", image.shape[2:], "-> answers", run(net, image).shape[2:], "  one every", factor, "pixels")
assert factor == 4

# %% [markdown]
# It takes sixteen runs, one for each shift. The dense map has as many cells as there are places at which the net's
# whole field lies on the image.

# %%
field = int(Grid.of(net.layers()).field)
height, width = (n - field + 1 for n in image.shape[2:])
by_hand = np.full((height, width), np.nan)
parts = {}
for sy in range(factor):
    for sx in range(factor):
        place = by_hand[sy::factor, sx::factor]
        parts[sy, sx] = run(net, image[:, :, sy:, sx:])[0, 0, : place.shape[0], : place.shape[1]]
        place[:] = parts[sy, sx]
assert not np.isnan(by_hand).any() and len(parts) == 16

shown = {"the image": to_host(image)[0, 0], "one run": parts[0, 0], f"{factor * factor} runs, stitched": by_hand}
names = {f"{name}: {each.shape[0]} x {each.shape[1]}": each for name, each in shown.items()}
pictures.panels(names, size=(8, 2.6), cmap="gray")

# %% [markdown]
# Which run gave which answer? Each number below is a shift: neighbouring pixels come from different runs.

# %%
who = np.arange(16.0).reshape(16, 1, 1, 1) * np.ones((1, 1, 2, 3))
where = ops.stitch(who, factor=4).data[0, 0]
assert (where[:4, :4] == np.arange(16).reshape(4, 4)).all()
pictures.panels({"which run": where}, size=(5, 3.3), cmap="tab20", numbers="{:.0f}")

# %% [markdown]
# ### Exercise 2: stitch
#
# Write `stitch(parts, f)` for maps `(f*f, h, w)` in the order of the picture above.

# %%
stitch = ...  # instead of this line: def stitch(parts, f): ...
n06.check_interlace(stitch)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(parts: np.ndarray, factor: int) -> np.ndarray:
    _, h, w = parts.shape
    return parts.reshape(factor, factor, h, w).transpose(2, 0, 3, 1).reshape(h * factor, w * factor)


assert n06.check_interlace.accepts(solution)

# %% [markdown]
# The library has the two halves of the loop as operations with gradients, and the whole loop as one function. All
# shifted images are one batch, so it calls the net once.

# %%
print(inspect.getsource(ops.stitch))
stitched = to_host(shift_and_stitch(net, image).data)[0, 0]
print("by hand and by the library, equal to the bit:", np.array_equal(stitched, by_hand))
assert np.array_equal(stitched, by_hand)

# %% [markdown]
# ## 4 · The rarefied net
#
# The rule for a chain of layers: every stride becomes 1, and the layers after it are dilated by it. This includes the
# windows of pools.

# %%
print(inspect.getsource(rarefied))
print(f"{'layer':<8}{'kernel':>7}{'stride':>8}{'dilation':>10}{'extent':>8}   after: stride, dilation, extent")
for (name, module), after in zip(sliding(net), rarefied(net.layers()), strict=True):
    before = module.layer
    print(
        f"{name:<8}{before.kernel:>7}{before.stride:>8}{before.dilation:>10}{before.extent:>8}"
        f"{after.stride:>17}{after.dilation:>10}{after.extent:>8}"
    )
was, now = Grid.of(net.layers()), Grid.of(rarefied(net.layers()))
print("before:", was, "\nafter: ", now)
assert (was.start, was.field) == (now.start, now.field) and now.stride == 1

# %% [markdown]
# A cell sees the same pixels as before, but now there is a cell at every pixel. This is one run of the rarefied net:

# %%
one_run = run(rarefy(net), image)[0, 0]
print("one run of the rarefied net:", one_run.shape)
print("equal to sixteen runs, stitched, to the bit:", np.array_equal(one_run, stitched))
print("every 4th cell is the coarse net:", np.array_equal(one_run[::4, ::4], parts[0, 0]))
assert np.array_equal(one_run, stitched) and np.array_equal(one_run[::4, ::4], parts[0, 0])

# %% [markdown]
# With weights that are not whole numbers, the two add the same products in another order, and differ by rounding.

# %%
net32 = copy.deepcopy(net)
for parameter in net32.parameters():
    parameter.data = xp.asarray(rng.standard_normal(parameter.shape).astype(np.float32))
image32 = (image / 255).astype(np.float32)
a, b = to_host(shift_and_stitch(net32, image32).data), run(rarefy(net32), image32)
print("float32, equal to five digits:", np.allclose(a, b, rtol=0, atol=1e-5 * abs(b).max()))
assert np.allclose(a, b, rtol=0, atol=1e-5 * abs(b).max())

# %% [markdown]
# ## 5 · Removing the stride is not enough
#
# What if you remove the strides and leave the filters as they are? The paper calls it a tradeoff: the filters see
# finer detail, and a smaller part of the image. The picture shows what one cell sees on the photograph:

# %%
half = copy.deepcopy(net)
for _, module in sliding(half):
    module.layer = replace(module.layer, stride=1)
grids = {"rarefied": now, "strides out, no more": Grid.of(half.layers())}
assert [grid.field for grid in grids.values()] == [20, 10]
viz.show(viz.receptive_fields(photo, grids), dpi=60)

# %% [markdown]
# ## 6 · The 14 that is 13
#
# Section 4.2 describes a variant, pool5 with stride 1, for which fc6 has to grow from 7x7 to 14x14 in order to keep
# its receptive field. By the rule, seven weights with one gap between each two of them span 13 cells. The field
# confirms it.

# %%
spans = [Layer(7, dilation=dilation).extent for dilation in (1, 2)]
print(f"fc6 spans {spans[0]} cells of pool5 at stride 32, and {spans[1]} at stride 16")
chain = list(VGG(init="zero", rng=rng, width=1).paths()["fc7"])  # the layers from the image to fc7
fields = {}
for stride in (32, 16, 8):
    fields[stride] = int(Grid.of(rarefied(chain, stride)).field)
print("the field of fc7 at output stride 32, 16, 8:", *fields.values())
dense14 = [replace(layer, kernel=14, dilation=1) if layer.kernel == 7 else layer for layer in rarefied(chain, 16)]
print("with a dense 14x14 instead:", Grid.of(dense14).field)
assert set(fields.values()) == {404} and Grid.of(dense14).field == 420 and spans == [7, 13]

# %% [markdown]
# ### Exercise 3: how far fc6 spans
#
# How many cells does fc6 (7x7) span when the strides of a list are removed before it? Write `extent(strides)`.

# %%
extent = ...  # instead of this line: def extent(strides): ...
n06.check_fc6_extent(extent)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(strides: list[int]) -> int:
    return math.prod(strides) * (7 - 1) + 1


assert n06.check_fc6_extent.accepts(solution)

# %% [markdown]
# ## 7 · Where they differ: the border
#
# The net above had no padding. VGG has padding 1 in every convolution. Here are its layers up to pool3, on an image
# of 96x96. Red is where stitched and rarefied differ; blue is where the `Grid` says that they must be equal. White
# cells are equal, too, although the `Grid` does not promise it. The thin white lines are answers of shift 0 along one
# axis, whose image has lost nothing there.

# %%
vgg = VGG(width=4, padding=1, init=np.random.default_rng(SEED), rng=rng).until("pool3")
vgg.to(DEVICE)
noise = xp.asarray(np.random.default_rng(SEED).standard_normal((1, 3, 96, 96)).astype(np.float32))
a, b = to_host(shift_and_stitch(vgg, noise).data), run(rarefy(vgg), noise)
difference = abs(a - b).max(axis=(0, 1))
inner = dense.equal_cells(vgg.layers(), (96, 96))
rows_, columns_ = (slice(cells_.start, cells_.stop) for cells_ in inner)
print(f"{difference.shape} cells; of them inside:", tuple(len(cells_) for cells_ in inner))
assert difference[rows_, columns_].max() < 1e-4 < difference.max()
assert max(difference[::8, columns_].max(), difference[rows_, ::8].max()) < 1e-4  # the white lines
pictures.border(dense.border_picture(difference, *inner), inner)

# %% [markdown]
# Why? Look at one dimension again: a filter of three with padding 1, then pairs. In the original image, the zero of
# the padding (orange) stands before pixel 0. The image that was shifted by one *begins* with pixel 1, so its zero
# replaces pixel 0. One run uses a pixel, the other a zero.

# %%
grey, orange = pictures.GREY, pictures.SECOND
pictures.rows(
    {
        "as it is": [(0, 1, x[:8], grey), (-1, 1, [0], orange)],
        "moved by one": [(1, 1, x[1:8], grey), (0, 1, [0], orange)],
    },
    8,
)

# %% [markdown]
# Compute both ways, and compare: only the cell whose windows meet that zero differs.


# %%
def padded(x, stride):
    """A filter of three over x with a zero on both sides, then the larger of each pair."""
    y = np.correlate(np.pad(x, 1), [3, 1, 1], "valid")
    return np.maximum(y[:-1:stride], y[1::stride])


moved = [padded(x[shift:], 2) for shift in (0, 1)]
mixed = np.zeros(13, int)
mixed[0::2], mixed[1::2] = moved
print("stitched:", mixed)
print("dense:   ", padded(x, 1))
print("they differ in cells", *np.flatnonzero(mixed != padded(x, 1)))
assert list(np.flatnonzero(mixed != padded(x, 1))) == [1]

# %% [markdown]
# The same happens to a last window that extends past the edge (ceil mode): each shift cuts it in another place. A
# cell whose whole field lies on every shifted image meets neither, and there the two are equal: `Grid.inside` counts
# those cells.
#
# ## 8 · What it costs
#
# Count, before anything runs, for VGG at its real width up to pool3 on 96x96 pixels. With stride 8, shift-and-stitch
# runs everything 64 times, and holds the maps of 64 images at once. Rarefied filters run once, on maps that grow only
# after a stride: 8.8 times the work of the strided net, and a tenth of the memory of the other way. (Counted for one
# thread: each additional thread needs its own workspace.)

# %%
real = VGG(padding=1, init="zero", rng=rng).until("pool3")
ways = {"strided": real, "stitched": dense.Stitched(real), "rarefied": rarefy(real)}
set_threads(1)
costs = {name: describe(way, 96) for name, way in ways.items()}
set_threads(None)
base = costs["strided"]
print(f"{'':<10}{'multiply-adds':>15}{'':>8}{'memory':>12}")
for name, cost in costs.items():
    ratio = cost.multiply_adds / base.multiply_adds
    print(f"{name:<10}{cost.multiply_adds / 1e9:>13.2f} G{ratio:>7.1f}x{cost.inference / 2**20:>9.1f} MiB")
ratios = [costs[name].multiply_adds / base.multiply_adds for name in ("stitched", "rarefied")]
assert ratios[0] == 64 and round(ratios[1], 1) == 8.8
assert costs["stitched"].inference > 9 * costs["rarefied"].inference > 18 * base.inference

# %% [markdown]
# The layers show why. A bar is the work of one convolution. A layer before the first pool costs the same in the
# rarefied net as in the strided one; after the second pool it costs nearly sixteen times as much; stitched, everything
# costs 64 times as much.

# %%
convolutions = {name: [row for row in cost.rows if row.kind == "Conv2d"] for name, cost in costs.items()}
work = {name: [row.multiply_adds for row in each] for name, each in convolutions.items()}
rise = {name: [b / a for a, b in zip(work["strided"], each, strict=True)] for name, each in work.items()}
assert rise["rarefied"][:2] == [1, 1] and 15 < rise["rarefied"][-1] < 16 and set(rise["stitched"]) == {64}
pictures.bars(
    {name: [each / 1e9 for each in several] for name, several in work.items()},
    [row.name.split(".")[-1] for row in convolutions["strided"]],
    size=(7, 2.8),
    colours=(pictures.FAINT, pictures.SECOND, pictures.ACCENT),
    yscale="log",
    ylabel="multiply-adds, G",
)

# %% [markdown]
# ### Exercise 4: what it costs
#
# Given each layer's multiply-adds in the strided net and its stride, how many times cheaper are rarefied filters than
# shift-and-stitch? Write `cheaper(layers)`, where `layers` is a list of (multiply-adds, stride). (Leave the border
# aside.)

# %%
cheaper = ...  # instead of this line: def cheaper(layers): ...
n06.check_cost(cheaper)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(layers: list[tuple[int, int]]) -> float:
    factor = math.prod(stride for _, stride in layers)
    before, rarefied = 1, 0
    for multiply_adds, stride in layers:
        before *= stride
        rarefied += multiply_adds * before**2
    return factor**2 * sum(multiply_adds for multiply_adds, _ in layers) / rarefied


assert n06.check_cost.accepts(solution)

# %% [markdown]
# Now the time, with a thin VGG, on the machine on which this page was made. `minifcn dense` compares any trunk.

# %% tags=["varies"]
print(f"{cores()} cores, {threads()} threads\n")
done = four_ways(["--size", "96x96"])

# %% [markdown]
# ## 9 · A finer heat map
#
# There are steps between coarse and dense: remove some strides and keep the others. Here is the heat map of notebook
# 05, of *espresso* by SqueezeNet, with a cell every 16, 8 and 4 pixels, from the same weights. (A map ends where the
# last window does, so it shows the middle of the photograph.) Look closely.

# %%
weights = imagenet_squeezenet()
classifier, preprocessing = classify.classifier_of(weights)
windows = classify.dense(classifier)
assert Grid.of(windows.layers()).field == 379
windows.to(DEVICE)
cup = read_image(Path("photos/coffee.jpg"))
espresso = classify.class_number("espresso", weights.classes)
x = xp.asarray(preprocessing(cup)[None])
heat, work = {}, {}
for stride in (16, 8, 4):
    finer = rarefy(windows, stride)
    work[stride] = describe(finer, cup.shape[:2]).multiply_adds / 1e9
    heat[stride] = classify.softmax(run(finer, x))[0, espresso]

shown = {"the photograph": cup} | {
    f"stride {stride}: {cells.shape[0]} x {cells.shape[1]}, {work[stride]:.1f} G multiply-adds": cells
    for stride, cells in heat.items()
}
assert [len(cells) for cells in heat.values()] == [12, 23, 44]
pictures.panels(shown, size=(8, 5), cmap="inferno", limits=(0, 1), rows=2)

# %% [markdown]
# The map is finer, but striped. Is that a fault? Every second column of the map at stride 8 *is* the map at
# stride 16. The others must be, by everything shown above, the strided net's answers for the photograph shifted
# by 8 pixels.

# %%
moved = classify.softmax(run(windows, x[:, :, :, 8:]))[0, espresso]
even, odd = heat[8][::2, 0:44:2], heat[8][::2, 1:44:2]
print(f"even columns: {even.mean():.2f} on average; the strided net: {heat[16][:, :22].mean():.2f}")
print(f"odd columns:  {odd.mean():.2f} on average; the strided net, photograph moved by 8: {moved[:, :22].mean():.2f}")
assert np.allclose(even, heat[16][:, :22], atol=1e-4)
assert abs(odd.mean() - moved[:, :22].mean()) < 0.02 < 0.05 < odd.mean() - even.mean()

# %% [markdown]
# It is not a fault. The strided net gives slightly different answers for a photograph and for the same photograph
# shifted by half a stride: its last pool takes other windows. Stitching puts both kinds of answers side by side, and
# so does rarefaction, which computes the same. (Here the two agree nearly, because SqueezeNet sees 379 pixels, which
# always include padding.) And the cells in between are not interpolated: a straight line between neighbours of the
# coarse map is far from them.

# %%
line = (heat[16][:, :22] + heat[16][:, 1:23]) / 2
print(f"a straight line is off by {abs(odd - line).mean():.2f} on average, {abs(odd - line).max():.2f} at most")
print(f"the moved photograph by   {abs(odd - moved[:, :22]).mean():.2f} on average")
assert abs(odd - moved[:, :22]).mean() < abs(odd - line).mean() / 2

# %% [markdown]
# ## 10 · And the paper?
#
# It calls this another tradeoff: the answers are denser and the fields stay as large, but no filter sees finer detail
# than it was made for. And, as you have counted, it is expensive. The authors tried shift-and-stitch, but do not use
# it: they found learning through upsampling (notebook 07), above all with fine detail from earlier layers (notebook
# 08), more effective and cheaper. Here are the mean IUs of our re-run of the paper, from three seeds.

# %%
records = [json.loads(line) for line in Path("logs/reproduction.jsonl").read_text().splitlines()]
table = {each["row"]: each["mean IU"] for each in records if each["table"] == "Shift-and-stitch or upsampling"}
for name, value in table.items():
    print(f"{name:<30} {value}")
alone = table["FCN-32s, upsampling learned"] - table["coarse, stitched"]
fused = table["FCN-16s, fused"] - table["FCN-32s, trained on, stitched"]
assert (round(alone, 1), round(fused, 1)) == (-0.6, 5.8)

# %% [markdown]
# With fused layers the net is better than shift-and-stitch, by 5.8 points: that claim *held*. Upsampling alone is
# not: it is 0.6 points behind, less than the seeds differ among each other, so that claim is *undecided*. (*The
# paper, re-run*, in the documentation.) Nets that keep a stride of 8 by dilation came soon after the paper;
# `minifcn.models.dilated` is one.
#
# ## Summary
#
# A net with stride f gives an answer for every pixel if it runs on f x f shifted images and the outputs are
# interlaced. The same result comes from one run without strides whose filters are taken apart (à trous). Both are
# exact; the second computes less. The paper uses neither, because upsampling with skips is cheaper and better.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. How often does shift-and-stitch run a net of stride 8?
#    * (a) 8 times
#    * (b) 16 times
#    * (c) 64 times
#
# 2. A filter of 3 after a stride of 2 that is removed: how many cells does it span?
#    * (a) 5
#    * (b) 6
#    * (c) 7
#
# 3. Do rarefied filters change the receptive field of an output?
#    * (a) yes, it doubles
#    * (b) no
#    * (c) yes, it halves

# %%
letters = ...
n06.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n06.check_quiz.accepts("cab")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/stitch.py`: shift-and-stitch and the rarefied net; `minifcn/ops/shift_and_stitch.py`: its two ops.
# * `minifcn/geometry.py`: the fields; `minifcn/experiments/dense.py`: the comparison.
# * `minifcn/models/dilated.py`: a net that is dilated from the start.
# * From a terminal: `minifcn dense --trunk alexnet --until pool2 --size 120x120 --picture border.png`.
# * Next: [07 Upsampling is backwards strided convolution](07_upsampling.ipynb).
