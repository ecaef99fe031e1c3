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
# # 09 · Patchwise training is loss sampling
#
# Before FCN, people cut images into patches, labelled each by its middle, and trained a classifier. FCN trains on
# whole images. Does this lose anything? Afterwards you will be able to
#
# * show that a whole image *is* a batch of patches, to the last digit of the gradient,
# * turn any choice of patches into a mask over the loss, without cutting anything,
# * say what sampling costs in noise and in time, and when it could still be worth it,
# * balance classes by sampling or by weights, and know how that changes the prediction.
#
# *The paper: section 3.4, and section 4.3 with figure 5.*
#
# **Before you begin.** You need notebook 04 (what a cell sees) and how a loss is summed over pixels (notebook 01, at
# its end). Reading takes about half an hour, all exercises together 60 minutes.

# %% tags=["varies"]
import inspect
import itertools
import json
from pathlib import Path

import numpy as np
from exercises import n09
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minifcn import ops, sampling, viz
from minifcn.backend import to_device, to_host
from minifcn.data import VOID, Preprocessing, Shapes, collate
from minifcn.geometry import Grid
from minifcn.kernels.threads import threads
from minifcn.metrics import ConfusionMatrix
from minifcn.nn import Conv2d, MaxPool2d, Sequential
from minifcn.optim import SGD
from minifcn.tensor import no_grad

SEED = 0
DEVICE = "cpu"  # or "gpu"
LOOK = Preprocessing("RGB", 1 / 255, (0.527, 0.506, 0.462), (0.192, 0.175, 0.233))  # the world's mean and spread
print(f"device {DEVICE}, {threads()} threads")

# %% [markdown]
# ## 1 · What one cell sees
#
# A small fully convolutional net without padding: a convolution, a pool, a convolution, and scores for eight classes.
# Each cell of its output sees one patch of the image, and nothing else. `Grid` says which.


# %%
def small_net(padding=0):
    init = np.random.default_rng(SEED)
    return Sequential(
        conv1=Conv2d(3, 8, 3, padding=padding, relu=True, init=init),
        pool1=MaxPool2d(2, ceil_mode=True),
        conv2=Conv2d(8, 12, 3, padding=padding, relu=True, init=init),
        score=Conv2d(12, 8, 1, init=init),
    ).to(DEVICE)


world = Shapes("train", count=96)
x, labels = collate([world[i] for i in range(len(world))], LOOK)
grid = Grid.of(small_net().layers())
FIELD, STRIDE = int(grid.field), int(grid.stride)
print(f"{grid}: cell i sees {FIELD} pixels from {STRIDE} * i on")
assert (FIELD, STRIDE) == (8, 2) and grid.start - (grid.field - 1) / 2 == 0


def at_cells(labels):
    """The label of each cell: that of the pixel in the middle of its patch (of the four there, the first)."""
    middle = int(grid.start)
    return labels[:, middle : labels.shape[1] - middle : STRIDE, middle : labels.shape[2] - middle : STRIDE]


# %% [markdown]
# Take a piece of 24 × 26 pixels. It has 9 × 10 cells, so 90 patches. Choose some of them at random, as in patchwise
# training. Here are 33 of them.

# %%
piece, truth = x[1:2, :, 20:44, 10:36].astype(np.float64), at_cells(labels[1:2, 20:44, 10:36])
draws = np.random.default_rng(SEED)
keep = np.zeros(90, np.uint8)
keep[draws.permutation(90)[:33]] = 1
keep = keep.reshape(1, 9, 10)
assert truth.shape == keep.shape and keep.sum() == 33

drawing = Figure(figsize=(9, 3.2), layout="constrained")
left, middle, right = drawing.subplots(1, 3)
left.imshow(world[1].image)
left.add_patch(Rectangle((9.5, 19.5), 26, 24, fill=False, edgecolor="white", linewidth=2))
left.set_title("a scene, and the piece")
middle.imshow(world[1].image[20:44, 10:36])
for i, j in np.argwhere(keep[0]):
    middle.add_patch(Rectangle((STRIDE * j - 0.5, STRIDE * i - 0.5), FIELD, FIELD, fill=False, edgecolor=viz.SECOND))
middle.set_title("33 patches")
right.imshow(keep[0], cmap="Blues", vmin=0, vmax=1.3)
right.set_title("the same 33 cells of the output")
for axes in (left, middle, right):
    axes.set(xticks=[], yticks=[])
viz.show(drawing)

# %% [markdown]
# ## 2 · The same gradient
#
# You can train on the same 33 patches in two ways. **Patchwise**: cut them out, make a batch of 33 little images, sum
# their losses. **Whole image**: run the net once over the piece, and sum the loss over the kept cells only;
# `sampling=` is the mask.

# %%
net = small_net().astype(np.float64)


def gradient_of(loss):
    """All gradients of the net as one line of numbers."""
    loss.backward()
    line = np.concatenate([to_host(p.grad).ravel() for p in net.parameters()])
    for p in net.parameters():
        p.zero_grad()
    return line


def put(array):
    return to_device(np.ascontiguousarray(array), DEVICE)


cells = np.argwhere(keep[0])
patches = np.concatenate(
    [piece[:, :, STRIDE * i : STRIDE * i + FIELD, STRIDE * j : STRIDE * j + FIELD] for i, j in cells]
)
patch_labels = np.array([truth[0, i, j] for i, j in cells]).reshape(33, 1, 1)
patchwise = gradient_of(ops.softmax_cross_entropy(net(put(patches)), put(patch_labels), normalize="sum"))

masked = ops.softmax_cross_entropy(net(put(piece)), put(truth), sampling=put(keep), normalize="sum")
whole = gradient_of(masked)

print(f"{len(whole)} gradients of up to {abs(whole).max():.1f}; none differs by as much as 1e-11")
assert abs(whole - patchwise).max() < 1e-11 and abs(whole).max() > 0.1

drawing = Figure(figsize=(3.6, 3.2), layout="constrained")
axes = drawing.subplots()
axes.plot(patchwise, whole, ".", color=viz.ACCENT, markersize=3)
axes.axline((0, 0), slope=1, color="0.8", zorder=0)
axes.set(xlabel="patch by patch", ylabel="whole image, masked", title="every gradient of the net")
viz.show(drawing)

# %% [markdown]
# They are equal up to rounding, and they must be. The loss of the image is a sum over cells, the gradient of a sum is
# the sum of the gradients, and each cell depends on its patch alone:
#
# $$ \nabla \sum_{i} m_i\, \ell_i = \sum_i m_i\, \nabla \ell_i. $$
#
# So **patchwise training is a mask between the net and the loss**. (You can see it as a DropConnect there:
# connections to the loss are cut at random.) Only the cost differs. Patches overlap, and cutting them out computes
# the overlap again and again.

# %%
pixels = 33 * FIELD * FIELD
print(f"33 patches are {pixels} pixels, the piece has {24 * 26}: {pixels / (24 * 26):.1f} times the work")
print(f"all 90 patches would be {90 * FIELD * FIELD / (24 * 26):.1f} times the work")
assert 3 < pixels / (24 * 26) < 4 and 9 < 90 * FIELD * FIELD / (24 * 26) < 10

# %% [markdown]
# **Where it does not hold.** With padding, a cell near the border sees zeros that no patch of the scene has. Compare
# the padded net with the same net on the same piece *and its true surroundings*, 3 pixels on each side.

# %%
padded = small_net(padding=1).astype(np.float64)
around = x[1:2, :, 17:47, 7:39].astype(np.float64)
with no_grad():
    apart = abs(to_host(padded(put(piece)).data) - to_host(net(put(around)).data)).max(axis=1)[0]
drawing = Figure(figsize=(4.6, 3), layout="constrained")
axes = drawing.subplots()
drawing.colorbar(axes.imshow(apart, cmap="Blues"), ax=axes)
axes.set(title="scores that padding changed", xticks=[], yticks=[])
assert apart[2:-2, 2:-2].max() < 1e-12 and apart[0].min() > 1e-3
viz.show(drawing)

# %% [markdown]
# Inside they are equal; a ring of two cells differs. The nets of the paper pad by 100, so for them the equality holds
# except near the border.
#
# Another limit is the stride. Our cells are 2 pixels apart, so only every fourth patch of the scene has a cell. The
# paper's footnote gives the solution: shift the image at random, by less than the stride.

# %%
every = {(top, left) for top in range(64 - FIELD + 1) for left in range(64 - FIELD + 1)}
reached = {shift: set() for shift in ((0, 0), (0, 1), (1, 0), (1, 1))}
for down, right in reached:
    reached[down, right] = {
        (top, left) for top in range(down, 64 - FIELD + 1, STRIDE) for left in range(right, 64 - FIELD + 1, STRIDE)
    }
together = set().union(*reached.values())
print(f"{len(every)} patches in a scene of 64 x 64; {len(reached[0, 0])} without a shift, {len(together)} by all four")
assert together == every and len(reached[0, 0]) == 841

# %% [markdown]
# ### Exercise 1: the patch of a cell
#
# Write `patch(grid, i)`: the first pixel that cell i sees along one axis, and the one after the last.

# %%
patch = ...  # instead of this line: def patch(grid, i): return first, stop
n09.check_patch(patch)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(grid, i):
    first = grid.start + grid.stride * i - (grid.field - 1) / 2
    return first, first + grid.field


assert n09.check_patch.accepts(solution)

# %% [markdown]
# ## 3 · A sampler with one number
#
# Keep every cell with probability $p$. That is the sampler of the paper's experiment; it is one line of NumPy.

# %%
print(inspect.getsource(sampling.sample))
drawing = Figure(figsize=(9, 2.4), layout="constrained")
for axes, p in zip(drawing.subplots(1, 4), (1.0, 0.5, 0.25, 0.05), strict=True):
    mask = sampling.sample(at_cells(labels[:1]), p, np.random.default_rng(SEED))
    axes.imshow(mask[0], cmap="Blues", vmin=0, vmax=1.3)
    axes.set(title=f"p = {p}: {mask.sum()} of {mask.size}", xticks=[], yticks=[])
viz.show(drawing)

# %% [markdown]
# Divide the kept sum by $p$, and the gradient is right on average. How far off is a single draw? With independent
# coin flips,
#
# $$ \mathrm{E}\,\Big\| \frac1p \sum_i m_i g_i - \sum_i g_i \Big\|^2 = \frac{1-p}{p} \sum_i \|g_i\|^2. $$
#
# To see it, take the gradient at the weights of the score layer. Every cell's part of it is known in closed form:
# (probabilities − truth) × features. The picture uses all cells of 96 scenes at once.

# %%
net = small_net()
with no_grad():
    features = net.conv2(net.pool1(net.conv1(put(x))))
    scores = net.score(features)
features, scores = to_host(features.data).astype(np.float64), to_host(scores.data).astype(np.float64)
truth = at_cells(labels)
share = np.exp(scores - scores.max(axis=1, keepdims=True))
share /= share.sum(axis=1, keepdims=True)
wrong = (share - (truth[:, None] == np.arange(8)[:, None, None])) * (truth != VOID)[:, None]
G = np.einsum("nchw,nkhw->nhwck", wrong, features).reshape(96, 841, 96)  # scene, cell, number of weights

check = ops.softmax_cross_entropy(net(put(x[:1])), put(truth[:1]), normalize="sum")
check.backward()
assert np.allclose(to_host(net.score.w.grad).ravel(), G[0].sum(axis=0), rtol=1e-3, atol=1e-3)
print("gradients of", G.shape[0] * G.shape[1], "cells; their sum over a scene is what backward() gives")

# %%
one, coins = G[0], np.random.default_rng(SEED)
ps = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95])
size = np.linalg.norm(one.sum(axis=0))
measured = [
    np.sqrt(np.mean([np.sum(((coins.random(841) < p) / p @ one - one.sum(axis=0)) ** 2) for _ in range(200)])) / size
    for p in ps
]
line = np.linspace(0.015, 1, 200)
drawing = Figure(figsize=(6, 3), layout="constrained")
axes = drawing.subplots()
axes.plot(line, np.sqrt((1 - line) / line * (one**2).sum()) / size, color="0.6", label="the formula")
axes.plot(ps, measured, "o", color=viz.ACCENT, label="200 draws each")
axes.set(xlabel="p", ylabel="noise / gradient", title="noise of the sampled gradient of one scene", ylim=(0, None))
axes.legend(frameon=False)
expected = np.sqrt((1 - ps) / ps * (one**2).sum()) / size
assert np.allclose(measured, expected, rtol=0.15)
viz.show(drawing)

# %% [markdown]
# Dropping half of the cells does little harm. The reason is that *neighbours are similar*: their gradients point the
# same way, add up, and outweigh the noise.
#
# But then the cells of one scene add little to each other. The paper keeps the number of cells in a batch: at $p$ it
# takes $1/p$ times as many images. How noisy is a batch of 841 cells, taken from one scene, from two, from sixteen?
# Here noise is the distance from the mean gradient over all scenes.

# %%
mean = G.sum(axis=(0, 1)) / 96
spread, counts = [], (1, 2, 4, 8, 16)
for images in counts:
    off = []
    for _ in range(300):
        chosen = coins.choice(96, images, replace=False)
        mask = coins.random((images, 841)) < 1 / images
        off.append(np.sum((np.einsum("nm,nmk->k", mask, G[chosen]) - mean) ** 2))
    spread.append(np.sqrt(np.mean(off)) / np.linalg.norm(mean))
alone = np.sqrt(841 * (G.reshape(-1, 96) ** 2).sum(axis=1).mean()) / np.linalg.norm(mean)  # cells from everywhere
drawing = Figure(figsize=(6, 3), layout="constrained")
axes = drawing.subplots()
axes.plot(counts, spread, "o-", color=viz.SECOND, label="841 cells out of n scenes")
axes.axhline(alone, color="0.6", linestyle=":", label="841 cells, each out of another scene")
axes.set(
    xlabel="scenes in the batch, n = 1/p",
    ylabel="noise / gradient",
    title="the same number of cells",
    ylim=(0, None),
    xticks=counts,
)
axes.legend(frameon=False)
assert all(fine < coarse for coarse, fine in itertools.pairwise(spread)) and alone < spread[-1]
viz.show(drawing)

# %% [markdown]
# So the mixed batch *is* better. It also costs $n$ times the work: the net runs over all of $n$ scenes, and most of
# its output is not used. Which is better overall?
#
# ### Exercise 2: an unbiased estimate
#
# Write `unbiased(g, keep, p)`: an estimate of `g.sum()` that uses only the kept cells, and is right on average.

# %%
unbiased = ...  # instead of this line: def unbiased(g, keep, p): ...
n09.check_unbiased(unbiased)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(g, keep, p):
    return (g * keep).sum() / p


assert n09.check_unbiased.accepts(solution)

# %% [markdown]
# ## 4 · Figure 5 of the paper, again
#
# Figure 5 of the paper trains the same net on whole images, on half of the cells of twice as many, and on a quarter
# of the cells of four times as many: each step has as many cells. Its curves lie on each other by the step, so whole
# images win by the clock. Our re-run of the paper does the same with an FCN-8s on a thin VGG-11, on the embedded
# world, from three seeds (`minifcn reproduce sampling`, about ten minutes). Its logs are in `logs/sampling.jsonl`.
# The dotted line is the *prior*: the loss of a net that ignores the image and knows only how frequent each class is.
# A curve near it would show a net that has learned nothing.

# %%
records = [json.loads(line) for line in Path("logs/sampling.jsonl").read_text().splitlines()]
scenes = Shapes("train", count=300)
pixels = sum(sampling.count(scenes[i].label, 8) for i in range(300))
frequency = pixels / pixels.sum()
prior = -(frequency * np.log(frequency)).sum()
BATCH = 4  # whole scenes a step

drawing = Figure(figsize=(9, 3), layout="constrained")
left, right = drawing.subplots(1, 2, sharey=True)
ends, at_1280 = {}, {}
for p, colour in ((1.0, viz.ACCENT), (0.5, viz.SECOND), (0.25, "0.5")):
    for seed in (0, 1, 2):
        steps, losses = np.array([(r["step"], r["loss"]) for r in records if (r["p"], r["seed"]) == (p, seed)]).T
        left.plot(
            steps, losses, color=colour, label=f"p = {p}, {round(BATCH / p)} scenes a step" if seed == 0 else None
        )
        right.plot(steps * BATCH / p, losses, color=colour)
        ends[p, seed] = losses[-1]
        at_1280[p, seed] = np.interp(1280, steps * BATCH / p, losses)
for axes in (left, right):
    axes.axhline(prior, color="0.3", linestyle=":", linewidth=1)
left.text(320, prior + 0.02, "prior", ha="right", fontsize=9)
left.set(xlabel="step", ylabel="training loss per pixel", title="per step", ylim=(0.3, 1.8))
right.set(xlabel="scenes that the net ran over", title="per scene, hence nearly per second")
left.legend(frameon=False)
print(f"prior {prior:.2f}")
for p in (1.0, 0.5, 0.25):
    at_end, at_same = (np.mean([each[p, seed] for seed in range(3)]) for each in (ends, at_1280))
    print(f"p = {p:4}: {at_end:.2f} after 320 steps, {at_same:.2f} after 1280 scenes")
assert max(ends.values()) < 0.6 * prior  # they have learned
assert all(ends[1.0, seed] > ends[0.5, seed] > ends[0.25, seed] for seed in range(3))
assert all(at_1280[1.0, seed] < at_1280[0.5, seed] < at_1280[0.25, seed] for seed in range(3))
viz.show(drawing)

# %% [markdown]
# All nets are far below the prior. Per step the sampled batches are *ahead*, in all three seeds: a batch of the same
# number of cells from more scenes has less noise, as section 3 showed. So at this scale the paper's claim that
# sampling changes nothing per step is *reversed* (see *The paper, re-run* in the documentation). The paper's
# conclusion stands: per scene, which is nearly per second, whole images are ahead, in all three seeds. Part of that
# lead is the learning rate, which has fallen to zero after 1280 whole scenes, but not yet for the others; and the
# convolutions run over every scene, however few of its cells count.
#
# Sampling is still cheaper than cutting out patches as long as $p$ is above about 1/5, since AlexNet over a whole
# image costs a fifth of what its patches cost (section 3.1; notebook 05 measures it).
#
# ### Exercise 3: how many images?
#
# A batch of 10 whole images is to become a batch of as many cells with $p = 0.2$. How many images does it need?

# %%
images = ...
n09.check_images(images)

# %% tags=["solution"] jupyter={"source_hidden": true}
solution = 50  # 10 / 0.2
assert n09.check_images.accepts(solution)

# %% [markdown]
# ## 5 · Class balance
#
# A sampler may also choose *which* cells. The usual reason is that some classes are rare. How rare are they in the
# embedded world?

# %%
counts = sampling.count(truth, 8)
fair = sampling.count(
    np.where(sampling.sample_balanced(truth, 0.05, np.random.default_rng(SEED), classes=8), truth, VOID), 8
)
drawing = Figure(figsize=(8, 2.8), layout="constrained")
axes = drawing.subplots()
places = np.arange(8)
axes.bar(places - 0.2, 100 * counts / counts.sum(), 0.4, color=viz.ACCENT, label="all cells")
axes.bar(places + 0.2, 100 * fair / fair.sum(), 0.4, color=viz.SECOND, label="kept by sample_balanced, p = 0.05")
axes.set_xticks(places, world.classes)
axes.set(ylabel="% of the cells")
axes.legend(frameon=False)
print(f"background: {counts[0] / counts.sum():.0%} of the cells; VOC has three quarters")
assert 0.6 < counts[0] / counts.sum() < 0.7 and fair.max() < 1.3 * fair.min()
viz.show(drawing)

# %% [markdown]
# Instead of dropping the cells of frequent classes you can *weight* all cells: a class kept with probability $q$
# counts on average as if it had weight $q$. Weights use every cell and add no random noise. `class_weights(counts,
# power=...)` makes them from the counts: 0 changes nothing, 1 gives all classes the same total weight.

# %%
for power in (0, 0.5, 1):
    weights = sampling.class_weights(counts, power=power)
    print(
        f"power {power:3}: "
        + "  ".join(f"{name} {weight:.2f}" for name, weight in zip(world.classes, weights, strict=True))
    )
    assert np.isclose((weights * counts).sum() / counts.sum(), 1)  # the average cell weighs 1

# %% [markdown]
# Sampling and weighting are equal on average. Check it: keep each class with its own probability, many times, and
# compare the mean gradient with the weighted one.

# %%
q = np.minimum(1, counts.min() / counts)
cell_q = np.append(q, 0)[np.where(truth[0] == VOID, 8, truth[0])].ravel()
weighted = cell_q @ G[0]
sampled = np.mean([(coins.random(841) < cell_q) @ G[0] for _ in range(4000)], axis=0)
noise = np.linalg.norm(sampled - weighted) / np.linalg.norm(weighted)
print(f"the mean of 4,000 sampled gradients is {noise:.1%} away from the weighted one")
assert noise < 0.05

# %% [markdown]
# Does balancing help? Train the small net three times, without weights and with two powers, and look at how often it
# predicts each class.

# %% tags=["varies"]
test_world = Shapes("val", count=24)
x_val, labels_val = collate([test_world[i] for i in range(24)], LOOK)
x_val, truth_val = put(x_val), put(at_cells(labels_val))


def train(weights, *, steps=200, images=8):
    """SGD on so many scenes a step, with class weights. Returns the net."""
    net, order = small_net(), np.random.default_rng(SEED)
    optimizer = SGD(net, lr=0.05, momentum=0.9)
    for _ in range(steps):
        chosen = order.choice(len(x), images, replace=False)
        loss = ops.softmax_cross_entropy(net(put(x[chosen])), put(truth[chosen]), weights=weights)
        loss.backward()
        optimizer.step()
    return net


results = {}
for name, power in (("no weights", None), ("power 0.5", 0.5), ("power 1", 1)):
    weights = None if power is None else put(sampling.class_weights(counts, power=power))
    net = train(weights)
    with no_grad():
        said = to_host(net(x_val).data).argmax(axis=1)
    results[name] = ConfusionMatrix(8, VOID)
    results[name].update(to_host(truth_val), said)
    measures = results[name].summary()
    print(f"{name:11}" + "".join(f"   {key} {value:.2f}" for key, value in measures.items()))

drawing = Figure(figsize=(9, 2.8), layout="constrained")
axes = drawing.subplots()
panels = {
    "truth": results["no weights"].shares_true(),
    **{name: each.shares_predicted() for name, each in results.items()},
}
for i, ((name, shares), colour) in enumerate(zip(panels.items(), ("0.2", "0.7", viz.ACCENT, viz.SECOND), strict=True)):
    axes.bar(np.arange(8) + 0.2 * i - 0.3, 100 * shares, 0.2, color=colour, label=name)
axes.set_xticks(np.arange(8), world.classes)
axes.set(ylabel="% of the cells", title="how often each class is there, and is said")
axes.legend(frameon=False)
plain, even = results["no weights"], results["power 1"]
assert plain.pixel_accuracy() > even.pixel_accuracy() + 0.1 and plain.mean_accuracy() + 0.05 < even.mean_accuracy()
assert plain.shares_predicted()[0] > plain.shares_true()[0] > even.shares_predicted()[0]
viz.show(drawing)

# %% [markdown]
# Without weights this very small net predicts *background* more often than it is there; with full balance, less
# often. Mean accuracy rises, and pixel accuracy falls. It is too small to learn much, so look at better nets, too:
# FCN-8s on the embedded world, in our re-run of the paper, from three seeds.

# %%
records = [json.loads(line) for line in Path("logs/reproduction.jsonl").read_text().splitlines()]
balance = {record["row"]: record for record in records if record["table"] == "Balancing the classes"}
for name, record in balance.items():
    print(f"{name:<12}" + "".join(f"   {key} {record[key]}" for key in ("pixel acc.", "mean acc.", "mean IU")))
plain_, even_ = balance["as they are"], balance["balanced"]
assert plain_["pixel acc."] > even_["pixel acc."] + 5 and plain_["mean acc."] + 5 < even_["mean acc."]
assert plain_["mean IU"] > even_["mean IU"] + 2

# %% [markdown]
# With full balance mean accuracy rises by twelve points, and pixel accuracy falls by ten: rare things are found more
# often, and also predicted where there are none. Mean IU, which counts both errors, falls by five. The paper found
# that balancing does not change its result on VOC, three quarters of which are background; at this scale that claim
# is *reversed*, and its advice, to leave it out, is right all the more. Weights do not add knowledge; they exchange
# one kind of error for another.
#
# ### Exercise 4: weights
#
# Write `weights(counts)`: all classes have the same total weight, the average cell has weight 1, and a class without
# a cell gets 0.

# %%
weights = ...  # instead of this line: def weights(counts): ...
n09.check_weights(weights)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(counts):
    there = counts > 0
    inverse = np.where(there, 1 / np.maximum(counts, 1), 0)
    return inverse * counts.sum() / there.sum()  # each class has counts.sum() / (number of classes) in all


assert n09.check_weights.accepts(solution)

# %% [markdown]
# ## Summary
#
# A whole image is a batch of all its patches: masking the loss gives the gradient of any choice of them, without
# cutting anything. Sampling adds noise and saves nothing in the convolutions. A batch of the same number of cells
# from more images is better for each step and more expensive. Class weights are sampling without its noise; they
# exchange one kind of error for another.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. A loss keeps each cell with probability 0.25. By what must the sum of the kept cells be multiplied to be
#    right on average?
#    * (a) 0.25
#    * (b) 1
#    * (c) 4
#
# 2. What does sampling the loss save?
#    * (a) the forward pass of the cells that are dropped
#    * (b) memory of the net
#    * (c) next to nothing
#
# 3. With class weights that balance all classes, what usually falls?
#    * (a) mean accuracy
#    * (b) pixel accuracy
#    * (c) neither

# %%
letters = ...
n09.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n09.check_quiz.accepts("ccb")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/sampling.py`: samplers and weights, eighty lines.
# * `minifcn/ops/loss.py`: the loss as a sum over pixels, with its mask and its weights.
# * `tests/course/test_sampling.py` checks the equality of section 2 to 1e-12.
# * Next: notebook 10 trains on photographs.
