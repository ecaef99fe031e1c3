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
# # 10 · Train a net, and read its run
#
# After this notebook you can
#
# * write the training loop of a fully convolutional network, and say what its loss must be before the first step;
# * compute the paper's four metrics from one confusion matrix, and say why an average over images is something else;
# * see from two curves what is wrong with a run;
# * look at the worst pictures first, and sort the mistakes by their cause;
# * say what pretraining gains, and measure it.
#
# The paper: section 4.3 (how the nets are trained), section 5 (the metrics), appendix A of the journal version
# (the upper bound).
#
# A net that learns from photographs needs hours or a good GPU. So this notebook trains a short recipe, on the world
# that minifcn draws itself (sections 1 to 11), and then reads the logs of longer runs, among them runs on photographs
# (sections 12 to 14). If you have a data set in the layout of PASCAL VOC, you can set one variable, and every cell
# below trains on it.
#
# **Before you begin.** You need notebooks 07 and 08 (what an FCN is). A GPU is not needed. Reading takes about half
# an hour, all exercises together 90 minutes.

# %% tags=["varies"]
import dataclasses
import inspect
import json
import os
from pathlib import Path

import numpy as np
from exercises import n10
from matplotlib.figure import Figure

from minifcn import ops, sampling, viz
from minifcn.backend import rng, to_device, to_host
from minifcn.data import VOID, Preprocessing, Shapes, collate
from minifcn.data.dataset import Cached
from minifcn.geometry import Grid
from minifcn.inference import inference
from minifcn.kernels.threads import threads
from minifcn.metrics import ConfusionMatrix
from minifcn.models.squeezenet import SqueezeNet
from minifcn.optim import learning_rate
from minifcn.training import setup
from minifcn.training.evaluation import baselines, evaluate, predict, table
from minifcn.training.recipes import preset
from minifcn.weights.published import imagenet_squeezenet

SEED = 0
DEVICE = "cpu"  # or "gpu"
PHOTOS = ""  # a folder in the layout of PASCAL VOC, such as "VOCdevkit/VOC2012"
if not PHOTOS and "MINIFCN_DATA" in os.environ:
    PHOTOS = "$MINIFCN_DATA/voc2012_animals"
WORLD = not PHOTOS  # numbers in the text are those of the world, and are checked there
print(f"threads: {threads()}; device: {DEVICE}; images: {PHOTOS or 'the embedded world'}")

# %% [markdown]
# ## 1 · The labels are a picture
#
# A training image comes with a label for each of its pixels. White with a hatch is *void*: the border of a thing,
# where the class is unclear. Void pixels count in neither the loss nor the metrics.

# %%
options = preset("animals") if PHOTOS else preset("toy")
options = dataclasses.replace(options, data=PHOTOS or "world", max_train=240, max_val=48, seed=SEED)
train, val = (Cached(images) for images in setup.data_sets(options))
CLASSES = train.classes
shown = [train[i] for i in range(4)]
viz.show(viz.gallery([(s.image, s.label) for s in shown], CLASSES, captions=("image", "truth"), columns=4, side=128))

# %% [markdown]
# ## 2 · How many pixels does each class have?
#
# Count, over all training labels. One class has most of them. Keep this picture in mind when a pixel accuracy
# looks good.

# %%
pixels = sum(sampling.count(train[i].label, len(CLASSES)) for i in range(len(train)))
share = pixels / pixels.sum()
figure = Figure(figsize=(7, 2.2), layout="constrained")
axes = figure.subplots()
axes.bar(CLASSES, 100 * share, color=viz.palette(len(CLASSES)) / 255 * 0.9 + 0.05)
axes.set_ylabel("% of the pixels")
axes.tick_params(axis="x", rotation=90 if len(CLASSES) > 12 else 0)
axes.spines[["top", "right"]].set_visible(False)
if WORLD:
    assert round(share[0], 1) == 0.7  # "70 %", below
viz.show(figure)

# %% [markdown]
# In the world background has about 70 % of the pixels. Two baselines that ignore the image show what a number means:
# one predicts the most frequent class everywhere, the other the most frequent class *at that place*. A net has to be
# better than both.

# %%
guesses = baselines(train, val)
print(f"{'':<16} pixel acc.  mean acc.  mean IU  f.w. IU")
for name, matrix in guesses.items():
    print(f"{name:<16}" + "".join(f"{value:>11.3f}" for value in matrix.summary().values()))
if WORLD:
    assert guesses["majority class"].mean_iu() < 0.1 < 0.6 < guesses["majority class"].pixel_accuracy()

# %% [markdown]
# ### Exercise 1: the majority class
#
# Write it as a formula. A net predicts one class everywhere, and that class has the part `share` of all pixels; all
# `classes` classes occur. What are its pixel accuracy and its mean IU?

# %%
majority = ...  # instead of this line: def majority(share, classes): ...
n10.check_majority(majority)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(share, classes):
    return share, share / classes


assert n10.check_majority.accepts(solution)

# %% [markdown]
# ## 3 · Before the first step
#
# The score layers of an FCN start at zero, so all classes are equally likely at every pixel, and the loss per pixel
# must be $-\ln(1/C) = \ln C$. If a net starts with another loss, it has a fault, and you find it before you spend any
# time.

# %%
preprocessing = Preprocessing.fit(train)
net = setup.network(options, len(CLASSES), stride=8)
net.to(DEVICE)


def loss_of(samples):
    x, labels = collate(samples, preprocessing)
    return ops.softmax_cross_entropy(net(to_device(x, DEVICE)), to_device(labels, DEVICE))


first = loss_of(shown).item()
print(f"loss per pixel {first:.4f}, ln {len(CLASSES)} = {np.log(len(CLASSES)):.4f}")
assert abs(first - np.log(len(CLASSES))) < 1e-4

# %% [markdown]
# ## 4 · The loop
#
# Each step draws a few images, mirrors some, and runs forward, backward and update. Momentum is 0.9, and the learning
# rate falls to zero along a nearly straight line ("poly"). Every random number is drawn for its step, so a run can be
# repeated and resumed.
#
# The numbers of a trained net differ from machine to machine: each BLAS sums in its own order, and a few hundred
# steps turn the last bit into a large difference. All cells that show such numbers may vary, and the text states only
# what holds everywhere.

# %% tags=["varies"]
STEPS = 200
history = []
optimizer = setup.solver(options, net)
augment = setup.augmentation(options, preprocessing.fill)
for step in range(STEPS):
    optimizer.lr = learning_rate(step, STEPS, lr=options.lr, schedule="poly")
    chosen = rng(SEED, step).choice(len(train), options.batch, replace=False)
    loss = loss_of([augment(train[int(i)], rng(SEED, step, int(i))) for i in chosen])
    loss.backward()
    optimizer.step()
    history.append({"kind": "train", "step": step + 1, "loss": loss.item()})
    if (step + 1) % 50 == 0:
        measured = evaluate(net, val, preprocessing)
        history.append({"kind": "val", "step": step + 1, "iu": measured.iu().tolist(), **measured.summary()})
        print(f"step {step + 1}: loss {loss.item():.3f}, mean IU {measured.mean_iu():.3f}")
        net.train()

# %% [markdown]
# This is the loop of the library, which also saves checkpoints, stops cleanly and resumes after a stop:

# %%
from minifcn.training.loop import Trainer

print(inspect.getsource(Trainer._one_step))

# %% [markdown]
# ## 5 · Two curves
#
# On the left is the loss, which training minimises; on the right is the metric, which is the goal. The dashed line is
# $\ln C$. The first steps are quick: the net learns the shares of the classes without the image. The slow part
# follows, in which it learns to use the image.

# %% tags=["varies"]
viz.show(viz.curves(history))

# %% [markdown]
# ## 6 · One table has all the metrics
#
# All four metrics come from one table: $n_{ij}$ pixels have class $i$ and are predicted as class $j$. Here it is by
# hand, for an image of twelve pixels and three classes, with one void pixel:

# %%
truth = np.array([[0, 0, 0, 0], [0, 1, 1, 255], [2, 2, 1, 1]])
prediction = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [2, 0, 1, 1]])
n = np.zeros((3, 3), int)
for i, j in zip(truth.ravel(), prediction.ravel(), strict=True):
    if i != VOID:
        n[i, j] += 1
print(n)
assert n.tolist() == [[4, 1, 0], [1, 3, 0], [1, 0, 1]]

# %% [markdown]
# With $t_i = \sum_j n_{ij}$ (pixels that have class $i$) and $p_i = \sum_j n_{ji}$ (pixels that are predicted as it):
#
# | metric | formula | here |
# |---|---|---|
# | pixel accuracy | $\sum_i n_{ii} / \sum_i t_i$ | 8/11 |
# | mean accuracy | $\frac{1}{C} \sum_i n_{ii} / t_i$ | (4/5 + 3/4 + 1/2) / 3 |
# | mean IU | $\frac{1}{C} \sum_i n_{ii} / (t_i + p_i - n_{ii})$ | (4/7 + 3/5 + 1/2) / 3 |
# | f.w. IU | $\sum_i t_i\, n_{ii} / (t_i + p_i - n_{ii}) \,/ \sum_i t_i$ | (5 · 4/7 + 4 · 3/5 + 2 · 1/2) / 11 |

# %%
t, p, hit = n.sum(axis=1), n.sum(axis=0), np.diag(n)
by_hand = {
    "pixel_accuracy": hit.sum() / t.sum(),
    "mean_accuracy": (hit / t).mean(),
    "mean_iu": (hit / (t + p - hit)).mean(),
    "frequency_weighted_iu": (t * hit / (t + p - hit)).sum() / t.sum(),
}
small = ConfusionMatrix(classes=3)
small.update(truth, prediction)
for name, value in by_hand.items():
    print(f"{name:<22} {value:.4f}")
    assert np.isclose(value, small.summary()[name])
assert np.allclose(list(by_hand.values()), [8 / 11, 2.05 / 3, (4 / 7 + 3 / 5 + 1 / 2) / 3, (20 / 7 + 3.4) / 11])

# %% [markdown]
# ### Exercise 2: the table of counts
#
# A loop over pixels is slow. Write the table with one `np.bincount`: every pair (truth, prediction) is one number
# below `classes * classes`. Masks come as `uint8`.

# %%
confusion = ...  # instead of this line: def confusion(truth, prediction, classes): ...
n10.check_confusion(confusion)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(truth, prediction, classes):
    known = truth != 255
    # class numbers come as uint8, and 21 * 20 is more than 255
    cell = classes * truth[known].astype(int) + prediction[known]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


assert n10.check_confusion.accepts(solution)

# %% [markdown]
# ### Exercise 3: mean IU
#
# Compute mean IU from the table. Note a class that neither occurs nor is predicted: its fraction is 0/0.

# %%
mean_iu = ...  # instead of this line: def mean_iu(matrix): ...
n10.check_mean_iu(mean_iu)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(matrix):
    intersection = np.diag(matrix)
    union = matrix.sum(axis=1) + matrix.sum(axis=0) - intersection
    there = union > 0
    return np.mean(intersection[there] / union[there])


assert n10.check_mean_iu.accepts(solution)

# %% [markdown]
# ## 7 · The table of our net
#
# Rows are the truth and add up to 100 %. A row shows how the pixels of a class are predicted. Many are in the left
# column, background, the most likely guess where a net is unsure. Things with the same paints (balls, crates and
# tents) are confused, because the net has not learned shapes yet.

# %% tags=["varies"]
matrix = evaluate(net, val, preprocessing)
print(table(matrix, guesses))
assert matrix.mean_iu() > guesses["pixel position"].mean_iu()
viz.show(viz.confusion_picture(matrix.matrix, CLASSES), dpi=60)

# %% [markdown]
# ## 8 · Not an average over images
#
# The table is summed over all images, and divided once. The mean IU of each image, averaged over images, is another
# number. It weights a class by how many images show it, and an image that shows two classes as much as one that shows
# six. Published numbers have differed for smaller reasons.

# %% tags=["varies"]
per_image, predictions = [], []
for i in range(len(val)):
    x, _ = collate([val[i]], preprocessing)
    predictions.append(predict(net, x)[0])
    one = ConfusionMatrix(len(CLASSES))
    one.update(val[i].label, predictions[-1])
    per_image.append(one)
mean_ius = np.array([one.mean_iu() for one in per_image])
together = sum(per_image[1:], start=per_image[0])
assert np.array_equal(together.matrix, matrix.matrix)  # counts add up, which no metric does
figure = Figure(figsize=(7, 2.4), layout="constrained")
axes = figure.subplots()
axes.hist(mean_ius, bins=np.linspace(0, 1, 26), color="#c9ced6")
axes.axvline(mean_ius.mean(), color="#c2571a", label=f"average of the images {mean_ius.mean():.3f}")
axes.axvline(matrix.mean_iu(), color="#1f5fbf", label=f"of all pixels together {matrix.mean_iu():.3f}")
axes.set_xlabel("mean IU of an image")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
viz.show(figure)

# %% [markdown]
# ## 9 · Look at the worst images first
#
# A number says how good a net is; a picture says what to do next. Sort the validation images by their mean IU, and
# look at the worst.

# %% tags=["varies"]
worst = np.argsort(mean_ius)[:6]
rows = [(val[int(i)].image, val[int(i)].label, predictions[i]) for i in worst]
viz.show(viz.gallery(rows, CLASSES, columns=2, side=128))

# %% [markdown]
# Why are they bad? The table shows for each the largest number of pixels that went from one class to another, and the
# part of all mistakes that lies within three pixels of a border between classes. A picture with a low score need not
# have many wrong pixels: one small thing that is missed, or one wrong name for a large thing, costs a whole class.


# %% tags=["varies"]
def distance_to_border(label, most=12):
    """Of each pixel, in steps to a neighbour, the distance to the nearest pixel of another class; at most `most`."""
    distance = np.full(label.shape, most)
    padded = np.pad(label, most, mode="edge")
    height, width = label.shape
    for reach in range(most - 1, 0, -1):
        for down, right in ((reach, 0), (-reach, 0), (0, reach), (0, -reach)):
            shifted = padded[most + down : most + down + height, most + right : most + right + width]
            distance[shifted != label] = reach
    return distance


for i in worst:
    label, wrong = val[int(i)].label, (predictions[i] != val[int(i)].label) & (val[int(i)].label != VOID)
    streams = per_image[i].matrix * (1 - np.eye(len(CLASSES), dtype=int))
    a, b = np.unravel_index(streams.argmax(), streams.shape)
    near = (wrong & (distance_to_border(label) <= 3)).sum() / max(wrong.sum(), 1)
    stream = f"{CLASSES[a]} called {CLASSES[b]}: {100 * streams[a, b] / max(wrong.sum(), 1):3.0f} % of that"
    print(
        f"{val.ids[i]}: mean IU {mean_ius[i]:.2f}, {100 * wrong.mean():3.0f} % of the pixels wrong; {stream}; ", end=""
    )
    print(f"at borders: {100 * near:3.0f} %")

# %% [markdown]
# ## 10 · Where on the image?
#
# Over all validation images: how often is a pixel right, by its distance to the nearest border? (Void lies on the
# borders themselves.) Far from borders a net is nearly always right; it does not know *where things end*.

# %% tags=["varies"]
found = np.zeros((13, 2))
for i in range(len(val)):
    label = val[i].label
    known = label != VOID
    distance = distance_to_border(label)[known]
    hits = predictions[i][known] == label[known]
    found += np.stack([np.bincount(distance, hits, 13), np.bincount(distance, minlength=13)], axis=1)
there = found[:, 1] > 0
accuracy = found[there, 0] / found[there, 1]
figure = Figure(figsize=(7, 2.4), layout="constrained")
axes = figure.subplots()
axes.plot(np.flatnonzero(there), 100 * accuracy, marker="o", color="#1f5fbf")
axes.set(xlabel="pixels to the nearest border between labels (the last: 12 or more)", ylabel="% right", ylim=(0, 100))
axes.spines[["top", "right"]].set_visible(False)
axes.grid(axis="y", color="#eceef1")
assert accuracy[-1] > accuracy[0]
viz.show(figure)

# %% [markdown]
# ## 11 · The smallest cost of a stride
#
# A net whose finest score stands for 8x8 pixels cannot draw a pole two pixels wide. How much does that cost? Let
# the truth itself be the prediction: take the most frequent label of every block of 8x8 pixels, blow it up again,
# and measure. This is the upper bound of appendix A of the paper, which has these numbers for photographs of
# PASCAL VOC (long side 500):


# %%
def coarse(label, factor, classes):
    """The most frequent class of each block of factor x factor pixels, void not asked, for every pixel of the block."""
    height, width = (side // factor * factor for side in label.shape)
    blocks = label[:height, :width].reshape(height // factor, factor, width // factor, factor)
    counts = np.stack([(blocks == c).sum(axis=(1, 3)) for c in range(classes)])
    enlarged = counts.argmax(axis=0).repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(enlarged, ((0, label.shape[0] - height), (0, label.shape[1] - width)), mode="edge")


bound = {}
for factor in (4, 8, 16, 32):
    matrix_of_truth = ConfusionMatrix(len(CLASSES))
    for i in range(len(val)):
        matrix_of_truth.update(val[i].label, coarse(val[i].label, factor, len(CLASSES)))
    bound[factor] = matrix_of_truth.mean_iu()
paper = {4: 0.985, 8: 0.964, 16: 0.928, 32: 0.861}
figure = Figure(figsize=(7, 2.6), layout="constrained")
axes = figure.subplots()
axes.plot(list(bound), list(bound.values()), marker="o", color="#1f5fbf", label="images of this notebook")
axes.plot(list(paper), list(paper.values()), marker="o", color="#9aa4b2", label="PASCAL VOC, in the paper")
axes.set(xscale="log", xlabel="pixels a side of a block", ylabel="mean IU at best", ylim=(0, 1))
axes.set_xticks(list(bound), [str(factor) for factor in bound])
axes.minorticks_off()
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
print({factor: round(value, 2) for factor, value in bound.items()})
viz.show(figure)

# %%
if WORLD:
    assert [round(bound[factor], 1) for factor in (4, 8)] == [0.9, 0.8] and 0.2 < bound[32] < 0.3

# %% [markdown]
# On the world, whose images are only 64 pixels wide, a net of stride 8 is bounded near 0.8, and one of stride 32 near
# a quarter. On photographs eight times as wide the same strides cost little: the meaning of a metric depends on the
# size of the things.
#
# (A net interpolates between two cells instead of repeating one, so it can be a little better than its blocks.)

# %% [markdown]
# ## 12 · Reading curves
#
# This is the long run on the world: recipe `toy`, 2,000 images, 2,000 steps. The log is `logs/world.jsonl`, with one
# line per measurement; every run of `minifcn train` writes such a log.


# %%
def read_log(name):
    return [json.loads(line) for line in Path("logs", name).read_text().splitlines()]


world = read_log("world.jsonl")
last = world[-1]
print({name: round(last[name], 3) for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")})
viz.show(viz.curves(world))

# %% [markdown]
# ### Exercise 4: four runs
#
# There are four runs with 320 steps each, on the same world and the same net. One is healthy; in one the learning
# rate is too low, in one too high; one has trained on too few images, over and over. Which is which? The grey line is
# $\ln 8$.

# %%
runs = {name: read_log(f"run-{name}.jsonl") for name in "ABCD"}
figure = Figure(figsize=(10, 3.6), layout="constrained")
for column, (name, log) in zip(figure.subplots(2, 4, sharex=True, sharey="row").T, runs.items(), strict=True):
    for axes, kind, key in zip(column, ("train", "val"), ("loss", "mean_iu"), strict=True):
        records = [record for record in log if record["kind"] == kind]
        axes.plot([r["step"] for r in records], [r[key] for r in records], color="#1f5fbf")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 2.4 if kind == "train" else 0.5)
    column[0].axhline(np.log(8), color="#9aa4b2", linewidth=1)
    column[0].set_title(name)
    column[1].set_xlabel("step")
figure.axes[0].set_ylabel("loss per pixel")
figure.axes[4].set_ylabel("mean IU, validation")
viz.show(figure)

# %%
diagnosis = ...  # such as {"A": "healthy", "B": "rate too low", "C": "rate too high", "D": "too few images"}
n10.check_diagnosis(diagnosis)

# %% tags=["solution"] jupyter={"source_hidden": true}
solution = {"A": "rate too high", "B": "healthy", "C": "too few images", "D": "rate too low"}
assert n10.check_diagnosis.accepts(solution)

# %% [markdown]
# The library detects the simplest of these signs and warns during a run. `minifcn/training/advice.py` has its advice
# about a loss that stays at $\ln C$, or a net that predicts one class everywhere.

# %% [markdown]
# ## 13 · What pretraining gains
#
# The paper's nets do not start from random numbers. Their trunk is a classifier trained on a million photographs.
# What is that worth? Take SqueezeNet 1.0 as it was trained on ImageNet, and freeze it. It was never trained on this
# world. Its last map, fire9, has 512 numbers for every sixteenth pixel. Fit a *linear* classifier from these to the
# label of the pixel in the middle of the cell: least squares, in closed form,
#
# $$W = (A^T A + \lambda I)^{-1} A^T Y.$$
#
# Nothing else is learned, so everything that this classifier can do comes from the features. The same is done with a
# SqueezeNet of random weights. (Here always on the world: drawn at 128x128, 64 scenes to learn from.)

# %%
weights, random = imagenet_squeezenet(), rng(SEED, 1)
trunks = {"ImageNet": weights.network().trunk, "random": SqueezeNet(init=random, rng=random)}
grid = Grid.of(trunks["ImageNet"].paths()["fire9"])
scenes = {split: Shapes(split, count=count, size=128, seed=SEED) for split, count in (("train", 64), ("val", 32))}
print(weights)
print(f"cell i of fire9 lies at pixel {grid.stride} * i + {grid.start}, and sees {grid.field} pixels")
assert (grid.stride, grid.field) == (16, 155)


# %%
def cells(trunk, world):
    """The features of every cell of every scene (N, h, w, 512), and the label at the cell's middle (N, h, w)."""
    features, labels = [], []
    for first in range(0, len(world), 8):
        x, label = collate([world[i] for i in range(first, first + 8)], weights.preprocessing)
        with inference(trunk.to(DEVICE)):
            maps = to_host(trunk(to_device(x, DEVICE))["fire9"].data)
        middle = int(grid.start) + int(grid.stride) * np.arange(maps.shape[2])
        features.append(maps.transpose(0, 2, 3, 1))
        labels.append(label[:, middle][:, :, middle])
    return np.concatenate(features), np.concatenate(labels)


known = {name: {split: cells(trunk, scenes[split]) for split in scenes} for name, trunk in trunks.items()}


def probe(train, test, count):
    """Mean IU, over the cells of `test`, of a linear classifier fitted to the first `count` scenes of `train`."""
    a, y = (array[:count].reshape(-1, *array.shape[3:]) for array in train)
    mean, spread = a.mean(axis=0), a.std(axis=0) + 1e-6

    def standard(features):
        return np.pad(np.clip((features - mean) / spread, -5, 5), ((0, 0), (0, 1)), constant_values=1)

    a, y = standard(a[y != VOID]), np.eye(8)[y[y != VOID]]
    w = np.linalg.solve(a.T @ a + 0.01 * len(a) * np.eye(a.shape[1]), a.T @ y)
    table_of_cells = ConfusionMatrix(8)
    table_of_cells.update(test[1].ravel(), (standard(test[0].reshape(-1, a.shape[1] - 1)) @ w).argmax(axis=1))
    return table_of_cells.mean_iu()


# %% tags=["varies"]
counts = (4, 16, 64)
bought = {name: [probe(data["train"], data["val"], count) for count in counts] for name, data in known.items()}
figure = Figure(figsize=(7, 2.6), layout="constrained")
axes = figure.subplots()
for (name, values), colour in zip(bought.items(), ("#1f5fbf", "#c2571a"), strict=True):
    axes.plot(counts, values, marker="o", color=colour, label=f"features: {name}")
axes.set(xscale="log", xlabel="labelled scenes", ylabel="mean IU of the cells", ylim=(0, 0.6))
axes.set_xticks(counts, [str(count) for count in counts])
axes.minorticks_off()
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
assert bought["ImageNet"][1] > bought["random"][2] and bought["ImageNet"][2] > 2 * bought["random"][2]
viz.show(figure)

# %% [markdown]
# Pretraining saves *labels*. With 16 labelled scenes the ImageNet features give a better result than the random ones
# with 64, and with 64 more than twice as good a result, although no ball and no tent of this world was among the
# photographs. A million images already have their labels, one word each; you label a few, pixel by pixel.

# %% [markdown]
# ## 14 · The same on photographs
#
# This is the same question at full length: 560 photographs of animals from PASCAL VOC, labelled pixel by pixel. It
# has two runs of an FCN on SqueezeNet, on the same images for as many steps. One trunk started from random weights
# and learned with all its layers; the other started from those of ImageNet, and its first layers stayed fixed. (The
# rates were chosen for the second: the VGG below, whose recipe was made for random weights, is the fairer
# comparison.) Their logs are in `logs/`.

# %%
figure = Figure(figsize=(9, 2.8), layout="constrained")
left, right = figure.subplots(1, 2)
for start, colour, name in (("ImageNet", "#1f5fbf", "transfer"), ("random", "#c2571a", "transfer-scratch")):
    log = read_log(f"{name}.jsonl")
    for axes, kind, key in ((left, "train", "loss"), (right, "val", "mean_iu")):
        records = [record for record in log if record["kind"] == kind]
        axes.plot([r["step"] for r in records], [r[key] for r in records], color=colour, label=f"start: {start}")
left.axhline(np.log(21), color="#9aa4b2", linewidth=1)
for axes, title in ((left, "loss per pixel"), (right, "mean IU, validation")):
    axes.set(xlabel="step", title=title, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False)
viz.show(figure)

# %% [markdown]
# Here is the end of the long runs on photographs, with the commands that made them: one line each in
# `logs/photographs.jsonl`, as in `docs/results.md`.

# %%
photographs = read_log("photographs.jsonl")
print(f"{'data':<10}{'net':<12}{'start':<10}{'images':>7}  pixel acc.  mean acc.  mean IU  f.w. IU")
for run in photographs:
    four = [run[name] for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")]
    pixel, mean, iu, weighted = four
    print(
        f"{run['data']:<10}{run['net']:<12}{run['start']:<10}{run['images']:>7}{pixel:>12.3f}{mean:>11.3f}{iu:>9.3f}{weighted:>9.3f}"
    )
for run in photographs:
    print(f"{run['data']}, {run['net']}, {run['start']}: {run['command']}")

# %%
animals = [run for run in photographs if run["data"] == "animals"]
names = list(animals[0]["iu"])
figure = Figure(figsize=(8, 2.8), layout="constrained")
axes = figure.subplots()
for place, (run, colour) in enumerate(zip(animals, ("#9aa4b2", "#c2571a", "#1f5fbf"), strict=False)):
    left = np.arange(len(names)) + 0.8 * (place - (len(animals) - 1) / 2) / len(animals)
    values = [run["iu"][name] for name in names]
    axes.bar(left, values, 0.8 / len(animals), color=colour, label=f"{run['net']}, {run['start']}")
axes.set_xticks(range(len(names)), names)
axes.set_ylabel("IU")
axes.set_ylim(0, 1)
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
viz.show(figure)

# %% [markdown]
# And this is what such a net sees. The photographs are free and none was trained on; the net is an FCN on SqueezeNet
# that has learned cats, dogs, horses and persons from 560 photographs. It finds most of the cat and calls parts of it
# dog. It calls half of the astronaut horse, and the saucer dog: it has no class for a cup, so the cup should be
# background. The rocket *is* background to it, and that is right. (`docs/results.md` has the command.)
#
# ![A cat mostly called cat, a cup called dog, an astronaut in part called person](../docs/images/animals-photos.png)

# %% [markdown]
# ## Summary
#
# The first loss of a fresh FCN is ln C. Four metrics come from one table of counts, summed over all images. Two
# curves show whether a rate is too high or too low, and whether there are too few images. Look at the worst images
# first; most errors lie at borders. Features of a net trained on photographs save labels.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. A net with 21 classes begins with a loss of 3.04 per pixel. What does that say?
#    * (a) something is wrong
#    * (b) all classes are equally likely to it, as they should be
#    * (c) it was pretrained
#
# 2. Which metric is best served by predicting background everywhere?
#    * (a) pixel accuracy
#    * (b) mean accuracy
#    * (c) mean IU
#
# 3. The training loss falls, the validation mean IU stops early. What is likely?
#    * (a) the rate is too low
#    * (b) the rate is too high
#    * (c) too few images

# %%
letters = ...
n10.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n10.check_quiz.accepts("bac")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/metrics.py`: the table, the four metrics, and three ways to treat 0/0.
# * `minifcn/training/evaluation.py`: from scores to the table, and the two baselines.
# * `minifcn/training/loop.py`: the loop, with all that a long run needs; `minifcn/training/recipes.py`: every choice
#   of a run.
# * `minifcn/training/transfer.py` and `minifcn/weights/published.py`: how a trunk gets the weights of a classifier.
# * `minifcn/training/advice.py`: advice about the numbers of a run.
# * Your own run: `minifcn train --data FOLDER` on any folder in the layout of PASCAL VOC, and its `report.html`.
# * Next: notebook 11, which makes all this fast.
