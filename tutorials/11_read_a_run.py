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
# # 11 · Read a run
#
# After this notebook you can
#
# * say what each file in the folder of a run is for, and show that a run which was stopped goes on as if nothing had
#   happened;
# * see from two curves what is wrong with a run, and know the warnings that a run prints by itself;
# * compute the paper's four metrics from one confusion matrix, and say why an average over images is another number;
# * look at the worst pictures first, and sort the mistakes by their cause;
# * say how good a net of a given stride can be at best.
#
# The paper: section 5 (the metrics), and appendix A of the journal version (the upper bound).
#
# This notebook makes a run as you would from a terminal, with `minifcn train`, on the world that minifcn draws itself.
# It takes some seconds. A net that learned for so short a time makes all kinds of mistakes, which is what we need here.
# If you have a data set in the layout of PASCAL VOC, you can set one variable, and the run is on that.
#
# **Before you begin.** You need notebook 10 (how a net is trained). A GPU is not needed. Reading takes about half an
# hour, all exercises together 75 minutes.

# %% tags=["varies"]
import contextlib
import io
import json
import os
import re
import shlex
import tempfile
from pathlib import Path

import numpy as np
import pictures
from exercises import n11

from minifcn import viz
from minifcn.cli.verbs import main
from minifcn.data import VOID, collate
from minifcn.data.dataset import Cached
from minifcn.data.files import read_image
from minifcn.kernels.threads import threads
from minifcn.metrics import ConfusionMatrix
from minifcn.training import setup
from minifcn.training.evaluation import baselines, evaluate, predict, table
from minifcn.training.recipes import preset
from minifcn.training.run_folder import load_latest
from minifcn.training.trained import open_trained

SEED = 0
DEVICE = "cpu"  # or "gpu"
PHOTOS = ""  # a folder in the layout of PASCAL VOC, such as "VOCdevkit/VOC2012"
if not PHOTOS and "MINIFCN_DATA" in os.environ:
    PHOTOS = "$MINIFCN_DATA/voc2012_animals"
WORLD = not PHOTOS  # numbers in the text are those of the world, and are checked there
print(f"threads: {threads()}; device: {DEVICE}; images: {PHOTOS or 'the embedded world'}")

# %% [markdown]
# ## 1 · A run leaves a folder
#
# In a terminal you would type the line that is printed first. The run is to make 200 steps, but stops after 100. It
# prints what it begins with, and whether the first loss is what it must be (section 3 of notebook 10). Every 50 steps
# it measures the net on the validation images.

# %% tags=["varies"]
here = tempfile.TemporaryDirectory()


def minifcn(line):
    """Do what a terminal does with this line, in a folder of its own."""
    print(f"$ minifcn {line}")
    with contextlib.chdir(here.name):
        return main(shlex.split(line))


DATA = f"--recipe animals --data {PHOTOS}" if PHOTOS else "--recipe toy"
OPTIONS = f"{DATA} --max-train 240 --max-val 48 --steps 200 --measure-steps 50 --seed {SEED} --device {DEVICE}"
code = minifcn(f"train {OPTIONS} --run runs/first --stop-after 100")
assert code == 0

# %% [markdown]
# Here is what it left:


# %%
def files(run):
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())


first = Path(here.name, "runs", "first")
before = files(first)
print(*before, sep="\n")
assert {name.partition("/")[0] for name in before} == {"config.json", "metrics.jsonl", "checkpoints", "lock"}

# %% [markdown]
# * `config.json`: every option, the classes, what is done to the images, and the versions of everything. `minifcn
#   train --config runs/first/config.json` repeats the run.
# * `metrics.jsonl`: the log, one line for each loss and for each measurement.
# * `checkpoints/`: everything that is needed to go on: the weights, the momentum of the solver, and the number of the
#   step. The last two are kept, and the best.
# * `lock`: empty; no second process can write into this folder at the same time.
#
# ## 2 · The log
#
# Each line is one JSON object. `kind` is `train` for a loss, averaged over the steps since the last line, or `val` for
# a measurement. Here is the first of each (what a measurement has for each class is left out):


# %% tags=["varies"]
def read_log(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


log = read_log(first / "metrics.jsonl")
for kind in ("train", "val"):
    record = next(record for record in log if record["kind"] == kind)
    print(
        {name: value for name, value in record.items() if name not in ("iu", "shares_true", "shares_predicted")}, "\n"
    )
assert [record["step"] for record in log if record["kind"] == "val"] == [50, 100]

# %% [markdown]
# ## 3 · It goes on as if nothing had happened
#
# `--resume` goes on where the run stopped. After it, here are the same options once more, without a stop. Both measure
# the same from step 101 on, so only the end of what they print is shown.


# %% tags=["varies"]
def last_lines(line, count=10):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = minifcn(line)
    first, *rest = said.getvalue().splitlines()
    print(first, "...", *rest[-count:], "", sep="\n")
    return code


assert last_lines("train --resume runs/first") == 0
assert last_lines(f"train {OPTIONS} --run runs/again") == 0

# %% [markdown]
# Are the two runs the same? Compare all that the last checkpoints hold, bit by bit, and every line of the two logs,
# except for the images per second.


# %%
def without_speed(run):
    return [{k: v for k, v in record.items() if k != "images_per_s"} for record in read_log(run / "metrics.jsonl")]


again = Path(here.name, "runs", "again")
stopped, whole = (load_latest(run).tensors for run in (first, again))
assert sorted(stopped) == sorted(whole) and all(np.array_equal(stopped[name], whole[name]) for name in whole)
assert without_speed(first) == without_speed(again)
momentum = sum(name.startswith("momentum.") for name in whole)
assert momentum == len(whole) / 2 > 20
print(f"{len(whole)} arrays of the checkpoints, {momentum} of them momentum, are the same, and so are", end=" ")
print(f"{len(without_speed(again))} lines of the logs")
print("new in the folder:", *(name for name in files(first) if name not in before and "step-" not in name), sep="\n")

# %% [markdown]
# There are two reasons. What a step draws (which images, mirrored or not) depends on the seed and the number of that
# step, and on nothing that was drawn before. And a checkpoint holds the momentum, not only the weights. Without it the
# run would go on, but differently.
#
# ## 4 · Two curves
#
# On the left is the loss, which training minimises; on the right are the metrics, which are the goal. The dashed line
# is $\ln C$, the loss of a net that knows nothing. This is the run from above:

# %% tags=["varies"]
log = read_log(first / "metrics.jsonl")
viz.show(viz.curves(log))

# %% [markdown]
# And this is a long run on the world with the same recipe, `toy`: 2,000 images, 2,000 steps. The log is
# `logs/world.jsonl`.

# %%
world = read_log("logs/world.jsonl")
last = world[-1]
print({name: round(last[name], 3) for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")})
recipe = preset("toy")
images = len(setup.data_sets(recipe)[0])
assert images == 2000 == last["step"] == recipe.epochs * images // recipe.batch and last["mean_iu"] > 0.6
viz.show(viz.curves(world))

# %% [markdown]
# ## 5 · Four runs
#
# ### Exercise 1: which is which?
#
# Here are four runs with 320 steps each, on the same world and the same net. One is healthy; in one the learning
# rate is too low, in one too high; one has trained on too few images, over and over. Which is which? The grey line is
# $\ln 8$.

# %%
runs = {name: read_log(f"logs/run-{name}.jsonl") for name in "ABCD"}
assert {run[-1]["step"] for run in runs.values()} == {320}
pictures.columns_of_runs(runs, level=np.log(8))

# %%
diagnosis = ...  # such as {"A": "healthy", "B": "rate too low", "C": "rate too high", "D": "too few images"}
n11.check_diagnosis(diagnosis)

# %% tags=["solution"] jupyter={"source_hidden": true}
solution = {"A": "rate too high", "B": "healthy", "C": "too few images", "D": "rate too low"}
assert n11.check_diagnosis.accepts(solution)

# %% [markdown]
# ## 6 · What a run warns of
#
# A run sees the simplest of these signs by itself (`minifcn/training/advice.py`). Here are two faults, each on 24
# images and for 12 steps. The first is a learning rate of `1e-9`, a slip of the exponent:

# %% tags=["varies"]
SHORT = f"{DATA} --max-train 24 --max-val 8 --steps 12 --measure-steps 12 --seed {SEED} --device {DEVICE}"


def warnings_of(run):
    return [line for record in read_log(run / "metrics.jsonl") for line in record.get("warnings", [])]


with contextlib.redirect_stdout(io.StringIO()):
    code = minifcn(f"train {SHORT} --run runs/still --lr 1e-9")
still = warnings_of(first.parent / "still")
print(code, *still, sep="\n")
assert code == 0 and len(still) == 2 and "the loss stays at ln" in still[0] and "are called background" in still[1]

# %% [markdown]
# The second warning comes in many healthy runs, too, near the beginning, because the first thing
# that a net learns is how frequent each class is. If it stays, something is wrong.
#
# A rate that is far too high ends the run. `diverged.json` names the images of that step and the largest gradient of
# each layer; what was saved before is intact:

# %% tags=["varies"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
    code = minifcn(f"train {SHORT} --run runs/fast --lr 1000")
print(code, said.getvalue(), sep="\n")
diverged = json.loads((first.parent / "fast" / "diverged.json").read_text())
print({name: diverged[name] for name in ("what", "step", "lr")})
print("it also has:", *(name for name in diverged if name not in ("what", "step", "lr")))
assert code == 3 and diverged["step"] < 12

# %% [markdown]
# ## 7 · One table has all the metrics
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
# below `classes * classes`. Labels come as `uint8`.

# %%
confusion = ...  # instead of this line: def confusion(truth, prediction, classes): ...
n11.check_confusion(confusion)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(truth, prediction, classes):
    known = truth != 255
    # class numbers come as uint8, and 21 * 20 is more than 255
    cell = classes * truth[known].astype(int) + prediction[known]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


assert n11.check_confusion.accepts(solution)

# %% [markdown]
# ### Exercise 3: mean IU
#
# Compute mean IU from the table. Leave out a class that neither occurs nor is predicted: its fraction is 0/0.

# %%
mean_iu = ...  # instead of this line: def mean_iu(matrix): ...
n11.check_mean_iu(mean_iu)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(matrix):
    intersection = np.diag(matrix)
    union = matrix.sum(axis=1) + matrix.sum(axis=0) - intersection
    there = union > 0
    return np.mean(intersection[there] / union[there])


assert n11.check_mean_iu.accepts(solution)

# %% [markdown]
# ## 8 · The table of our net
#
# Now the table of the run's own net, from its last checkpoint, in per cent. A row shows how the pixels of a class are
# predicted, and adds up to 100. The diagonal is what is right. No other column holds as many wrong pixels as the first:
# background is the most likely guess where a net is unsure.

# %% tags=["varies"]
trained = open_trained(first)
net, preprocessing, CLASSES = trained.net.to(DEVICE), trained.preprocessing, trained.classes
train, val = (Cached(images) for images in setup.data_sets(trained.options))
guesses = baselines(train, val)
matrix = evaluate(net, val, preprocessing)
print(table(matrix, guesses))
assert matrix.mean_iu() > guesses["pixel position"].mean_iu() or not WORLD
wrong = matrix.matrix * (1 - np.eye(len(CLASSES), dtype=int))
print(f"{100 * wrong[:, 0].sum() / wrong.sum():.0f} % of the wrong pixels are called {CLASSES[0]}")
assert wrong.sum(axis=0).argmax() == 0 or not WORLD
viz.show(viz.confusion_picture(matrix.matrix, CLASSES))

# %% [markdown]
# ## 9 · Not an average over images
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
assert abs(mean_ius.mean() - matrix.mean_iu()) > 1e-3
marks = {
    f"average of the images {mean_ius.mean():.3f}": mean_ius.mean(),
    f"of all pixels together {matrix.mean_iu():.3f}": matrix.mean_iu(),
}
pictures.histograms(
    {"images": mean_ius}, np.linspace(0, 1, 26), across=marks, xlabel="mean IU of an image", xlim=(0, 1)
)

# %% [markdown]
# ## 10 · Look at the worst images first
#
# A number says how good a net is; a picture says what to do next. Sort the validation images by their mean IU, and
# look at the worst.

# %% tags=["varies"]
worst = np.argsort(mean_ius)[:6]
rows = [(val[int(i)].image, val[int(i)].label, predictions[i]) for i in worst]
viz.show(viz.gallery(rows, CLASSES, columns=2, side=128))

# %% [markdown]
# Why are they bad? The table shows for each the most frequent confusion of two classes, and the part of all mistakes
# that lies within three pixels of a border between classes. An image with a low score need not have many wrong pixels:
# one small thing that is missed costs a whole class.


# %% tags=["varies"]
def distance_to_border(label, most=12):
    """The distance of each pixel, along its row or column, to the nearest pixel of another class, up to `most`."""
    distance = np.full(label.shape, most)
    padded = np.pad(label, most, mode="edge")
    height, width = label.shape
    for reach in range(most - 1, 0, -1):
        for down, right in ((reach, 0), (-reach, 0), (0, reach), (0, -reach)):
            shifted = padded[most + down : most + down + height, most + right : most + right + width]
            distance[shifted != label] = reach
    return distance


assert max(per_image[i].pixel_accuracy() for i in worst) > matrix.pixel_accuracy() or not WORLD
for i in worst:
    label, wrong = val[int(i)].label, (predictions[i] != val[int(i)].label) & (val[int(i)].label != VOID)
    confused = per_image[i].matrix * (1 - np.eye(len(CLASSES), dtype=int))
    a, b = np.unravel_index(confused.argmax(), confused.shape)
    near = (wrong & (distance_to_border(label) <= 3)).sum() / max(wrong.sum(), 1)
    most = f"{CLASSES[a]} called {CLASSES[b]}: {100 * confused[a, b] / max(wrong.sum(), 1):3.0f} % of them"
    print(f"{val.ids[i]}: mean IU {mean_ius[i]:.2f}, {100 * wrong.mean():3.0f} % of the pixels wrong; ", end="")
    print(f"{most}; at borders: {100 * near:3.0f} %")

# %% [markdown]
# ## 11 · Where on the image?
#
# Over all validation images: how often is a pixel right, by its distance to the nearest border? (The borders themselves
# are void.) Far from borders this net is nearly always right; beside them about half of its answers are wrong. It does
# not know *where things end*, and most of its mistakes lie there.

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
errors = found[:, 1] - found[:, 0]
print(f"{100 * errors[:7].sum() / errors.sum():.0f} % of the mistakes lie within six pixels of a border, ", end="")
print(f"where {100 * found[:7, 1].sum() / found[:, 1].sum():.0f} % of the pixels are")
if WORLD:
    assert 0.3 < accuracy[0] < 0.7 and accuracy[-1] > 0.9 and np.all(np.diff(accuracy) > -0.03)
    assert errors[:7].sum() > 0.6 * errors.sum()
distance = "pixels to the nearest border between labels (the last: 12 or more)"
series = {"": (np.flatnonzero(there), 100 * accuracy)}
pictures.lines(series, size=(7, 2.4), styles=("-o",), xlabel=distance, ylabel="% right", ylim=(0, 100))

# %% [markdown]
# ## 12 · The smallest cost of a stride
#
# A net whose finest score stands for 8x8 pixels cannot draw a pole two pixels wide. How much does that cost? Let the
# truth itself be the prediction: take the most frequent label of every block of 8x8 pixels, give it to all pixels of
# the block, and measure. This is the upper bound of appendix A of the paper, which has such numbers for photographs of
# PASCAL VOC (long side 500):


# %%
def coarse(label, factor, classes):
    """The most frequent class of each block of factor x factor pixels, for all its pixels; void does not count."""
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
print({factor: round(value, 2) for factor, value in bound.items()})
if WORLD:
    assert [round(bound[factor], 1) for factor in (4, 8)] == [0.9, 0.8] and 0.2 < bound[32] < 0.3
    assert all(1 - paper[factor] < (1 - bound[factor]) / 4 for factor in bound)
both = {"images of this notebook": bound, "PASCAL VOC, in the paper": paper}
pictures.lines(
    {name: (list(bounds), list(bounds.values())) for name, bounds in both.items()},
    styles=("-o",),
    xscale="log",
    xticks=list(bound),
    xticklabels=list(bound),
    xlabel="pixels a side of a block",
    ylabel="mean IU at best",
    ylim=(0, 1),
)

# %% [markdown]
# On the world, whose images are only 64 pixels wide, a net of stride 8 is bounded near 0.8, and one of stride 32 near a
# quarter. On photographs eight times as wide the same strides cost less than a quarter of that: the meaning of a metric
# depends on the size of the things.
#
# (A net interpolates between two cells instead of repeating one, so it can be a little better than its blocks.)
#
# ## 13 · All of it on one page
#
# At its end a run writes `report.html`: one file that loads nothing and runs no script, so that you can mail it or
# open it years later. With `--watch` it is there from the beginning, and shows how far the run is. These are its
# sections:

# %% tags=["varies"]
page = (first / "report.html").read_text(encoding="utf-8")
sections = re.findall(r"<h2[^>]*>([^<]*)<", page)
print(*sections, sep="\n")
assert page.count("<script") == 0 and {"Learning curves", "Configuration", "Environment"} <= set(sections)

# %% [markdown]
# And this is one of its samples:

# %% tags=["varies"]
viz.show(read_image(sorted((first / "samples").iterdir())[0]))

# %% [markdown]
# ## Summary
#
# A run is a folder: its options, its log, its checkpoints, and at the end a page. You can stop and resume it, and its
# numbers stay the same, because every random number is drawn for its step. Two curves show whether a rate is too high
# or too low, and whether there are too few images. Four metrics come from one table of counts, summed over all images.
# Look at the worst images first; most mistakes lie near borders. A stride alone bounds the metric, and the smaller the
# things are, the lower.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. The training loss falls, the validation mean IU stops early. What is likely?
#    * (a) the rate is too low
#    * (b) the rate is too high
#    * (c) too few images
#
# 2. Two halves of a validation set were measured on two machines. How do you get the mean IU of the whole?
#    * (a) add the two tables of counts, and compute it from the sum
#    * (b) take the average of the two mean IUs
#    * (c) take the average of the two, weighted by their images
#
# 3. Why does a resumed run end with the same weights as one without a stop?
#    * (a) it starts again from the first step
#    * (b) each step draws its random numbers from the seed and its own number, and the momentum was saved
#    * (c) the last steps change next to nothing

# %%
letters = ...
n11.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n11.check_quiz.accepts("cab")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/training/run_folder.py` and `runlog.py`: the folder and the log; `minifcn/training/report.py`: the page.
# * `minifcn/training/advice.py`: the warnings; `minifcn/training/divergence.py`: what a run looks for when it fails.
# * `minifcn/metrics.py`: the table, the four metrics, and three ways to treat 0/0.
# * `minifcn/training/evaluation.py`: from scores to the table, and the two baselines.
# * Your own run: `minifcn train --data FOLDER` on any folder in the layout of PASCAL VOC; `minifcn evaluate RUN`; and
#   `minifcn predict RUN photo.jpg --explain X,Y`, which says why a pixel got its class.
# * Next: [12 Making it fast](12_fast.ipynb).
