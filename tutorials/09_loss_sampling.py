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
# Before FCN, people cut images into patches, gave each the label of its middle, and trained a classifier. FCN trains on
# whole images. Does this lose anything? Afterwards you will be able to
#
# * show that a whole image *is* a batch of patches: the gradients are equal,
# * turn any choice of patches into a mask over the loss, without cutting anything,
# * say what sampling costs in noise and in work, and when it could still be worth it,
# * balance classes by sampling or by weights, and know how that changes the prediction.
#
# *The paper: section 3.4, and section 4.3 with figure 5.*
#
# **Before you begin.** You need notebook 04 (what a cell sees) and notebook 01 (gradients, and at its end a loss that
# is summed). Reading takes about half an hour, all exercises together 60 minutes.

# %% tags=["varies"]
import inspect
import itertools
import json
from pathlib import Path

import numpy as np
import pictures
from exercises import n09

from minifcn import FCN32s, ops, sampling
from minifcn.backend import to_host, xp_on
from minifcn.data import VOID, Preprocessing, Shapes, collate
from minifcn.geometry import Grid
from minifcn.kernels.threads import threads
from minifcn.metrics import ConfusionMatrix
from minifcn.nn import Conv2d, MaxPool2d, Sequential
from minifcn.optim import SGD
from minifcn.tensor import no_grad

SEED = 0
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy
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

pictures.patches(world[1].image, (slice(20, 44), slice(10, 36)), keep[0], grid)

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


cells = np.argwhere(keep[0])
patches = np.concatenate(
    [piece[:, :, STRIDE * i : STRIDE * i + FIELD, STRIDE * j : STRIDE * j + FIELD] for i, j in cells]
)
patch_labels = np.array([truth[0, i, j] for i, j in cells]).reshape(33, 1, 1)
patch_scores = net(xp.asarray(patches))
patchwise = gradient_of(ops.softmax_cross_entropy(patch_scores, xp.asarray(patch_labels), normalize="none"))

masked = ops.softmax_cross_entropy(
    net(xp.asarray(piece)), xp.asarray(truth), sampling=xp.asarray(keep), normalize="none"
)
whole = gradient_of(masked)

print(f"{len(whole)} gradients of up to {abs(whole).max():.1f}; none differs by as much as 1e-11")
assert abs(whole - patchwise).max() < 1e-11 and abs(whole).max() > 0.1

# %%
both = {"every gradient of the net": (patchwise, whole)}
pictures.against(both, size=(3.6, 3.2), xlabel="patch by patch", ylabel="whole image, masked", title=next(iter(both)))

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
    apart = to_host(abs(padded(xp.asarray(piece)).data - net(xp.asarray(around)).data).max(axis=1))[0]
inside = apart[2:-2, 2:-2]
edges = (apart[:2], apart[-2:], apart[:, :2], apart[:, -2:])
assert inside.max() < 1e-12 and min(edge.min() for edge in edges) > 1e-3  # a ring of two cells
pictures.panels({"scores that padding changed": apart}, size=(4.6, 3), bar=True)

# %% [markdown]
# Inside they are equal; a ring of two cells differs. How wide is that ring in the paper's nets, which pad by 100 and
# whose cells see 404 pixels?

# %%
vgg = Grid.of(FCN32s(classes=21, width=1).trunk.paths()["fc7"])
starts = [vgg.start + vgg.stride * i - (vgg.field - 1) / 2 for i in range(16)]
without_padding = [i for i, start in enumerate(starts) if start >= 0 and start + vgg.field <= 500]
print(f"of the 16 cells along a side of 500 pixels, {without_padding} see no padding")
assert vgg.field == 404 and without_padding == [6, 7, 8]

# %% [markdown]
# Only three of the sixteen cells along each side see nothing but the photograph. For all others the equality holds
# with patches that have the padding, too.
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
masks = {p: sampling.sample(at_cells(labels[:1]), p, np.random.default_rng(SEED))[0] for p in (1.0, 0.5, 0.25, 0.05)}
assert all(abs(mask.mean() - p) < 0.03 for p, mask in masks.items())
shown = {f"p = {p}: {mask.sum()} of {mask.size}": mask for p, mask in masks.items()}
pictures.panels(shown, size=(9, 2.5), limits=(0, 1.3))

# %% [markdown]
# Divide the kept sum by $p$, and the gradient is right on average. How far off is a single draw? With one independent
# draw $m_i$ for each cell, 1 with probability $p$ and else 0,
#
# $$ \mathrm{E}\,\Big\| \frac1p \sum_i m_i g_i - \sum_i g_i \Big\|^2 = \frac{1-p}{p} \sum_i \|g_i\|^2. $$
#
# To see it, take the gradient at the weights of the score layer. Every cell's part $g_i$ of it is known in closed form:
# (probabilities − truth) × features. Here they are for all cells of 96 scenes.

# %%
net = small_net()
with no_grad():
    features = net.conv2(net.pool1(net.conv1(xp.asarray(x))))
    scores = net.score(features)
features, scores = to_host(features.data).astype(np.float64), to_host(scores.data).astype(np.float64)
truth = at_cells(labels)
share = np.exp(scores - scores.max(axis=1, keepdims=True))
share /= share.sum(axis=1, keepdims=True)
wrong = (share - (truth[:, None] == np.arange(8)[:, None, None])) * (truth != VOID)[:, None]
G = np.einsum("nchw,nkhw->nhwck", wrong, features).reshape(96, 841, 96)  # scene, cell, number of weights

check = ops.softmax_cross_entropy(net(xp.asarray(x[:1])), xp.asarray(truth[:1]), normalize="none")
check.backward()
assert np.allclose(to_host(net.score.w.grad).ravel(), G[0].sum(axis=0), rtol=1e-3, atol=1e-3)
print("gradients of", G.shape[0] * G.shape[1], "cells; their sum over a scene is what backward() gives")

# %% [markdown]
# How noisy is the gradient of the first scene, if only a part of its cells is kept?

# %%
one, coins = G[0], np.random.default_rng(SEED)
ps = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95])
size = np.linalg.norm(one.sum(axis=0))
measured = [
    np.sqrt(np.mean([np.sum(((coins.random(841) < p) / p @ one - one.sum(axis=0)) ** 2) for _ in range(200)])) / size
    for p in ps
]
squares = (one**2).sum() / size**2
expected = np.sqrt((1 - ps) / ps * squares)
assert np.allclose(measured, expected, rtol=0.15)
assert ps[5] == 0.5 and measured[5] < 0.1  # half of the cells
pictures.noise_by_share({"200 draws each": (ps, measured)}, lambda p: np.sqrt((1 - p) / p * squares))

# %% [markdown]
# Dropping half of the cells does little harm: the noise is below a tenth of the gradient. The reason is that
# *neighbours are similar*. Their gradients point nearly the same way, add up, and outweigh the noise:

# %%
unit = G / np.maximum(np.linalg.norm(G, axis=2, keepdims=True), 1e-12)
unit = unit.reshape(96, 29, 29, 96)
cosines = {
    "neighbours in a row": float((unit[:, :, 1:] * unit[:, :, :-1]).sum(axis=3).mean()),
    "the same cell of two scenes": float((unit[1:] * unit[:-1]).sum(axis=3).mean()),
}
for pair, cosine in cosines.items():
    print(f"{pair:<28} mean cosine of their gradients {cosine:.2f}")
assert cosines["neighbours in a row"] > 0.7 > 0.4 > cosines["the same cell of two scenes"]

# %% [markdown]
# But then the neighbours of a cell add little that is new. The paper keeps the number of cells in a batch: at $p$ it
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
assert all(fine < coarse for coarse, fine in itertools.pairwise(spread)) and alone < spread[-1]
both = {"841 cells out of n scenes": spread, "841 cells, each out of another scene": [alone] * len(counts)}
pictures.noise_by_scenes(counts, both)

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
# of the cells of four times as many: each step has as many cells. By the step its curves lie on each other, so by the
# clock whole images win. Our re-run of the paper does the same with an FCN-8s on a thin VGG-11, on the embedded
# world, from three seeds (`minifcn reproduce sampling`). Its logs are in `logs/sampling.jsonl`, the mean seconds in
# `logs/reproduction.jsonl`.
#
# The dotted line is the *prior*: the loss of a net that ignores the image and knows only how frequent each class is.
# A curve near it would show a net that has learned nothing.


# %%
def read_log(name):
    return [json.loads(line) for line in Path("logs", name).read_text().splitlines()]


scenes = Shapes("train", count=300)
pixels = sum(sampling.count(scenes[i].label, 8) for i in range(300))
frequency = pixels / pixels.sum()
prior = -(frequency * np.log(frequency)).sum()
BATCH, STEPS = 4, 320  # whole scenes a step, and the steps of each run

records = read_log("sampling.jsonl")
timed = {each["row"]: each for each in read_log("reproduction.jsonl") if each["table"] == "Sampling the loss"}
seconds = {p: row["seconds of training"] for p, row in zip((1.0, 0.5, 0.25), timed.values(), strict=True)}
runs = {}
for p in seconds:
    mine = [[r for r in records if (r["p"], r["seed"]) == (p, seed)] for seed in (0, 1, 2)]
    runs[p] = [np.array([(r["step"], r["loss"]) for r in each]).T for each in mine]
assert max(losses[-1] for each in runs.values() for _, losses in each) < 0.6 * prior  # they have learned
pictures.figure_5(runs, BATCH, prior, seconds)

# %% [markdown]
# All nets are far below the prior. How far is each after as many steps, after as many scenes, and after as much time?
# The table has the mean losses of the three seeds, at the moment when the runs on whole images end.


# %%
def losses_at(step):
    """The loss of each seed after `step[p]` steps, by p."""
    return {p: np.array([np.interp(step[p], *run) for run in each]) for p, each in runs.items()}


at = {
    "320 steps": losses_at(dict.fromkeys(runs, STEPS)),
    "1280 scenes": losses_at({p: 1280 * p / BATCH for p in runs}),
    f"{seconds[1.0]:.0f} seconds": losses_at({p: STEPS * seconds[1.0] / seconds[p] for p in runs}),
}
print(f"{'after':<14}" + "".join(f"p = {p:<8}" for p in runs))
for name, losses in at.items():
    print(f"{name:<14}" + "".join(f"{each.mean():<12.2f}" for each in losses.values()))
print("seconds of 320 steps:", seconds)
_, fixed = np.polyfit([BATCH / p for p in seconds], list(seconds.values()), 1)  # seconds = slope * scenes + fixed
print(f"by a straight line through these three, {fixed:.0f} seconds do not depend on the number of scenes")
steps, scenes_, clock = at.values()
assert (steps[1.0] > steps[0.5]).all() and (steps[0.5] > steps[0.25]).all()
assert (scenes_[1.0] < scenes_[0.5]).all() and (scenes_[0.5] < scenes_[0.25]).all()
assert np.ptp([each.mean() for each in clock.values()]) < 0.03 < 0.07 < np.ptp(clock[1.0])
assert [round(seconds[p] / seconds[1.0], 1) for p in (0.5, 0.25)] == [1.4, 2.0] and 0.6 < fixed / seconds[1.0] < 0.75

# %% [markdown]
# * **Per step** the sampled batches are *ahead*, in all three seeds: a batch of the same number of cells from more
#   scenes has less noise, as section 3 showed. So at this scale the paper's claim that sampling changes nothing per
#   step is *reversed* (see *The paper, re-run* in the documentation).
# * **Per scene** whole images are ahead, in all three seeds: the convolutions run over every scene, however few of its
#   cells count.
# * **By the clock** neither is ahead: the three means differ by less than the seeds do. As many steps did take longer
#   with sampling, 1.4 and 2.0 times, and there the paper's claim is *held*; but not 2 and 4 times. Our net is so thin
#   that two thirds of the time of a step of whole images do not depend on the number of its scenes (the update of the
#   weights, for example). The more the convolutions take of a step, the more the clock follows the scenes.
#
# (The last two comparisons favour whole images a little: their learning rate has already fallen to zero there, the
# others' has not.)
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
counts = sampling.count(truth, 8)  # the number of cells of each class
fair = sampling.count(
    np.where(sampling.sample_balanced(truth, 0.05, np.random.default_rng(SEED), classes=8), truth, VOID), 8
)
print(f"background: {counts[0] / counts.sum():.0%} of the cells; VOC has three quarters")
assert 0.6 < counts[0] / counts.sum() < 0.7 and fair.max() < 1.3 * fair.min()
shares = {
    "all cells": 100 * counts / counts.sum(),
    "kept by sample_balanced, p = 0.05": 100 * fair / fair.sum(),
}
pictures.bars(shares, world.classes, ylabel="% of the cells")

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
    totals = weights * counts**power  # power 0: all weights are 1; power 1: all classes have the same total
    assert np.allclose(totals / totals[0], 1)

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
# predicts each class. *Pixel accuracy* is the part of all cells that is right, *mean accuracy* the mean of that part
# over the classes, and *mean IU* counts a class's wrong predictions, too (notebook 11 computes all of them).

# %% tags=["varies"]
test_world = Shapes("val", count=24)
x_val, labels_val = collate([test_world[i] for i in range(24)], LOOK)
x_val, truth_val = xp.asarray(x_val), at_cells(labels_val)


def train(weights, *, steps=200, images=8):
    """SGD on so many scenes a step, with class weights. Returns the net."""
    net, order = small_net(), np.random.default_rng(SEED)
    optimizer = SGD(net, lr=0.05, momentum=0.9)
    for _ in range(steps):
        chosen = order.choice(len(x), images, replace=False)
        loss = ops.softmax_cross_entropy(net(xp.asarray(x[chosen])), xp.asarray(truth[chosen]), weights=weights)
        loss.backward()
        optimizer.step()
    return net


results = {}
for name, power in (("no weights", None), ("power 0.5", 0.5), ("power 1", 1)):
    weights = None if power is None else xp.asarray(sampling.class_weights(counts, power=power))
    net = train(weights)
    with no_grad():
        said = to_host(net(x_val).data).argmax(axis=1)
    results[name] = ConfusionMatrix(8, VOID)
    results[name].update(truth_val, said)
    measures = results[name].summary()
    print(f"{name:11}" + "".join(f"   {key} {value:.2f}" for key, value in measures.items()))

# %% [markdown]
# How often is each class there, and how often is it predicted?

# %% tags=["varies"]
plain, even = results["no weights"], results["power 1"]
assert plain.pixel_accuracy() > even.pixel_accuracy() + 0.1 and plain.mean_accuracy() + 0.05 < even.mean_accuracy()
assert plain.shares_predicted()[0] > plain.shares_true()[0] > even.shares_predicted()[0]
shares = {"truth": plain.shares_true(), **{name: each.shares_predicted() for name, each in results.items()}}
shares = {name: 100 * each for name, each in shares.items()}
colours = ("0.2", "0.7", pictures.ACCENT, pictures.SECOND)
pictures.bars(shares, world.classes, size=(9, 2.8), colours=colours, ylabel="% of the cells")

# %% [markdown]
# Without weights this very small net predicts *background* more often than it is there; with full balance, less
# often. Mean accuracy rises, and pixel accuracy falls. It is too small to learn much, so look at better nets, too:
# FCN-8s on the embedded world, in our re-run of the paper, from three seeds.

# %%
balance = {each["row"]: each for each in read_log("reproduction.jsonl") if each["table"] == "Balancing the classes"}
for name, record in balance.items():
    print(f"{name:<12}" + "".join(f"   {key} {record[key]}" for key in ("pixel acc.", "mean acc.", "mean IU")))
plain_, even_ = balance["as they are"], balance["balanced"]
gained = {key: round(even_[key] - plain_[key]) for key in ("mean acc.", "pixel acc.", "mean IU")}
assert list(gained.values()) == [12, -10, -5]

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
# cutting anything. Sampling adds noise and saves nothing in the convolutions. A batch of the same number of cells from
# more images is better for each step, and each step is more work. Class weights are sampling without its noise; they
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
# * Next: [10 Train a net, on drawn scenes and on four photographs](10_train.ipynb).
