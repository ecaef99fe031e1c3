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
# # 01 · A tensor that remembers
#
# To train a network you ask one question about every weight: *if it grew a little, would the loss fall?* The gradient
# answers all of these questions at once. In this notebook you build the program that computes it.
#
# Afterwards you can
#
# * say what a gradient is, and find one by moving a number a little;
# * write an operation as its value and one gradient for each input;
# * build an autograd engine in under fifty lines, train with it, and show that it equals `minifcn.tensor`, to the bit;
# * say which arrays stay in memory after a forward pass, and why a node of the graph never holds one.
#
# **The paper.** Learning is "whole-image-at-a-time by dense feedforward computation and backpropagation" (section 1),
# and section 3 needs one property of gradients: the gradient of a sum over all cells of the last layer is the sum of
# the gradients of the cells. You will see it at the end.
#
# **Before you begin.** You need Python and a little NumPy, and what a derivative is. No notebook comes before this
# one. Reading takes about half an hour, reading and all exercises together 60 minutes.

# %% tags=["varies"]
import inspect
import weakref

import numpy as np
import pictures
from exercises import n01

import minifcn
from minifcn.backend import xp_of, xp_on
from minifcn.errors import GraphError
from minifcn.graph import graph
from minifcn.introspect.frames import frames
from minifcn.kernels.threads import threads

SEED = 1
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy

print(f"device {DEVICE}, {threads()} threads")

# %% [markdown]
# ## 1 · What is a gradient?
#
# Take a function of one number and move the number a little. The output moves, too. The ratio of the two changes is
# the slope:
#
# $$ f'(a) \approx \frac{f(a + \varepsilon) - f(a - \varepsilon)}{2 \varepsilon} $$


# %%
def f(a):
    return a**3 - 3 * a


def slope(function, at, eps=1e-5):
    return (function(at + eps) - function(at - eps)) / (2 * eps)


slopes = {a: slope(f, a) for a in (-1.8, -1.0, 0.5, 1.9)}
assert slopes[-1.8] > 0 > slopes[0.5] and abs(slopes[-1.0]) < 1e-8
pictures.tangents(f, slopes)

# %% [markdown]
# Where the slope is positive, the curve rises to the right; at the top of the hill it is 0. To go downhill, step
# against the slope. With a million weights this needs two evaluations of the net per weight, two
# million in all. The chain rule computes all slopes with one pass forward and one pass back.
#
# ## 2 · One operation: its value, and one gradient for each input
#
# Let the loss be $L$, and let $y = x_1 x_2$ be a value on the way to it. Suppose you know $g = \partial L / \partial
# y$. Then the chain rule says
#
# $$ \frac{\partial L}{\partial x_1} = g \, x_2 \qquad \frac{\partial L}{\partial x_2} = g \, x_1 $$
#
# So an operation is a function that returns its value and, for each input, a function from $g$ to the gradient there.
# In minifcn $g$ is always called `gy`.


# %%
def times(x1, x2):
    def grad_x1(gy):
        return gy * x2

    def grad_x2(gy):
        return gy * x1

    return x1 * x2, (grad_x1, grad_x2)


def plus(x1, x2):
    def grad(gy):
        return gy  # a sum passes gy on to both

    return x1 + x2, (grad, grad)


def positive(x):
    def grad_x(gy):
        return gy * (x > 0)  # what was cut off cannot matter

    return max(x, 0.0), (grad_x,)


# Forward: L = max(a b + c, 0). Each step leaves its gradient functions behind.
a, b, c = 2.0, 3.0, -1.0
u, (to_a, to_b) = times(a, b)
v, (to_u, to_c) = plus(u, c)
L, (to_v,) = positive(v)

# Backward: begin with dL/dL = 1 and call them in the opposite order.
gv = to_v(1.0)
gu, gc = to_u(gv), to_c(gv)
ga, gb = to_a(gu), to_b(gu)

print(f"L = {L}")
print(f"by the chain rule   dL/da = {ga}   dL/db = {gb}   dL/dc = {gc}")
moved = [
    slope(lambda a: max(a * b + c, 0.0), a),
    slope(lambda b: max(a * b + c, 0.0), b),
    slope(lambda c: max(a * b + c, 0.0), c),
]
print("by moving a little  dL/da = {:.1f}   dL/db = {:.1f}   dL/dc = {:.1f}".format(*moved))
assert np.allclose([ga, gb, gc], moved)

# %% [markdown]
# The backward half is the forward half read from the last line to the first. A program can do this if the forward
# half records what it did. That is all of autograd.
#
# ### Exercise 1: an operation of your own
#
# The logistic function is $y = 1 / (1 + e^{-x})$, and its slope is $y (1 - y)$. Write it as an operation: a function
# of an array `x` that returns `(value, (grad_x,))`, as above. Then put its name in place of the dots.

# %%
answer = ...
n01.check_sigmoid(answer)


# %% tags=["solution"] jupyter={"source_hidden": true}
def sigmoid(x):
    y = 1 / (1 + np.exp(-x))

    def grad_x(gy):
        return gy * y * (1 - y)

    return y, (grad_x,)


assert n01.check_sigmoid.accepts(sigmoid)

# %% [markdown]
# ## 3 · Two gradients to derive once
#
# Two gradients are behind most mistakes of beginners: that of a matrix product, and that of an input that was
# broadcast. Derive each once, one letter at a time, and check it by moving numbers.
#
# **The matrix product.** Let $Y = X W$, so $y_{ij} = \sum_k x_{ik} w_{kj}$, and let $g_{ij} = \partial L / \partial
# y_{ij}$. Which outputs does $x_{ik}$ take part in? In those of its own row $i$: in column $j$ with the slope
# $w_{kj}$. So
#
# $$ \frac{\partial L}{\partial x_{ik}} = \sum_j g_{ij}\, w_{kj} = (g\, W^T)_{ik} $$
#
# And $w_{kj}$ takes part in the outputs of its column $j$: in row $i$ with the slope $x_{ik}$. So
#
# $$ \frac{\partial L}{\partial w_{kj}} = \sum_i x_{ik}\, g_{ij} = (X^T g)_{kj} $$
#
# The shapes help to remember it: $g$ is shaped like $Y$, and of the possible products only one has the shape of $X$,
# and one that of $W$.


# %%
def by_moving(loss, array):
    """The slope of `loss(array)` for each element of the array, which is moved by a little and put back."""
    slopes = np.zeros_like(array)
    for at in np.ndindex(array.shape):

        def of_one_number(value, at=at):
            moved = array.copy()
            moved[at] = value
            return loss(moved)

        slopes[at] = slope(of_one_number, array[at])
    return slopes


draw = np.random.default_rng(SEED)
X, W, g = draw.standard_normal((4, 3)), draw.standard_normal((3, 2)), draw.standard_normal((4, 2))
assert np.allclose(g @ W.T, by_moving(lambda X: (g * (X @ W)).sum(), X))
assert np.allclose(X.T @ g, by_moving(lambda W: (g * (X @ W)).sum(), W))
print(f"X {X.shape} @ W {W.shape} -> Y {(X @ W).shape}; gradients g @ W.T {(g @ W.T).shape}, X.T @ g {(X.T @ g).shape}")

# %% [markdown]
# **Broadcasting.** NumPy adds a row of three biases to four rows of numbers: $y_{ij} = x_{ij} + b_j$. The row was
# used four times, once for each $i$, so $b_j$ takes part in four outputs, each with slope 1, and the four parts add
# up:
#
# $$ \frac{\partial L}{\partial b_j} = \sum_i g_{ij} $$
#
# The rule for any shape: **sum over every axis along which the input was repeated**. A gradient always has the shape
# of its input, so if you forget the sum, the shape is wrong. (In `minifcn/ops/arithmetic.py` this is `sum_to`.)

# %%
x, b, g = draw.standard_normal((4, 3)), draw.standard_normal(3), draw.standard_normal((4, 3))
assert np.allclose(g.sum(axis=0), by_moving(lambda b: (g * (x + b)).sum(), b))

column = draw.standard_normal((4, 1))  # now each number is repeated along a row
assert np.allclose((g * x).sum(axis=1, keepdims=True), by_moving(lambda c: (g * (x * c)).sum(), column))
print(f"gy {g.shape}; at b {b.shape} the sum over rows; at a column {column.shape} the sum over columns")

# %% [markdown]
# minifcn does the same. A `Parameter` is an array whose gradient you want; `backward(gy)` computes it and leaves it in
# `grad`. The next sections show how.

# %%
parameter = minifcn.Parameter(xp.asarray(b))
(parameter + xp.asarray(x)).backward(xp.asarray(g))
assert xp.allclose(parameter.grad, xp.asarray(g.sum(axis=0)))
print(f"b {parameter.shape}, its gradient {parameter.grad.shape}: equal to the sum over rows")

# %% [markdown]
# ## 4 · The record: a node for each value
#
# A `Node` is a point in the graph. It has an edge to each value it was computed from. An edge holds *which* value
# that is (its node), and *how* a gradient gets there (the function). A `Tensor` is an array with its node. A tensor
# without a node is a constant: no gradient goes there.


# %%
class Node:
    def __init__(self, edges=()):
        self.edges = edges  # pairs: (parent node, gradient function)
        self.grad = None


class Tensor:
    def __init__(self, data, node=None):
        self.data, self.node = data, node

    def __add__(self, other):
        return add(self, other)

    def __mul__(self, other):
        return mul(self, other)

    def __matmul__(self, other):
        return matmul(self, other)


def op(function):
    """Lift a function on arrays to Tensors: compute, and note where the value came from."""

    def apply(*inputs):
        y, gradients = function(*(x.data if isinstance(x, Tensor) else x for x in inputs))
        pairs = zip(inputs, gradients, strict=True)
        edges = [(x.node, gradient) for x, gradient in pairs if isinstance(x, Tensor) and x.node is not None]
        return Tensor(y, Node(edges) if edges else None)

    return apply


@op
def add(x, y):
    return x + y, (lambda gy: gy, lambda gy: gy)


one, two = Tensor(np.array(1.0), Node()), Tensor(np.array(2.0))  # `two` has no node: a constant
print("one + two has an edge to `one` alone:", [parent is one.node for parent, _ in (one + two).node.edges])
assert [parent for parent, _ in (one + two).node.edges] == [one.node]
assert [total.node is None for total in (one + two, two + two)] == [False, True]  # two constants make a constant

# %% [markdown]
# A net needs four more operations. (`xp_of(x)` is the library that made the array `x`: NumPy, or CuPy on a GPU.)


# %%
@op
def mul(x, y):
    return x * y, (lambda gy: gy * y, lambda gy: gy * x)


@op
def matmul(x, y):
    return x @ y, (lambda gy: gy @ y.T, lambda gy: x.T @ gy)


@op
def relu(x):
    y = xp_of(x).maximum(x, 0)
    return y, (lambda gy: gy * (y > 0),)


@op
def mean(x):
    shape, part = x.shape, 1 / x.size
    return x.mean(), (lambda gy: xp_of(gy).broadcast_to(gy * part, shape),)


x = Tensor(np.array([2.0, -3.0]), Node())
product = x * x
total = product + x
y = relu(total)
names = {product.node: "x * x", total.node: "x * x + x", y.node: "relu", x.node: "x"}
for node in (y.node, total.node, product.node):
    print(f"{names[node]:<9} has edges to", [names[parent] for parent, _ in node.edges])
edges = [parent for node in (y.node, total.node, product.node) for parent, _ in node.edges]
assert edges.count(x.node) == 3 and edges.count(product.node) == edges.count(total.node) == 1

# %% [markdown]
# ## 5 · The backward pass
#
# Start at the result with `gy = 1`. Call each edge's function with the gradient of its node; the result belongs to
# the parent. But `x` above was used three times: as both factors and as a summand. Each use contributes a part, and
# the parts add up. So when is a node's gradient complete?
#
# A first try ignores this question: it follows every edge at once, again for each contribution. Watch what happens
# when a value is used twice, and the result twice again, and so on.


# %%
def careless(node, gy, count):
    """Follow every edge as soon as something arrives."""
    if not node.edges:
        node.grad = gy if node.grad is None else node.grad + gy
    for parent, gradient in node.edges:
        count[0] += 1
        careless(parent, gradient(gy), count)


depths, calls, counted = range(1, 13), [], []
for depth in depths:
    start = y = Tensor(np.float64(1.0), Node())
    nodes = []
    for _ in range(depth):
        y = y + y
        nodes.append(y.node)
    count = [0]
    careless(y.node, 1.0, count)
    assert start.node.grad == 2**depth  # the gradient is right
    calls.append(count[0])
    counted.append(sum(len(node.edges) for node in nodes))  # what one visit for each node would take
assert calls[-1] == 8190 and counted[-1] < 30
series = {"follow every contribution": (depths, calls), "one visit for each node": (depths, counted)}
pictures.lines(
    series,
    styles=("o-",),
    colours=(pictures.SECOND, pictures.ACCENT),
    xlabel="doublings y = y + y, one after another",
    ylabel="gradient functions called",
    yscale="log",
)

# %% [markdown]
# The first try gives the right result, but it is far too slow: twelve additions take 8190 calls. So count first. One
# pass over the graph counts how many edges lead to each node. A node is then visited only when that many
# contributions have arrived.
#
# ### Exercise 2: how many calls?
#
# Write a function of the number of doublings that returns the two counts of the picture: `(careless, counted)`.

# %%
answer = ...
n01.check_calls(answer)


# %% tags=["solution"] jupyter={"source_hidden": true}
def both_counts(depth):
    # Level by level 2, 4, 8 ... deliveries: a geometric series. Counted: two edges for each of the nodes.
    return 2 ** (depth + 1) - 2, 2 * depth


assert n01.check_calls.accepts(both_counts)
assert list(zip(calls, counted, strict=True)) == [both_counts(depth) for depth in depths]

# %% [markdown]
# ## 6 · The engine
#
# Two functions are enough. `count_uses` goes over the graph once and counts. `backward` starts at the result and
# visits each node when its last contribution has arrived. To try them, double a number and halve it again, a thousand
# times: the slope must be 1, and 3000 edges must take 3000 calls, not $2^{1000}$.


# %%
def count_uses(root):
    """How many edges lead to each node below the root."""
    uses, waiting = {root: 0}, [root]
    while waiting:
        for parent, _ in waiting.pop().edges:
            if parent not in uses:
                uses[parent] = 0
                waiting.append(parent)
            uses[parent] += 1
    return uses


def backward(y):
    """Add d(y)/d(leaf) to the grad of every leaf below y."""
    uses = count_uses(y.node)
    grads, ready = {y.node: xp_of(y.data).ones_like(y.data)}, [y.node]
    while ready:
        node = ready.pop()
        gy = grads.pop(node)
        if not node.edges:
            node.grad = gy if node.grad is None else node.grad + gy
        for parent, gradient in node.edges:
            gx = gradient(gy)
            grads[parent] = grads[parent] + gx if parent in grads else gx
            uses[parent] -= 1
            if uses[parent] == 0:  # the last contribution: complete
                ready.append(parent)


start = y = Tensor(np.float64(1.0), Node())
for _ in range(1000):
    y = (y + y) * 0.5
backward(y)
edges = sum(count_uses(y.node).values())
print(f"a thousand doublings, each halved again: {edges} edges, dy/dx = {start.node.grad}")
assert start.node.grad == 1.0 and edges == 3000

# %% [markdown]
# That is the whole engine. How long is it?


# %%
def code_lines(thing):
    if isinstance(thing, type):  # the line `class ...:` and its functions
        return 1 + sum(code_lines(part) for part in vars(thing).values() if inspect.isfunction(part))
    return sum(bool(line.strip()) for line in inspect.getsource(thing).splitlines())


engine = {"Node": Node, "Tensor": Tensor, "op": op, "count_uses": count_uses, "backward": backward}
for name, thing in engine.items():
    print(f"{name:<12} {code_lines(thing):>3} lines")
total = sum(map(code_lines, engine.values()))
print(f"{'together':<12} {total:>3} lines")
assert total < 50

# %% [markdown]
# ## 7 · Does it learn?
#
# Here is a small version of the task of this course: label every point of a plane. Points in a ring are 1, all others
# are 0. The net takes a point's two coordinates and a constant 1, and has three layers of weights. Without looking at
# the point, the best answer is the same number everywhere: the share of ring points. It leaves an error of 0.23.

# %%
rng = np.random.default_rng(SEED)
side = 40
line = np.linspace(-2, 2, side)
rows, columns = np.meshgrid(line, line, indexing="ij")
radius = np.hypot(rows, columns)
points = xp.asarray(np.stack([rows.ravel(), columns.ravel(), np.ones(side**2)], axis=1))
truth = xp.asarray(((radius > 0.8) & (radius < 1.6)).astype(float).reshape(-1, 1))
sizes = [(3, 24), (24, 24), (24, 1)]
start = [rng.standard_normal(size) * np.sqrt(2 / size[0]) for size in sizes]  # values keep their size


def score(weights, points):
    w1, w2, w3 = weights
    return relu(relu(points @ w1) @ w2) @ w3


def loss_of(weights):
    difference = score(weights, Tensor(points)) + Tensor(-truth)
    return mean(difference * difference)


weights = [Tensor(xp.asarray(w), Node()) for w in start]
snapshots, losses = {}, []
for step in range(1201):
    loss = loss_of(weights)
    losses.append(loss.data.item())
    if step in (0, 50, 300, 1200):
        snapshots[f"step {step}"] = score(weights, Tensor(points)).data.reshape(side, side)
    backward(loss)
    for w in weights:
        w.data = w.data - 0.2 * w.node.grad
        w.node.grad = None

share = float(truth.mean())
constant = share * (1 - share)  # the mean squared error of the best constant
print(f"mean squared error: {losses[0]:.2f} at first, {losses[-1]:.2f} at the end; of a constant {constant:.2f}")
assert losses[-1] < constant / 3 and round(constant, 2) == 0.23

# %% [markdown]
# This is what it answers at every point of the plane, on the way. White is 0 and dark blue 1.

# %%
pictures.panels({"truth": truth.reshape(side, side), **snapshots}, size=(8, 2), limits=(0, 1))

# %% [markdown]
# It learns, and ends far below the constant, with an engine of fewer than fifty lines that contains nothing about
# rings.
#
# ## 8 · The same with minifcn
#
# `minifcn.tensor` is this engine with more checks: it raises errors for wrong input, and frees memory during the
# backward pass. Do both find the same gradients for the net above, from the same weights? (In this course red is
# positive and blue negative, wherever a picture has both.)

# %%
ours = [Tensor(xp.asarray(w), Node()) for w in start]
backward(loss_of(ours))

theirs = [minifcn.Parameter(xp.asarray(w)) for w in start]
h = minifcn.ops.relu(minifcn.ops.relu(minifcn.Tensor(points) @ theirs[0]) @ theirs[1]) @ theirs[2]
loss = ((h - truth) * (h - truth)).mean()
drawn = graph(loss)  # before the backward pass, which frees it
loss.backward()

for mine, other in zip(ours, theirs, strict=True):
    assert mine.node.grad.shape == other.grad.shape
    assert (mine.node.grad == other.grad).all()  # to the bit

grads = {f"ours: gradient of w{number}": w.node.grad for number, w in enumerate(ours, start=1)}
grads |= {f"minifcn: gradient of w{number}": w.grad for number, w in enumerate(theirs, start=1)}
shown = {name: grad.T if grad.shape[1] == 1 else grad for name, grad in grads.items()}  # w3 is a column
pictures.panels(shown, size=(7, 2.6), rows=2, cmap="RdBu_r", limits="signed", aspect="auto")

# %% [markdown]
# Equal to the bit: both call the same NumPy functions in the same order. Now read the two functions that you have
# written yourself, in `minifcn/tensor.py`. Three things are new there. Versions detect a weight that was changed
# between the forward and the backward pass. Edges are freed during the backward pass. And `prepare` runs a step that
# all gradients of one operation share only once. (A `watcher` is for lessons; it makes the film below.)

# %%
print(inspect.getsource(minifcn.tensor.count_uses))
print(inspect.getsource(minifcn.tensor.backward))

# %% [markdown]
# The first of the three in action: a weight is overwritten too early, and minifcn refuses to compute a gradient that
# would mix its old and its new value. (Every optimizer calls `changed` when it has written to a weight.)


# %%
def refusal(call):
    """Return the sentence with which minifcn refuses a call; None if it does not."""
    try:
        call()
    except GraphError as error:
        return str(error)


w = minifcn.Parameter(xp.ones(3))
loss = (w * w).sum()
w.data[:] = 2
w.changed()
why = refusal(loss.backward)
print(why)
assert why.startswith("a parameter of shape (3,) used by mul was changed")

# %% [markdown]
# ## 9 · The graph, drawn
#
# This is the computation of the loss as minifcn recorded it. Inputs are at the top, the loss is at the bottom, and
# the arrows point the way of the forward pass, downwards. Beside each arrow stands the gradient function that goes
# the other way in the backward pass, upwards. The darker a box, the more its gradients remember (in a notebook, rest
# the pointer on it).

# %%
drawn

# %% [markdown]
# `drawn` appears as a picture because it has a method `_repr_svg_`, which calls `to_svg()`. Printed, it is a table.
# Its last column shows why training takes memory: these arrays cannot be freed until the backward pass has used them.
# A difference and a mean remember none.

# %%
print(drawn)
assert drawn.to_svg().startswith("<svg") and drawn._repr_svg_() == drawn.to_svg()
constants = [step for step in drawn.steps if step.op in ("sub", "mean")]
assert len(constants) == 3 and not any(step.nbytes for step in constants)

# %% [markdown]
# The same once more, in motion: a whole training step of this net, frame by frame. Drag the slider, or press Play.
# The bars show how many bytes the gradients hold: they rise in the forward pass and fall in the backward pass. Point at
# a cell to read its number.


# %%
class Rings(minifcn.nn.Module):
    def __init__(self):
        self.w1, self.w2, self.w3 = (minifcn.Parameter(xp.asarray(w)) for w in start)

    def forward(self, x):
        return minifcn.ops.relu(minifcn.ops.relu(x @ self.w1) @ self.w2) @ self.w3


net = Rings()
film = frames(
    lambda: ((net(minifcn.Tensor(points)) - truth) ** 2).mean(),
    minifcn.SGD(net, lr=0.1),
    named={"points": points, "truth": truth},
)
forward = [frame.held for frame in film.frames if frame.phase == "forward"]
back = [frame.held for frame in film.frames if frame.phase == "backward"]
assert forward == sorted(forward) and back == sorted(back, reverse=True) and film.frames[-1].held == 0
film

# %% [markdown]
# ## 10 · Why a node never holds an array
#
# It would be natural to let a node hold its value: `node.data = y`. Many engines do. Ours does not, in order to save
# memory. An intermediate array then stays in memory exactly as long as some gradient function mentions it. `add`
# mentions nothing. `relu` mentions its result. `mul` mentions its factors.
#
# Count the arrays that stay in memory. Compute `h = relu(h * w + b)` ten times on maps of 256×256. Which of the
# thirty arrays remain after the forward pass, and which after the backward pass?


# %%
def chain(hold):
    """The intermediates alive after the forward pass, and after backward. `hold`: nodes keep values."""
    w, b = (minifcn.Parameter(xp.full((1, 1), value)) for value in (0.9, 0.1))
    h = minifcn.Tensor(xp.asarray(np.random.default_rng(SEED).random((256, 256))))
    steps = {"mul": lambda h: h * w, "add": lambda h: h + b, "relu": minifcn.ops.relu}
    born, kept = [], []
    for name in [*steps] * 10:
        h = steps[name](h)
        born.append((name, weakref.ref(h.data)))  # a weak reference does not keep an array alive
        if hold:
            kept.append((h.node, h.data))
    loss = h.mean()
    del h
    alive = [[name for name, array in born if array() is not None]]
    loss.backward()
    alive.append([name for name, array in born if array() is not None])
    return alive


survivors = {"a node holds its value": chain(hold=True), "minifcn": chain(hold=False)}
assert [len(now) for now in survivors["a node holds its value"]] == [30, 30]
assert survivors["minifcn"] == [["relu"] * 10, []]
pictures.survivors(survivors, ("mul", "add", "relu"))

# %% [markdown]
# Ten of thirty remain after the forward pass, and none after the backward pass. No gradient needed `h * w` and `h +
# b`, so they were freed before the next line ran.
#
# Two more things follow. The first: a gradient that is not needed is never kept, so a weight that is not trained costs
# no memory. Here a trained layer is followed by a second one, which is trained or frozen (a constant).

# %%
h = xp.asarray(rng.standard_normal((100, 50)))
w1, w2 = (xp.asarray(rng.standard_normal((50, 50))) for _ in range(2))
trained = graph(minifcn.Tensor(h) @ minifcn.Parameter(w1) @ minifcn.Parameter(w2))
frozen = graph(minifcn.Tensor(h) @ minifcn.Parameter(w1) @ w2)
print(f"both trained: {trained.nbytes} bytes remembered; the second one frozen: {frozen.nbytes}")
assert trained.nbytes == frozen.nbytes + h.nbytes  # for grad_w of the second layer: what came into it

# %% [markdown]
# The second: a graph can be used for one backward pass only. Another pass would find nothing, so minifcn raises an
# error.

# %%
w = minifcn.Parameter(xp.ones(3))
loss = (w * w).sum()
loss.backward()
why = refusal(loss.backward)
print(why)
assert why.startswith("backward has already been through this graph")

# %% [markdown]
# ### Exercise 3: which arrays are remembered?
#
# Let `a` and `c` be parameters and `b` a constant, and `L = relu(a * b + c).sum()`. Which arrays does the graph of
# `L` remember? Answer with a set of names out of `"a"`, `"b"`, `"c"`, `"a * b"`, `"a * b + c"`, `"relu"` (the result
# of relu). Consider first which gradients are needed. (Afterwards, `print(graph(...))` shows it.)

# %%
answer = ...
n01.check_remembered(answer)

# %% tags=["solution"] jupyter={"source_hidden": true}
# a's gradient is gy * b. b needs no gradient, so a is not remembered; add remembers nothing, relu its result.
a, c = (minifcn.Parameter(xp.ones((2, 2))) for _ in range(2))
b = xp.ones((2, 2))
assert graph(minifcn.ops.relu(a * b + c).sum()).nbytes == 2 * b.nbytes  # two arrays
assert n01.check_remembered.accepts({"b", "relu"})

# %% [markdown]
# ## 11 · The gradient of a sum is the sum of the gradients
#
# Section 3 of the paper: if the loss is a sum over the cells of the last layer, $\ell(x; \theta) = \sum_{ij}
# \ell'(x_{ij}; \theta)$, then its gradient is the sum of the gradients of the cells. So a whole image is a batch of
# all its receptive fields, and one backward pass handles them all. Here are the four quarters of our plane, each with
# its own backward pass, and the whole plane with one: the gradient at the second layer of weights.

# %%
quarter = xp.asarray(((rows > 0) * 2 + (columns > 0)).reshape(-1, 1))


def gradient_of_w2(mask):
    """The gradient at w2 of the squared error, summed over the points of the mask."""
    weights = [Tensor(xp.asarray(w), Node()) for w in start]
    difference = (score(weights, Tensor(points)) + Tensor(-truth)) * Tensor(mask)
    backward(mean(difference * difference * float(side**2)))
    return weights[1].node.grad


parts = [gradient_of_w2((quarter == number).astype(float)) for number in range(4)]
whole = gradient_of_w2((quarter >= 0).astype(float))
names = ["upper left", "upper right", "lower left", "lower right", "sum of the four", "whole plane"]
limit = float(abs(whole).max()) / 3  # the strongest few are cut, so that the others show
assert xp.allclose(sum(parts), whole)
shown = dict(zip(names, [*parts, sum(parts), whole], strict=True))
pictures.panels(shown, size=(8, 1.9), cmap="RdBu_r", limits=(-limit, limit))

# %% [markdown]
# ## Summary
#
# An operation is its value and one gradient function for each input. The record of a forward pass is a graph of nodes
# whose edges hold these functions; the backward pass calls each once, when all contributions to its node have
# arrived. The gradient of a product of matrices is a product with the transposed other factor; an input that was
# broadcast gets the sum over its copies. An array stays in memory only as long as a gradient function mentions it.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. In $y = x w$, which array must stay in memory so that the gradient at $x$ can be computed?
#    * (a) $x$
#    * (b) $w$
#    * (c) $y$
#
# 2. A bias $b$ of shape (5,) is added to maps of shape (8, 5). What is the gradient at $b$?
#    * (a) `gy`
#    * (b) `gy.sum(axis=0)`
#    * (c) `gy.mean(axis=0)`
#
# 3. Why does `backward` count the edges to each node before it starts?
#    * (a) to visit a node only when its gradient is complete
#    * (b) to free memory
#    * (c) to find parameters

# %%
letters = ...
n01.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n01.check_quiz.accepts("bba")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/tensor.py`: the whole engine on one page. You know all of its ideas now.
# * `minifcn/ops/arithmetic.py`: how to write an operation that broadcasts, and why its gradient sums.
# * `minifcn/graph.py`: how the table finds out what a gradient mentions.
# * Next: [02 Convolution is a matrix product](02_convolution.ipynb).
