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
# # 05 · From a classifier to a fully convolutional network
#
# A classifier says **what** is on an image of one size. This notebook makes it say **where**, on an image of any
# size, without any further training. Afterwards you will be able to
#
# * say why a fully connected layer is a convolution, and turn one into the other with a reshape;
# * let a net that was trained on single digits read a whole sheet of them;
# * draw the heat map of a class over a photograph, with a classifier that was never trained to say where anything is;
# * work out what this saves, by counting and with a clock;
# * derive the gradient of batch normalisation, and fold it into a convolution.
#
# *The paper: section 3.1, figure 2, and the timings at the end of that section.*
#
# **Before you begin.** You need notebook 02 (a convolution), and of notebook 04 what a cell sees. Reading takes about
# forty minutes, reading and all exercises together 60 minutes.

# %% tags=["varies"]
import copy
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
from exercises import n05

from minifcn import nn, ops, surgery, viz
from minifcn.backend import to_host, xp_on
from minifcn.cli.amortize import main as amortize
from minifcn.data.digits import load_digits
from minifcn.data.files import read_image
from minifcn.errors import GradientError, ShapeError
from minifcn.experiments import classify, digits
from minifcn.geometry import Grid, out_size
from minifcn.gradcheck import gradcheck
from minifcn.introspect.describe import describe
from minifcn.kernels.threads import cores, threads
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.models.lenet import LeNet
from minifcn.nn import evaluating
from minifcn.optim import SGD
from minifcn.tensor import op
from minifcn.training.environment import environment
from minifcn.weights.published import imagenet_squeezenet

SEED = 0
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy
print(f"device {DEVICE}, {threads()} threads")

# %% [markdown]
# ## 1 · A classifier of digits
#
# scikit-learn includes 1,797 handwritten digits. LeNet takes 28x28 pixels, so they are enlarged to that size. A
# quarter is held out; the picture shows the first held-out digit of each kind.

# %%
images, labels = load_digits(LeNet.size)
rng = np.random.default_rng(SEED)
order = rng.permutation(len(images))
held_out, known = order[: digits.HELD_OUT], order[digits.HELD_OUT :]
assert (len(images), round(len(images) / len(held_out)), images.shape[1:]) == (1797, 4, (1, 28, 28))

first = [held_out[labels[held_out] == digit][0] for digit in range(10)]
pictures.panels({str(labels[i]): images[i, 0] for i in first}, size=(8, 1.1), cmap="gray_r")

# %% [markdown]
# LeNet is two convolutions, two pools, and two fully connected layers. It learns the other three quarters in seconds.
# The scores `(N, 10)` of a classifier are the scores of a map of one pixel, so the loss is the same that is later
# used for pixels.

# %%
net = classifier(LeNet, classes=10, width=4, seed=SEED)
net.to(DEVICE)
kinds = [type(module) for module in net.modules()]
assert [kinds.count(kind) for kind in (nn.Conv2d, nn.MaxPool2d, nn.Linear)] == [2, 2, 2]
sgd = SGD(net, lr=0.02, weight_decay=0.0005)


def answers(net, x):
    """Return the scores of the images x, in main memory, from a net in evaluation mode."""
    with evaluating(net):
        return to_host(net(xp.asarray(x)).data)


for epoch in range(1, 6):
    net.train()
    for batch in np.split(rng.permutation(known), range(32, len(known), 32)):
        scores = net(xp.asarray(images[batch]))
        loss = ops.softmax_cross_entropy(scores.reshape(-1, 10, 1, 1), xp.asarray(labels[batch, None, None]))
        loss.backward()
        sgd.step()
    accuracy = (answers(net, images[held_out]).argmax(axis=1) == labels[held_out]).mean()
    print(f"epoch {epoch}: {100 * accuracy:.0f} % of the held-out digits right")
assert accuracy > 0.95

# %% [markdown]
# ## 2 · It takes one size and no other
#
# Here is a strip with four digits. A person can read it without further training. LeNet raises an error.

# %%
year = [2, 0, 1, 5]
corners = [8, 56, 100, 148]
strip = np.zeros((1, 1, 28, 188), np.float32)
for digit, left in zip(year, corners, strict=True):
    strip[0, :, :, left : left + 28] = images[first[digit]]

try:
    answers(net, strip)
except ShapeError as error:
    print(error)
    refused = True
assert refused
pictures.panels({"a year": strip[0, 0]}, size=(7, 1.1), cmap="gray_r")

# %% [markdown]
# Which layer raises it? Not the convolutions and not the pools: they slide over an image of any size. It is the first
# fully connected layer, `ip1`. It takes maps of 4x4 cells, flattened to a row of numbers, and nothing else.

# %%
maps = to_host(net.trunk.until("pool2")(xp.asarray(images[held_out[:1]]))["pool2"].data)
ip1 = net.trunk.head.ip1
w, b = to_host(ip1.w.data), to_host(ip1.b.data)
print("pool2 of one digit:", maps.shape, "  ip1.w:", w.shape, "  ip1.b:", b.shape)
assert w.shape[1] == maps[0].size == 20 * 4 * 4
viz.show(viz.feature_maps(maps[0], columns=10, title="what ip1 is given: 20 maps of 4x4 cells"))

# %% [markdown]
# ## 3 · A fully connected layer is a convolution
#
# One output of `ip1` multiplies every number of the maps with its own weight, and adds up:
#
# $$y_o = b_o + \sum_{c,i,j} w_{o,\,(c,i,j)}\; x_{c,i,j}$$
#
# One output of a convolution with a kernel of 4x4 does the same with the window under it. Maps of 4x4 cells contain
# only one window. So the two compute the same sum; the weights only have to be written as a kernel. The picture shows
# that: the first rows of `ip1.w`, each as a row of 4x4 kernels.

# %%
kernels = w.reshape(-1, 20, 4, 4)
connected = maps.reshape(1, -1) @ w.T + b
convolved = ops.conv2d(maps, kernels, b).data
print("fully connected:", connected.shape, "  as a convolution:", convolved.shape)
assert convolved.shape == (1, 200, 1, 1)  # one window
assert np.allclose(connected, convolved[:, :, 0, 0], atol=1e-5)
viz.show(viz.kernels(kernels[:4], inputs=20, title="four outputs of ip1, each as kernels over the 20 maps"))

# %% [markdown]
# The library does exactly that. The surgery is only `w.reshape`.

# %%
print(inspect.getsource(surgery.as_convolution))

# %% [markdown]
# `convolutionalize` does this for every fully connected layer of a net. The twin has the same weights, and no others.

# %%
twin = surgery.convolutionalize(net)
print("before:", type(net.trunk.head.ip1).__name__, net.trunk.head.ip1.w.shape)
print("after: ", type(twin.trunk.head.ip1).__name__, twin.trunk.head.ip1.w.shape)
assert sum(p.size for p in net.parameters()) == sum(p.size for p in twin.parameters())

one = images[held_out[:1]]
print("the classifier on a digit:", answers(net, one).shape, "  the twin:", answers(twin, one).shape)
assert np.allclose(answers(net, one), answers(twin, one)[:, :, 0, 0], atol=1e-4)

# %% [markdown]
# ### Exercise 1: another order
#
# Here the maps are flattened in the order channel, row, column. Some other libraries flatten them in the order row,
# column, channel. Take the weights `w` (O, I) of a fully connected layer from such a library, and return those of the
# convolution, (O, channels, kernel, kernel).

# %%
to_conv = ...  # instead of this line: def to_conv(w, channels, kernel): ...
n05.check_fc_to_conv(to_conv)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(w: np.ndarray, channels: int, kernel: int) -> np.ndarray:
    return w.reshape(len(w), kernel, kernel, channels).transpose(0, 3, 1, 2)


assert n05.check_fc_to_conv.accepts(solution)

# %% [markdown]
# ## 4 · The whole strip at once
#
# Now take the strip. The classifier raised an error; the twin returns a row of answers: ten scores at 41 places.

# %%
row = answers(twin, strip)[0, :, 0]
grid = Grid.of(twin.layers())
print("answers:", row.shape, "  one every", grid.stride, "pixels, the first around pixel", grid.start)
assert row.shape == (10, 41) and (grid.stride, grid.field) == (4, 28)

share = classify.softmax(row[None])[0]
at = [left // 4 for left in corners]  # the cells whose window lies on a digit
pictures.reading(strip[0, 0], share, grid, at, year)

# %% [markdown]
# Where a window lies on a digit (circles), that digit's row is the brightest.

# %%
read = row[:, at].argmax(axis=0)
print("written:", *year)
print("read:   ", *read)
assert list(read) == year

# %% [markdown]
# Is this the classifier's answer, or only something like it? Cut every window out of the strip, give each to the
# classifier, and compare all 410 numbers. LeNet has no padding, so every answer equals the classifier's, up to
# rounding.

# %%
windows = np.stack([strip[0, :, :, left : left + 28] for left in range(0, 188 - 27, 4)])
alone = answers(net, windows).T
print(f"{alone.size} numbers; equal to 4 decimals: {np.allclose(alone, row, atol=1e-4)}")
assert alone.shape == row.shape and alone.size == 410 and np.allclose(alone, row, atol=1e-4)

# %% [markdown]
# ### Exercise 2: the window of a cell
#
# Which pixels does cell $(i, j)$ of the map depend on? Write `window(i, j)`, which returns `(top, left, bottom,
# right)`, so that `x[top:bottom, left:right]` is the window.

# %%
window = ...  # instead of this line: def window(i, j): return top, left, bottom, right
n05.check_window(window)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n05.check_window.accepts(lambda i, j: (4 * i, 4 * j, 4 * i + 28, 4 * j + 28))

# %% [markdown]
# ### Exercise 3: how many answers?
#
# How many answers per side does the twin give for a square image of `size` pixels? Write `count(size)`. Try 28, 32
# and then 29: the pools count a last window that extends past the edge, as Caffe's do.

# %%
count = ...  # instead of this line: def count(size): ...
n05.check_cells(count)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n05.check_cells.accepts(lambda size: -(-(size - 28) // 4) + 1)

# %% [markdown]
# ## 5 · A sheet: one map per digit
#
# Nothing changes in two dimensions. `minifcn.experiments.digits.sheet` scatters the ten digits over a sheet, and the
# twin answers at every fourth pixel of every fourth row. The picture shows the sheet above, and below it the best
# class of each window at the window's centre. Circles mark the centres of the windows that lie on a digit.

# %%
paper, places = digits.sheet(images[first], 5, np.random.default_rng(SEED))
sheet_maps = answers(twin, paper)[0]
found = sheet_maps[:, places[:, 0] // 4, places[:, 1] // 4].argmax(axis=0)
print(f"a sheet of {paper.shape[2]}x{paper.shape[3]} pixels, {sheet_maps.shape[1]}x{sheet_maps.shape[2]} answers")
print("at the places of 0 to 9 it reads", *found)
assert (found == np.arange(10)).all()
winners = sheet_maps.argmax(axis=0)
pictures.sheet(paper[0, 0], winners, grid, places)

# %% [markdown]
# Look outside the circles, too. The net gives answers there, but they mean nothing: it was trained on digits alone
# and has no class for "none". An FCN for segmentation is *trained* on whole images, with a class for background. The
# surgery gives it its structure and its first weights.

# %% [markdown]
# ## 6 · A photograph
#
# SqueezeNet 1.0 was trained on ImageNet's 1000 classes, on images of 227x227 pixels. Its weights are included in the
# library. Two photographs side by side make one large image.

# %%
weights = imagenet_squeezenet()
squeezenet, preprocessing = classify.classifier_of(weights)
squeezenet.to(DEVICE)
cat, coffee = (read_image(Path("photos") / f"{name}.jpg") for name in ("chelsea", "coffee"))
cat = cat[:, :450]  # 2 by 3, as the other
cat = np.rint(ops.bilinear_resize(cat.transpose(2, 0, 1)[None] / 1.0, size=(400, 600)).data[0]).astype(np.uint8)
photo = np.concatenate([cat.transpose(1, 2, 0), coffee], axis=1)
print(weights)
assert len(weights.classes) == 1000 and squeezenet.trunk.size == 227
pictures.panels({f"{photo.shape[0]} x {photo.shape[1]} pixels": photo}, size=(6.6, 2.5))

# %% [markdown]
# What is on it? The classifier takes the middle square of an image, scaled to its own size, and gives one answer. Ask
# it about the left half, the right half, and all of it.


# %%
def most_probable(image, count=3):
    """Return the most probable classes of the middle square of an image, each with its probability."""
    x = preprocessing(classify.middle(image, squeezenet.trunk.size))[None]
    probability = classify.softmax(answers(squeezenet, x))[0]
    return [(probability[i], weights.classes[i].split(",")[0]) for i in np.argsort(-probability)[:count]]


parts = {"left half": photo[:, :600], "right half": photo[:, 600:], "all of it": photo}
said = {name: most_probable(image) for name, image in parts.items()}
assert said["left half"][0][1] == "Egyptian cat" and said["right half"][0][1] == "espresso"
assert said["all of it"][0][0] < 0.2 < min(said["left half"][0][0], said["right half"][0][0])
pictures.said({name: (classify.middle(image, 227), said[name]) for name, image in parts.items()})

# %% [markdown]
# For either half, the classifier is right. For the whole image, it gets the middle square, half a cat and half a cup,
# and is unsure. One answer is not enough for this photograph.

# %% [markdown]
# ## 7 · A classifier without fully connected layers
#
# SqueezeNet has none. Its last layer is an **average**: each class has a map of scores, and its score is the mean of
# that map. It accepts larger images, and averages over all of them. To get one answer per window, replace the average
# by one over as many cells as the classifier sees at its own size:

# %%
print(inspect.getsource(classify.dense))

# %%
windows_net = classify.dense(squeezenet)
assert not any(isinstance(module, nn.Linear) for module in squeezenet.modules())
print("at the end of the classifier:", type(squeezenet.top.pool10).__name__)
print("at the end of the dense net: ", type(windows_net.top.pool10).__name__)
x = preprocessing(classify.middle(photo[:, :600], 227))[None]
same = np.allclose(answers(squeezenet, x), answers(windows_net, x)[:, :, 0, 0], atol=1e-4)
print("on one window both say the same, to 4 decimals:", same)
assert same

# %% [markdown]
# ### Exercise 4: the side of the average
#
# Work out the side of that window from the layers: a 7x7 convolution of stride 2, three 3x3 pools of stride 2 in ceil
# mode, and at the end a 1x1 convolution with padding 1.

# %%
side = ...
n05.check_average(side)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n05.check_average.accepts(15)

# %% [markdown]
# ## 8 · Figure 2 of the paper
#
# The photograph goes through the dense net once. Take the five domestic cats of ImageNet out of its 1000 maps, and
# add up their probabilities.

# %%
scores = answers(windows_net, preprocessing(photo)[None])
shares = classify.softmax(scores)[0]
where = Grid.of(windows_net.layers())
place = {"start": float(where.start), "stride": float(where.stride)}
print("windows:", shares.shape[1:], "  one every", where.stride, "pixels")
assert shares.shape == (1000, 12, 62)
cats = slice(281, 286)
print("the cats:", "; ".join(name.split(",")[0] for name in weights.classes[cats]))
assert cats.stop - cats.start == 5 and weights.classes[285].startswith("Egyptian cat")
viz.show(viz.heat_map(photo, shares[cats].sum(axis=0), "a cat?", **place), dpi=70)

# %% [markdown]
# These are the same answers for another class. This net was never trained to say where anything is.

# %%
espresso = classify.class_number("espresso", weights.classes)
assert shares[cats].sum(axis=0)[:, :20].max() > 0.95 and shares[cats].sum(axis=0)[:, 35:].max() < 0.05
assert shares[espresso][:, :20].max() < 0.05 and shares[espresso][:, 45:55].max() > 0.9
viz.show(viz.heat_map(photo, shares[espresso], "espresso?", **place), dpi=70)

# %% [markdown]
# The maps end where the last window does: a cell describes a window *around* it. This is also why the maps are so
# smooth and so coarse, and why they do not follow outlines.
#
# ## 9 · Is it the classifier's answer?
#
# For LeNet a cell was, up to rounding, the classifier's answer for the window. Check it again: cut some windows of
# 227 pixels out of the photograph, give them to the classifier, and compare.

# %%
cells = [(i, j) for i in (1, 6, 10) for j in (4, 18, 34, 48, 58)]
prepared = preprocessing(photo)
cut = np.stack([prepared[:, 16 * i : 16 * i + 227, 16 * j : 16 * j + 227] for i, j in cells])
alone = classify.softmax(answers(squeezenet, cut))
dense = np.stack([shares[:, i, j] for i, j in cells])
kinds = {"a cat": cats, "espresso": slice(espresso, espresso + 1)}
pairs = {name: (alone[:, part].sum(axis=1), dense[:, part].sum(axis=1)) for name, part in kinds.items()}
assert all(abs(one - cell).max() > 0.2 for one, cell in pairs.values())  # not equal, by far
assert dense.max(axis=1).mean() > alone.max(axis=1).mean() + 0.05  # and more certain
pictures.against(
    pairs, size=(4.2, 3.2), xlabel="probability, the window cut out", ylabel="probability, the cell of the map"
)

# %% [markdown]
# It is not, by far. The reason is padding. Each of SqueezeNet's eight fire modules puts a ring of zeros around its
# maps, to keep their size. The grid says how far a cell sees:

# %%
print("a cell of SqueezeNet sees", where.field, "pixels; the classifier is given", squeezenet.trunk.size)
print("a cell of LeNet sees", grid.field, "pixels; the classifier is given", net.trunk.size)
assert (where.field, grid.field) == (379, 28)
assert sum(name.split(".")[-1].startswith("fire") for name, _ in squeezenet.named_modules()) == 8

# %% [markdown]
# A cell sees 379 pixels. Around a window that is cut out there is nothing, and the classifier sees zeros; in the
# photograph there is the rest of the cat. The dense net has more information, and is more certain. So the theorem has
# a condition: **a cell of the twin equals the classifier on its window where padding does not reach**. LeNet has no
# padding, so it holds everywhere. SqueezeNet and VGG have a lot; their maps come from the same weights, but the
# numbers differ.
#
# ## 10 · A first, blurred segmentation
#
# Which class has the highest score in each window? This is already a segmentation, from a net that was trained to
# classify. The cat (orange) and the cup (blue) are in the right places. Between them it names other classes, which mean
# nothing, for the same reason as between the digits. The border is faded, because no window has its centre there.

# %%
winner = shares.argmax(axis=0)
cups = [classify.class_number(word, weights.classes) for word in ("espresso", "cup", "soup bowl", "consomme")]
groups = np.where(np.isin(winner, np.arange(1000)[cats]), 1, np.where(np.isin(winner, cups), 2, 0))
label = np.full(photo.shape[:2], viz.VOID)
label[105 : 105 + 16 * 12, 105 : 105 + 16 * 62] = groups.repeat(16, axis=0).repeat(16, axis=1)
names = ("another class", "a cat", "a cup")
print(", ".join(f"{name}: {100 * (groups == k).mean():.0f} %" for k, name in enumerate(names)), "of the windows")
left, between, right = groups[:, :25], groups[:, 28:36], groups[:, 37:]
assert (between == 0).mean() > 0.8
assert (left == 1).mean() > 0.8 and (right == 2).mean() > 0.5  # the cat is left, the cup right
assert (left == 2).mean() < 0.01 > (right == 1).mean()
pictures.classes(photo, label)

# %% [markdown]
# ## 11 · What it saves
#
# Windows overlap. Patch by patch, a classifier computes the overlaps again for each window; the twin computes
# everything once. Here are the multiply-adds, counted before anything runs, for LeNet on 100x100 pixels and for the
# paper's example, CaffeNet on 500x500:

# %%
counted = {}
for trunk, size in ((LeNet, 100), (AlexNet, 500)):
    one_by_one = classifier(trunk, init="zero")
    chain = one_by_one.layers()
    count = out_size(chain, size) ** 2
    patch = describe(one_by_one, trunk.size).multiply_adds
    whole = describe(surgery.convolutionalize(one_by_one), size).multiply_adds
    counted[trunk.__name__] = (count, count * patch / whole)
    print(
        f"{trunk.__name__:<8} {count:>4} windows: {count * patch / 1e9:6.2f} G patch by patch,"
        f" {whole / 1e9:5.2f} G at once, {count * patch / whole:4.1f} times less"
    )
del one_by_one
assert counted["AlexNet"][0] == 10 * 10 and counted["LeNet"][0] == 361 and round(counted["LeNet"][1], 1) == 2.7

# %% [markdown]
# The paper measured it on a GPU: 1.2 ms for one patch of 227 pixels in a batch, 5.4 ms alone, and 22 ms for the 10x10
# answers of an image of 500 pixels. (10x10 is ceil mode at work: with floor it would be 9x9.)

# %%
floor = [replace(layer, ceil=False) for layer in chain]
assert out_size(floor, size) == 9 and size == 500
paper_batched, paper_alone = 100 * 1.2 / 22, 100 * 5.4 / 22
print(f"the paper: {paper_batched:.1f} times faster than batches of patches, {paper_alone:.1f} than one by one")
assert (round(paper_batched, 1), round(paper_alone, 1)) == (5.5, 24.5)

# %% [markdown]
# Now the time: LeNet on 100x100 pixels, on the machine on which this page was made. `minifcn amortize` times any of
# the classifiers; without options it runs the paper's experiment. The ratio counted above is 2.7. The measured ratio
# is larger, also for 25 patches at a time: each of the 361 patches brings its own small matrix products, and a
# processor does more multiply-adds a second in one large product than in many small ones.

# %% tags=["varies"]
machine = environment(DEVICE)
print(f"{machine['machine']}, {cores()} cores, Python {machine['python']}, NumPy {machine['numpy']}")
done = amortize(["--net", "lenet", "--size", "100", "--threads", "1"])

# %% [markdown]
# ## 12 · Batch normalisation
#
# Classifiers that came after the paper's, ResNet and EfficientNet for instance, have one more kind of layer, between a
# convolution and its ReLU. It subtracts from each channel its mean $m$ and divides by the root of its variance $v$;
# then the channel gets a scale $w$ and a shift $b$, which are learned:
#
# $$z = \frac{x - m}{\sqrt{v + \varepsilon}} \qquad y = w z + b$$
#
# In **training**, $m$ and $v$ are those of the channel in this batch, over all images, rows and columns. Here are
# eight channels of a convolution before and after, each as a line from its 5th to its 95th percentile, with a dot at
# its mean. Afterwards all have mean 0 and variance 1.

# %%
conv = nn.Conv2d(1, 8, 5, init=np.random.default_rng(SEED)).to(DEVICE)
x = conv(xp.asarray(images[known[:32]])).data
one, zero = xp.ones(8, "float32"), xp.zeros(8, "float32")
y = ops.batch_norm(x, one, zero).data
assert np.allclose(to_host(y).mean(axis=(0, 2, 3)), 0, atol=1e-4)
assert np.allclose(to_host(y).var(axis=(0, 2, 3)), 1, atol=1e-2)
pictures.spreads({"before": x, "after": y}, size=(8, 2.6))

# %% [markdown]
# So it does not matter how large the numbers of a channel were. Ten times as large and moved by 3, they give the same.
# A convolution in front of it needs no bias, and the size of its first weights does not change what comes out.

# %%
moved = ops.batch_norm(10 * x + 3, one, zero).data
apart = [float(abs(b - a).max()) for a, b in ((x, 10 * x + 3), (y, moved))]
print(f"the inputs differ by {apart[0]:.0f}, the outputs by less than 0.01")
assert apart[0] > 10 and apart[1] < 0.01

# %% [markdown]
# Does it help? Here is a small net with and without it, with the same first weights and the same batches. The one with
# it learns faster.


# %%
def small(normalised):
    """Two convolutions and two pools, then a convolution of 4x4 for the scores: convolutional from the beginning."""
    init, layers, inputs = np.random.default_rng(SEED), {}, 1
    for k, outputs in (1, 8), (2, 16):
        layers[f"conv{k}"] = nn.Conv2d(inputs, outputs, 5, bias=not normalised, init=init)
        if normalised:
            layers[f"bn{k}"] = nn.BatchNorm2d(outputs)
        layers |= {f"relu{k}": nn.ReLU(), f"pool{k}": nn.MaxPool2d(2)}
        inputs = outputs
    return nn.Sequential(**layers, score=nn.Conv2d(16, 10, 4, init=init)).to(DEVICE)


def learn(net, epochs=2):
    """Train on the known digits, and return the losses."""
    sgd, shuffled, losses = SGD(net, lr=0.02, weight_decay=0.0005), np.random.default_rng(SEED), []
    for _ in range(epochs):
        for batch in np.split(shuffled.permutation(known), range(32, len(known), 32)):
            loss = ops.softmax_cross_entropy(net(xp.asarray(images[batch])), xp.asarray(labels[batch, None, None]))
            loss.backward()
            sgd.step()
            losses.append(loss.item())
    return losses


# %% tags=["varies"]
plain, normed = small(normalised=False), small(normalised=True)
losses = {"without": learn(plain), "with batch normalisation": learn(normed)}
assert np.mean(losses["with batch normalisation"][:30]) < 0.7 * np.mean(losses["without"][:30])
pictures.lines({name: (range(len(each)), each) for name, each in losses.items()}, xlabel="step", ylabel="loss")

# %% [markdown]
# In training a digit's scores depend on the other digits of its batch, because they share $m$ and $v$. An answer
# should not. So each layer keeps *running* averages of $m$ and $v$, and after training it is **frozen**: these
# averages are constants, and an image gets the same scores in any company.

# %%
digit = images[held_out[:1]]
companies = [np.concatenate([digit, others]) for others in (images[held_out[1:8]], 0 * images[held_out[1:8]])]
learning = copy.deepcopy(normed)  # a copy, because in training each batch moves the averages
learning.train()
in_training = [to_host(learning(xp.asarray(batch)).data[0]) for batch in companies]
frozen = [answers(normed, batch)[0] for batch in companies]
print("the scores of a digit, with seven other digits and with seven white images: in training they differ, frozen not")
assert abs(in_training[0] - in_training[1]).max() > 1 and abs(frozen[0] - frozen[1]).max() < 1e-3

# %% [markdown]
# ## 13 · Its gradient, by hand
#
# Take one channel with $n$ numbers. Let $g_i$ be the gradient at $z_i$, and $s = \sqrt{v + \varepsilon}$. In training
# a number $x_i$ acts on the loss in three ways, so its gradient has three terms:
#
# 1. **Directly.** Move $x_i$ by 1, and $z_i$ moves by $1/s$. This gives $g_i / s$.
# 2. **Through the mean.** $m$ moves by $1/n$, so *every* $z_j$ of the channel moves by $-1/(n s)$. Added up over
#    $j$, this gives $-\bar g / s$, where $\bar g$ is the mean of all $g_j$.
# 3. **Through the variance.** $v$ moves by $2 (x_i - m) / n = 2 s z_i / n$. (That $m$ moves, too, does not change $v$:
#    the distances $x_j - m$ add up to zero.) Where $v$ grows by 1, every $z_j$ changes by $-z_j / (2 s^2)$. Added
#    up, this gives $-z_i\, \overline{g z} / s$, where $\overline{g z}$ is the mean of all $g_j z_j$.
#
# $$\frac{\partial L}{\partial x_i} = \frac{1}{s} \left( g_i - \bar g - z_i\, \overline{g z} \right)$$
#
# Frozen, $m$ and $v$ are constants, and only the first term is left. Here it is as an op; `terms` says which terms to
# take, and $w = 1$, $b = 0$.


# %%
@op
def normalise(x, *, terms=("directly", "mean", "variance")):
    """z of one image: each channel less its mean, over the root of its variance."""
    every = {"axis": (0, 2, 3), "keepdims": True}
    s = np.sqrt(x.var(**every) + 1e-5)
    z = (x - x.mean(**every)) / s

    def grad_x(g):
        parts = {"directly": g, "mean": -g.mean(**every), "variance": -z * (g * z).mean(**every)}
        return sum(parts[term] for term in terms) / s

    return z, (grad_x,)


x = np.random.default_rng(SEED).standard_normal((2, 3, 3, 4))
w, b, mean, var = np.array([[1.0, 2.0, -0.5], [0.0, 1.0, 3.0], [0.1, 0.0, -0.2], [1.0, 0.5, 2.0]])
print(f"by hand:  {gradcheck(normalise, x):.0e}")
print(f"training: {gradcheck(ops.batch_norm, x, w, b):.0e}")
print(f"frozen:   {gradcheck(ops.batch_norm, x, w, b, mean=mean, var=var):.0e}")
# `__wrapped__` is the function below `@op`: arrays in, the value and the gradients out (notebook 03).
ours, hand = ops.batch_norm.__wrapped__(x, np.ones(3), np.zeros(3)), normalise.__wrapped__(x)
g = np.random.default_rng(1).standard_normal(x.shape)
assert np.allclose(ours[0], hand[0]) and np.allclose(ours[1][0](g), hand[1][0](g))

# %% [markdown]
# `gradcheck` accepts all three, and minifcn's op (`minifcn/ops/norm.py`) gives the same numbers as ours. If a term is
# forgotten, it raises an error:

# %%
noticed = []
for left_out in (("mean",), ("variance",), ("mean", "variance")):
    terms = [term for term in ("directly", "mean", "variance") if term not in left_out]
    try:
        gradcheck(normalise, x, terms=terms)
    except GradientError:
        noticed.append(left_out)
print("noticed without", *(" and ".join(left_out) for left_out in noticed), sep="\n  ")
assert len(noticed) == 3

# %% [markdown]
# What do the two other terms do? The picture has the three of one channel, for the gradient of a single output, and
# their sum. The output moves up with its own input, and down with all others, most with the largest on its side
# of the mean.
#
# The sum is zero over the channel, because adding a constant to all inputs changes nothing. It is also at a right
# angle to $z$ (up to $\varepsilon$), because making all inputs larger changes nothing either. These are the two facts
# of section 12 again, now in the gradient.

# %%
channel, one_output = x[:1, :1], np.zeros((1, 1, 3, 4))
one_output[0, 0, 1, 1] = 1
terms = "directly", "mean", "variance"
parts = {
    term: np.zeros((3, 4)) + normalise.__wrapped__(channel, terms=[term])[1][0](one_output)[0, 0] for term in terms
}
z, (grad_x,) = normalise.__wrapped__(channel)
total = grad_x(one_output)
assert np.allclose(sum(parts.values()), total[0, 0])
assert total.argmax() == one_output.argmax() and (total < 0).sum() == 11 and total.argmin() == z.argmax()
assert abs(total.sum()) < 1e-9 and abs((total * z).sum()) < 1e-4
shown = {"z": z[0, 0], **parts, "their sum": total[0, 0]}
pictures.panels(shown, size=(10, 2), cmap="RdBu", limits="signed", numbers="{:.2f}")

# %% [markdown]
# ## 14 · Folded into the convolution
#
# Frozen, the layer only multiplies each channel by a constant and adds another:
#
# $$y = \frac{w}{s}\, x + \left( b - \frac{w}{s}\, m \right)$$
#
# The convolution in front of it computes sums of products, so the factor can go into its weights, and the rest is
# its bias. This is surgery once more: two layers become one that gives the same numbers, in one pass less.

# %%
bn1, conv1 = normed.bn1, normed.conv1
gain = bn1.w.data / xp.sqrt(bn1.var.data + bn1.eps)
x = xp.asarray(images[held_out])
two_layers = ops.batch_norm(conv1(x), bn1.w, bn1.b, mean=bn1.mean.data, var=bn1.var.data).data
one_layer = ops.conv2d(x, conv1.w.data * gain[:, None, None, None], bn1.b.data - bn1.mean.data * gain).data
assert two_layers.shape == one_layer.shape and np.allclose(to_host(two_layers), to_host(one_layer), atol=1e-4)

folded = surgery.fold_batch_norm(normed)
print("before:", *normed.sequence())
print("after: ", *folded.sequence())
assert [name for name in normed.sequence() if name not in folded.sequence()] == ["bn1", "bn2"]
assert np.allclose(answers(normed, images[held_out]), answers(folded, images[held_out]), atol=1e-3)

# %% [markdown]
# The running averages belong to the weights, although no gradient changes them. If you copy only what is learned,
# the new net keeps $m = 0$ and $v = 1$. It raises no error, but it misreads more than a quarter of the digits.

# %% tags=["varies"]
forgetful = small(normalised=True)
for (name, new), (_, old) in zip(forgetful.named_parameters(), normed.named_parameters(), strict=True):
    if not name.endswith(("mean", "var")):
        new.data = old.data
nets = {"frozen": normed, "folded": folded, "averages forgotten": forgetful}
correct = {}
for name, each in nets.items():
    read = answers(each, images[held_out])[:, :, 0, 0].argmax(axis=1)
    correct[name] = (read == labels[held_out]).mean()
assert correct["frozen"] > 0.9 and correct["averages forgotten"] < 0.75
assert correct["frozen"] == correct["folded"]
pictures.bars({"": list(correct.values())}, list(correct), size=(6, 2.4), ylim=(0, 1), ylabel="digits read correctly")

# %% [markdown]
# An FCN is trained on few large images at a time, in the paper on one. So a trunk with batch normalisation usually
# stays frozen when it becomes an FCN, or is folded at once, as minifcn does with EfficientNet-Lite0.

# %% [markdown]
# ## Summary
#
# A fully connected layer on maps of 4x4 cells is a convolution with a kernel of 4x4, and its weights are only
# reshaped. The net that results takes images of any size and gives one answer for each window, at a fraction of the
# cost of separate windows. Where padding does not reach, each answer equals the classifier's. Batch normalisation
# makes the size of a channel not matter, so its gradient has a term for the mean and one for the variance; frozen, it
# becomes a part of the convolution in front of it.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. What changes in a classifier when it becomes fully convolutional?
#    * (a) the values of its weights
#    * (b) the shapes of some weights
#    * (c) the number of its weights
#
# 2. LeNet has windows of 28 pixels with stride 4. How many answers a side has an image of 60 pixels?
#    * (a) 8
#    * (b) 9
#    * (c) 15
#
# 3. Why do the dense SqueezeNet's answers differ from the classifier's on windows that are cut out?
#    * (a) rounding
#    * (b) another stride
#    * (c) padding

# %%
letters = ...
n05.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n05.check_quiz.accepts("bbc")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/surgery.py`: `convolutionalize` and `fold_batch_norm`; `minifcn/ops/norm.py`: batch normalisation.
# * `minifcn/experiments/digits.py`, `classify.py` (the dense net) and `amortize.py`: the experiments.
# * `minifcn/models/lenet.py` and `minifcn/models/squeezenet.py`: the nets.
# * The same from a terminal: `minifcn digits`, `minifcn classify photos/chelsea.jpg --heatmap tabby heat.png`,
#   `minifcn amortize`.
# * Next: [06 Shift-and-stitch is filter rarefaction](06_shift_and_stitch.ipynb). One answer every 16 pixels is coarse.
#   Can the same net give one for every pixel?
