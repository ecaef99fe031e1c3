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
# # 03 · Is my gradient right?
#
# A wrong gradient raises no error. The net still trains, a little worse than it should, and the cause is hard to
# find. So every gradient in minifcn is compared with a method that does not use its formula.
#
# Afterwards you can
#
# * compute a gradient by differences, and say which step is the right one, and why in float64;
# * plant faults that a check with an all-ones gradient cannot see, and say which faults these are;
# * check a net with many thousand parameters in two evaluations;
# * say what happens at a tie, where there is no derivative.
#
# **The paper.** All of it is trained "by dense feedforward computation and backpropagation" (section 1), and section
# 3.3 builds its upsampling by reversing the forward and backward passes of convolution. Both need the backward pass
# right.
#
# **Before you begin.** You need notebook 01, and of notebook 02 what a convolution is. Reading takes about half an
# hour, reading and all exercises together 60 minutes.

# %% tags=["varies"]
import inspect

import numpy as np
import pictures
from exercises import n03

from minifcn import ops, viz
from minifcn.backend import rng as random_numbers
from minifcn.backend import to_host, xp_of, xp_on
from minifcn.errors import GradientError, ShapeError
from minifcn.gradcheck import differences, gradcheck, gradcheck_along
from minifcn.introspect.detective import investigate
from minifcn.introspect.planted import planted
from minifcn.kernels.threads import threads
from minifcn.models.fcn import FCN8s
from minifcn.nn import Module, Sequential
from minifcn.tensor import Node, Parameter, Tensor

SEED = 0
DEVICE = "cpu"  # or "gpu"
xp = xp_on(DEVICE)  # NumPy; on a GPU it is CuPy
rng = random_numbers(SEED)
print(f"device {DEVICE}, {threads()} threads")


def normal(*shape):
    """Random numbers in float64, drawn on the host."""
    return xp.asarray(rng.standard_normal(shape))


def side_of(error):
    """The side of the tolerance on which an error lies. Its digits are rounding, and differ between machines."""
    return f"{'below' if error < 1e-6 else 'above'} 1e-6"


# %% [markdown]
# ## 1 · Move one number a little
#
# The derivative says how fast the output changes when the input does. So move the input and measure, to one side or
# to both:
#
# $$ \frac{f(x + \varepsilon) - f(x)}{\varepsilon} \qquad\qquad
#    \frac{f(x + \varepsilon) - f(x - \varepsilon)}{2 \varepsilon} $$
#
# How small should the step be? Take a loss whose derivative is known: the cross entropy of a pixel with three scores.
# Its derivative with respect to score 0, where class 2 is true, is the probability of class 0. Try every step from 1
# down to $10^{-14}$, on fifty pixels, and take the root mean square of the errors.

# %% tags=["varies"]
scores = rng.standard_normal((50, 3))
exact = np.exp(scores[:, 0]) / np.exp(scores).sum(axis=1)


def losses(eps, dtype):
    """The loss of each pixel when its score 0 is moved by eps."""
    moved = xp.asarray(scores.astype(dtype) + np.array([eps, 0, 0], dtype))
    return -to_host(ops.log_softmax(moved).data)[:, 2]


def off(up, down, way):
    """The root mean square error of (up - down) / way."""
    return float(np.sqrt(np.mean(((up - down).astype(np.float64) / way - exact) ** 2)))


steps = 10.0 ** np.arange(0, -14.5, -0.5)
one_side = [off(losses(eps, np.float64), losses(0, np.float64), eps) for eps in steps]
both_sides = [off(losses(eps, np.float64), losses(-eps, np.float64), 2 * eps) for eps in steps]
in_float32 = [off(losses(eps, np.float32), losses(-eps, np.float32), 2 * eps) for eps in steps]

pictures.lines(
    {
        "one side, float64": (steps, one_side),
        "both sides, float64": (steps, both_sides),
        "both sides, float32": (steps, in_float32),
    },
    size=(7.5, 3.6),
    styles=("o-",),
    colours=(pictures.INK, pictures.ACCENT, pictures.SECOND),
    xscale="log",
    yscale="log",
    xlabel="step ε",
    ylabel="error of the derivative",
    ylim=(1e-14, 10),
)

# %% [markdown]
# Each line is a valley. On the right side the step is too long, and the curve bends away from the straight line: the
# error falls with $\varepsilon$ for one side, and with $\varepsilon^2$ for both, since the terms that are even in
# $\varepsilon$ cancel. On the left side the step is too short: $f(x+\varepsilon)$ and $f(x-\varepsilon)$ agree in
# almost all digits, and the difference keeps the rounding $u$ of the rest.
#
# $$ \text{error} \approx \frac{\varepsilon^2}{6} |f'''| + \frac{u\,|f|}{\varepsilon}
#    \qquad\Rightarrow\qquad \varepsilon \sim \sqrt[3]{u}, \quad \text{error} \sim u^{2/3} $$
#
# With $u \approx 10^{-16}$ that is a step of about $10^{-5}$, the one that `gradcheck` takes, and an error of about
# $10^{-11}$. One side alone is never better than $10^{-9}$. In float32, where $u \approx 10^{-7}$, even the best step,
# about $10^{-2}$, leaves an error above $10^{-6}$, and with a step of $10^{-5}$ it is above a thousandth: a formula
# that is wrong by a thousandth looks right.

# %%
best = {name: min(errors) for name, errors in (("one", one_side), ("both", both_sides), ("float32", in_float32))}
at = {step: 2 * step for step in range(15)}  # the place of 10**-step among the steps
print(f"cube root of u: {np.finfo(np.float64).eps ** (1 / 3):.0e}")
print(f"at a step of 1e-5: both sides {side_of(both_sides[at[5]])}, in float32 {side_of(in_float32[at[5]])}")
assert 80 < one_side[at[1]] / one_side[at[3]] < 120  # falls with the step: a hundredth of it, a hundredth of the error
assert 8e3 < both_sides[at[1]] / both_sides[at[3]] < 1.2e4  # falls with its square
assert 1e-12 < best["both"] <= both_sides[at[5]] < 1e-10 and 1e-9 < best["one"] < 1e-7
assert 1e-6 < best["float32"] < 1e-4 and 1e-3 < steps[np.argmin(in_float32)] < 1e-1 and in_float32[at[5]] > 1e-3
assert inspect.signature(gradcheck).parameters["eps"].default == 1e-5

# %% [markdown]
# So `gradcheck` refuses numbers in float32.

# %%
refused = False
try:
    gradcheck(ops.relu, xp.array([1.0, -2.0], dtype="float32"))
except ShapeError as refusal:
    print("refused:", refusal)
    refused = True
assert refused

# %% [markdown]
# ### Exercise 1: the slopes of a whole array
#
# Write `slopes(function, x, eps)`: for a function from an array to a number, the central difference for each element
# of `x`, as an array of its shape.

# %%
slopes = ...  # instead of this line: def slopes(function, x, eps): ...
n03.check_slopes(slopes)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(function, x, eps):
    found = np.empty_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += eps
        down[at] -= eps
        found[at] = (function(up) - function(down)) / (2 * eps)
    return found


assert n03.check_slopes.accepts(solution)

# %% [markdown]
# ## 2 · From one number to an op
#
# An op returns an array, and a difference needs a number. So multiply the outputs with numbers $v$ and add them up.
# What the op's gradient function returns for $v$ must then be the slope of that sum, element by element:
#
# $$ \frac{\partial}{\partial x_i} \sum_j v_j\, y_j(x) = \big(\texttt{grad\_x}(v)\big)_i $$
#
# This is the core of `minifcn/gradcheck.py`. (With the slopes it returns two more numbers for each element: the size of
# what was added up, which an error is divided by, and how much of it can be rounding, which is no error.)

# %%
print(inspect.getsource(differences))

# %% [markdown]
# `gradcheck` does this for every input. Try it on a convolution: all three gradients, every element. It returns the
# largest relative error, and raises `GradientError` above $10^{-6}$.

# %%
image, w, b = (normal(*shape) for shape in ((2, 3, 6, 7), (4, 3, 3, 3), (4,)))
error = gradcheck(ops.conv2d, image, w, b, stride=2, padding=1)
print(f"{image.size + w.size + b.size} numbers checked, largest error {side_of(error)}")
assert error < 1e-8 and inspect.signature(gradcheck).parameters["tolerance"].default == 1e-6

# %% [markdown]
# ## 3 · Why an all-ones check is blind
#
# Which $v$? The quick choice is ones: add up all outputs. Here is a check that takes any $v$, a softmax, and `fraud`,
# a softmax with a wrong backward pass that returns zeros. Which of the two does the check accept, with ones and with
# random numbers?


# %%
def largest_error(op, x, v):
    """Of the first gradient of a plain function `op(x) -> y, (grad_x,)`, by differences with weights v."""
    y, (grad_x, *_) = op(x)
    found = to_host(grad_x(v))
    weighed = n03.central(lambda moved: float((op(xp.asarray(moved))[0] * v).sum()), to_host(x), 1e-5)
    assert y.shape == v.shape and found.shape == x.shape
    return float(np.abs(found - weighed).max())


def softmax(x):
    xp = xp_of(x)
    y = xp.exp(x - x.max(axis=-1, keepdims=True))
    y = y / y.sum(axis=-1, keepdims=True)

    def grad_x(gy):
        return y * (gy - (gy * y).sum(axis=-1, keepdims=True))

    return y, (grad_x,)


def fraud(x):
    y, _ = softmax(x)
    return y, (lambda gy: 0 * gy,)  # as if no input mattered


x, ones, v = normal(4, 5), xp.ones((4, 5)), normal(4, 5)
for name, each in (("ones", ones), ("random", v)):
    errors = [side_of(largest_error(function, x, each)) for function in (softmax, fraud)]
    print(f"{name:>8}: softmax {errors[0]}, fraud {errors[1]}")
assert largest_error(fraud, x, ones) < 1e-9
assert largest_error(fraud, x, v) > 0.01 and largest_error(softmax, x, v) < 1e-9

# %% [markdown]
# With ones `fraud` passes: a softmax adds up to 1 whatever its input, so the slope of the sum *is* zero. To see what
# a check detects, draw the Jacobian $J_{ji} = \partial y_j / \partial x_i$. A gradient function computes $v^T J$, a
# weighted sum of its rows. Ones give the column sums, and nothing else of $J$.


# %%
def jacobian(op, x):
    y, (grad_x, *_) = op(x)
    return np.stack([to_host(grad_x(row.reshape(y.shape))).ravel() for row in map(xp.asarray, np.eye(y.size))])


one_pixel = x[:1]
true, false = jacobian(softmax, one_pixel), jacobian(fraud, one_pixel)
assert np.abs(true.sum(axis=0)).max() < 1e-12 < 0.1 < np.abs(true - false).max()
shown = {  # below each Jacobian its column sums
    name: np.vstack([matrix, np.full(5, np.nan), matrix.sum(axis=0)])
    for name, matrix in (("softmax: J, and its column sums", true), ("fraud", false))
}
pictures.panels(shown, size=(7.5, 3.6), cmap="RdBu_r", limits=(-0.45, 0.45), numbers="{:.2f}")

# %% [markdown]
# The two matrices differ and have the same column sums. Other faults of this kind mix up the *places* of the output
# gradient: ones look the same when moved, mirrored or transposed. So take library ops, break their gradients in this
# way, and try both checks.
#
# (An op of the library takes Tensors. The plain function behind it, which takes arrays and returns `y, (grad_x, ...)`
# as in notebook 01, is in its attribute `__wrapped__`: that is where Python's decorators keep the function that they
# wrap.)


# %%
def broken(op, fault, *others, **options):
    """The op with a backward pass that damages gy before it uses it."""

    def function(x):
        y, (grad_x, *_) = op.__wrapped__(x, *others, **options)
        return y, (lambda gy: grad_x(fault(gy)),)

    return function


def moved(gy):
    return xp_of(gy).roll(gy, 1, axis=-1)


def mirrored(gy):
    return gy[..., ::-1].copy()


def transposed(gy):
    return gy.swapaxes(-1, -2).copy()


def right(gy):
    return gy


def a_hundredth_more(gy):
    return 1.01 * gy


square = xp.asarray(rng.permutation(36).reshape(1, 1, 6, 6) / 10)
kernel = normal(2, 1, 3, 3)
suspects = {
    "softmax: zeros": (fraud, x),
    "conv2d: gy mirrored": (broken(ops.conv2d, mirrored, kernel, None), square),
    "conv2d: gy moved": (broken(ops.conv2d, moved, kernel, None, padding=1), square),
    "max_pool2d: gy transposed": (broken(ops.max_pool2d, transposed, kernel_size=2), square),
    "bilinear_upsample: gy mirrored": (broken(ops.bilinear_upsample, mirrored, kernel_size=4, stride=2), square),
    "conv2d: 1 % too large": (broken(ops.conv2d, a_hundredth_more, kernel, None), square),
    "conv2d: right": (broken(ops.conv2d, right, kernel, None), square),
}
table = {}
for name, (op, at) in suspects.items():
    shape = op(at)[0].shape
    table[name] = [largest_error(op, at, v) for v in (xp.ones(shape), normal(*shape))]

pictures.pairs_of_errors(table)

# %% [markdown]
# A check with ones finds none of the first five faults. A check with random numbers finds them all: for a given fault,
# the $v$ that hide it form a thin set (a plane in the space of all $v$), and the chance that a random one lies there is
# zero. Ones *do* detect a wrong size, such as one per cent too much.

# %%
blind_to = [name for name, (ones, random) in table.items() if ones < 1e-6 < random]
assert blind_to == list(suspects)[:5]
assert all(random > 1e-3 for name, (_, random) in table.items() if name != "conv2d: right")
assert max(table["conv2d: right"]) < 1e-8 and table["conv2d: 1 % too large"][0] > 1e-6
print("ones do not see:", ", ".join(blind_to))

# %% [markdown]
# ### Exercise 2: find the fault
#
# `n03.SUSPECTS` holds four convolutions, "A" to "D". Each takes `x` (1, 1, 6, 6) and `w` (1, 1, 3, 3) and returns `y,
# (grad_x, grad_w)`. One gradient of the eight is wrong, and a check with ones does not find it. Which one? Answer
# like `"A x"`. (For `w`, check `lambda w: (y, (grad_w,))`.)

# %%
fault = ...
n03.check_fault(fault)

# %% tags=["solution"] jupyter={"source_hidden": true}
x6, w3, v6 = normal(1, 1, 6, 6), normal(1, 1, 3, 3), normal(1, 1, 6, 6)
errors = {}
for name, suspect in n03.SUSPECTS.items():

    def in_w(w, suspect=suspect):
        y, (_, grad_w) = suspect(x6, w)
        return y, (grad_w,)

    errors[f"{name} x"] = largest_error(lambda x, suspect=suspect: suspect(x, w3), x6, v6)
    errors[f"{name} w"] = largest_error(in_w, w3, v6)
assert n03.check_fault.accepts(max(errors, key=errors.get))

# %% [markdown]
# ### Exercise 3: another blind check
#
# Ones are not the only blind choice. Find an output gradient `v` (4, 4), not all equal, with which a backward pass
# that transposes `gy` passes.

# %%
blind = ...
n03.check_blind(blind)

# %% tags=["solution"] jupyter={"source_hidden": true}
solution = np.diag([1.0, 2.0, 3.0, 4.0])  # any symmetric matrix
assert n03.check_blind.accepts(solution)

# %% [markdown]
# ## 4 · The gradient detective
#
# A check says *that* a gradient is wrong, and at which element. What is the fault? There are only so many: the kernel
# is not flipped, the stride is forgotten, the padding is not cut off, two channels are exchanged, `=` stands for
# `+=`, a mask has `>=`, a factor is missing. `investigate` in `minifcn/introspect/detective.py` measures the whole
# Jacobian by differences, computes what each of these faults *would* return, and compares. `planted()` is a library
# of twenty ops with such faults, each in code of its own. It must name all of them.

# %%
faults, cases = planted(), {}
for name, fault in faults.items():
    cases[name] = investigate(fault.function, *map(xp.asarray, fault.inputs), **fault.options)
    print(f"{name:<26}{cases[name].verdicts[fault.position]}")
assert all(fault.words in cases[name].verdicts[fault.position] for name, fault in faults.items())
assert len(faults) == 20

# %% [markdown]
# You can see some of these faults yourself. The picture shows the error of every element (left: two images below each
# other, three channels side by side), and its mean by pixel (right). A stride that is forgotten is wrong at most
# pixels. Overlaps that are overwritten are wrong inside, where windows overlap, and right in a corner, where a pixel is
# in one window alone. A wrong border is wrong in one row.

# %%
shown = {name: cases[name].errors["input 0"] for name in ("stride forgotten", "overlaps overwritten", "border wrong")}
stride, overlaps, border = (abs(errors) > 1e-6 for errors in shown.values())  # where the gradient is wrong
assert stride.shape == (2, 3, 6, 7) and stride.mean() > 0.75
assert not overlaps[..., 0, 0].any() and overlaps[..., 1:-1, 1:-1].all()
assert border[..., 0, :].all() and not border[..., 1:, :].any()
viz.show(viz.gradient_errors(shown), dpi=80)

# %% [markdown]
# For an op of your own, `gradcheck(op, x, w, picture=True)` does all of this: it draws the errors and names the likely
# fault. Here it examines a convolution whose gradient at the weights has the kernel the wrong way round.

# %% tags=["varies"]
fault = faults["kernel not flipped, at w"]
case = gradcheck(fault.function, *map(xp.asarray, fault.inputs), **fault.options, picture=True)
assert [verdict == "right" for verdict in case.verdicts.values()] == [True, False] and fault.words in case.verdicts[1]
wrong = abs(case.errors["input 1"]) > 1e-6
assert wrong.mean() > 0.8 and not wrong[..., 1, 1].any()
case

# %% [markdown]
# The tap in the middle is right: half a turn leaves it where it is. The sentence is a guess from a list of suspects and
# no proof: for a fault that is not on the list it says so.
#
# ## 5 · A whole net: one direction
#
# Element by element, a check needs two evaluations for each number. FCN-8s is the net that this course leads to
# (notebook 08); all that matters here is that even a very thin one has more than a hundred thousand parameters.

# %%
net = FCN8s(classes=3, width=2, layers=11, dropout=0, seed=SEED).to(DEVICE).astype(np.float64)
photo = normal(1, 3, 40, 40)
labels = xp.asarray(rng.integers(0, 3, (1, 40, 40)))
for name, parameter in net.named_parameters():
    if name.startswith("score"):  # score layers start at zero, which would hide the gradients behind them
        parameter.data = 0.1 * normal(*parameter.shape)
parameters = list(net.parameters())
count = sum(parameter.size for parameter in parameters)
print(f"{count:,} parameters: {2 * count:,} evaluations")
assert 100_000 < count == 126_597

# %% [markdown]
# So move *all* parameters at once, along one random direction $u$. The slope of the loss along it is a single number,
# and the chain rule says what it is:
#
# $$ \frac{L(\theta + \varepsilon u) - L(\theta - \varepsilon u)}{2\varepsilon} = \langle \nabla L, u \rangle $$
#
# This needs two evaluations, however large the net.


# %%
def loss():
    return ops.softmax_cross_entropy(net(photo), labels)


error = gradcheck_along(loss, parameters, seed=SEED)
print(f"relative error along a random direction: {side_of(error)}")
assert error < 1e-6

# %% [markdown]
# Is one number enough? Hide a layer in the net, after its third block, that passes its values on unchanged, but whose
# gradient is one per cent too large. Then compare the two slopes along twelve directions, with the fault and without.
#
# (The layer makes its own node of the graph. A `Node` of the library is that of notebook 01 with a name and a shape;
# its edges are triples: the parent, the gradient function, and the parent's version, a number that changes when a
# weight is changed.)


# %%
class Fault(Module):
    """Forward, it does nothing. Backward, it multiplies by `factor`."""

    factor = 1.0

    def forward(self, x):
        return Tensor(x.data, Node("fault", x.shape, ((x.node, lambda gy: self.factor * gy, x.node.version),)))


hidden, x = Fault(), Parameter(xp.array([1.0, 2.0]))
hidden.factor = 1.01
y = hidden(x)
y.backward(xp.ones(2))
print("values", y.data, "gradient", x.grad)
assert (y.data == x.data).all() and x.grad.tolist() == [1.01, 1.01]
net.trunk.block3 = Sequential(block=net.trunk.block3, fault=hidden)

# %% [markdown]
# Each point below is one direction. The line is the tolerance.


# %% tags=["varies"]
def two_slopes(seed, eps):
    """<gradient, u> and the difference along u."""
    directions = random_numbers(seed)
    us = [xp.asarray(directions.standard_normal(p.shape)) for p in parameters]
    loss().backward()
    by_gradient = sum(float((p.grad * u).sum()) for p, u in zip(parameters, us, strict=True))
    before, values = [p.data for p in parameters], []
    for step in (eps, -eps):
        for p, data, u in zip(parameters, before, us, strict=True):
            p.data = data + step * u
        values.append(loss().item())
    for p, data in zip(parameters, before, strict=True):
        p.data = data
        p.zero_grad()
    return by_gradient, (values[0] - values[1]) / (2 * eps)


apart = {}
for name, factor in (("as it is", 1.0), ("1 % too large at pool3", 1.01)):
    hidden.factor = factor
    pairs = np.array([two_slopes(seed, eps=1e-7) for seed in range(12)])
    apart[name] = np.abs(pairs[:, 0] / pairs[:, 1] - 1)
assert [int((each > 1e-6).sum()) for each in apart.values()] == [0, 12]
pictures.directions(apart)

# %% [markdown]
# All twelve directions detect it. So one is enough, and `gradcheck_along` takes one.

# %% tags=["varies"]
found = False
try:
    gradcheck_along(loss, parameters, seed=SEED)
except GradientError as caught:
    print("caught:", caught)
    found = True
hidden.factor = 1.0
assert found and gradcheck_along(loss, parameters, seed=SEED) < 1e-6

# %% [markdown]
# One direction cannot show *where* the fault is. And a fault in a single weight moves the slope by very little. How
# many of the 126,597 weights could have a gradient that is wrong by one per cent, alone, without being noticed?

# %%
u = random_numbers(SEED)
loss().backward()
parts = np.concatenate([(to_host(p.grad) * u.standard_normal(p.shape)).ravel() for p in parameters])
for p in parameters:
    p.zero_grad()
unseen = (abs(0.01 * parts) < 1e-6 * abs(parts.sum())).mean()
print(f"{100 * unseen:.0f} % of the weights")
assert unseen > 0.5

# %% [markdown]
# Most of them. So minifcn does both: it checks every op element by element, on small inputs, and the whole net along a
# direction.

# %% [markdown]
# ## 6 · Ties, where there is no derivative
#
# A ReLU has a kink at 0, and a max pool has one wherever two pixels of a window share the maximum. The slope to the
# right of the kink differs from the slope to the left. The difference takes their mean; the op has to choose one.

# %%
line = np.linspace(-1, 1, 81)
_, (grad_x,) = ops.relu.__wrapped__(xp.asarray(line))
by_formula = to_host(grad_x(xp.ones(81)))
by_differences = np.array([(max(a + 0.1, 0) - max(a - 0.1, 0)) / 0.2 for a in line])
assert by_formula[40] == 0 and abs(by_differences[40] - 0.5) < 1e-12
unlike = abs(by_formula - by_differences) > 1e-9
assert unlike[abs(line) < 0.09].all() and not unlike[abs(line) > 0.11].any()
pictures.lines(
    {"the op's gradient": (line, by_formula), "differences, ε = 0.1": (line, by_differences)},
    size=(7, 2.6),
    stairs=("the op's gradient",),
    xlabel="x",
    ylabel="slope of max(x, 0)",
)

# %% [markdown]
# Within $\varepsilon$ of the kink, the two disagree even if the formula is right. Now take a max pool over a window
# of four equal pixels. A pixel that grows raises the maximum; one that shrinks changes nothing. By differences, each
# has the slope 1/2, and the four together 2; but if all four grow at once, the maximum grows just as fast, with slope
# 1. The op gives 1 to the first of them, row by row.

# %%
flat = xp.full((1, 1, 2, 2), 3.0)
_, (grad_x,) = ops.max_pool2d.__wrapped__(flat, kernel_size=2)
by_op = grad_x(xp.ones((1, 1, 1, 1)))[0, 0]
print("the op:\n", by_op)


def pooled(pixels):
    return float(ops.max_pool2d(xp.asarray(pixels), kernel_size=2).data.sum())


halves = n03.central(pooled, to_host(flat), 1e-5)
print("differences:\n", np.round(halves[0, 0], 6))
assert by_op.tolist() == [[1, 0], [0, 0]]
together = (pooled(to_host(flat) + 1e-5) - pooled(to_host(flat) - 1e-5)) / 2e-5
assert np.allclose(halves, 0.5) and abs(halves.sum() - 2) < 1e-9 and abs(together - 1) < 1e-9

# %% [markdown]
# `gradcheck` reports this as a fault, at the second of the four pixels. (Its `gy` is random, so the slope that it
# measures is not 1/2 but half of that number.)

# %%
refused = False
try:
    gradcheck(ops.max_pool2d, flat, kernel_size=2)
except GradientError as caught:
    print("gradcheck:", caught)
    refused = True
assert refused

# %% [markdown]
# So a check that fails at a tie shows a fault of the inputs. Give `gradcheck` numbers that are all different, and
# further apart than the step. Then it checks a max pool like any other op. (A photograph is full of ties: sky, and
# the zeros behind a ReLU. There any choice works, as long as a window's gradient goes to one pixel, once.)

# %%
apart = xp.asarray(rng.permutation(72).reshape(1, 2, 6, 6) / 10)
error = gradcheck(ops.max_pool2d, apart, kernel_size=3, stride=2, ceil_mode=True)
print(f"largest error {side_of(error)}")
assert error < 1e-6

# %% [markdown]
# A whole net has kinks everywhere, and no choice of inputs avoids all of them. So the step along a direction was
# short, $10^{-7}$. With a step ten times as long, for some directions a ReLU or a pool switches on the way. Then the
# differences are off by about a thousandth, although every formula is right.

# %%
crossed = {}
for eps in (1e-7, 1e-6):
    pairs = np.array([two_slopes(seed, eps) for seed in range(12)])
    apart = np.abs(pairs[:, 0] / pairs[:, 1] - 1)
    crossed[eps] = int((apart > 1e-6).sum())
    print(f"step {eps:.0e}: {crossed[eps]} of 12 directions meet a kink")
assert crossed[1e-7] == 0 < crossed[1e-6] < 12 and 1e-4 < apart.max() < 1e-2

# %% [markdown]
# A step that is too short has its own fault, as the first picture showed. If a net fails the check, try a shorter
# step and another direction before you look for a fault: a kink disappears, a wrong gradient remains.
#
# ### Exercise 4: inputs without ties
#
# Write `inputs(shape, gap)`: float64 numbers of both signs, in random order, any two of them at least `gap` apart,
# and all at least `gap` away from 0.

# %%
inputs = ...  # instead of this line: def inputs(shape, gap): ...
n03.check_inputs(inputs)


# %% tags=["solution"] jupyter={"source_hidden": true}
def solution(shape, gap):
    count = int(np.prod(shape))
    steps = np.arange(count) - count // 2  # ..., -2, -1, 0, 1, ...: all different
    steps = np.where(steps >= 0, steps + 1, steps)  # and none of them 0
    return np.random.default_rng(0).permutation(gap * steps).reshape(shape)


assert n03.check_inputs.accepts(solution)

# %% [markdown]
# ## Summary
#
# Central differences in float64 check a gradient without its formula; the step is about the cube root of the
# rounding. The output gradient must be random, because ones hide faults. A whole net is checked along one direction.
# At a tie or a kink there is no derivative, so the inputs must avoid them. A detective compares a wrong gradient with
# those that known faults would make.
#
# ### Quiz
#
# Answer with three letters, such as `"abc"`.
#
# 1. Which check finds that a backward pass mirrors `gy`?
#    * (a) one with `gy` of ones
#    * (b) one with random `gy`
#    * (c) both
#
# 2. A gradient at the weights agrees with the differences after it is turned by half a turn. What is likely?
#    * (a) the kernel is not flipped
#    * (b) the stride is forgotten
#    * (c) a factor is wrong
#
# 3. A check of a max pool fails at pixels that are equal. What do you do?
#    * (a) correct the gradient
#    * (b) raise the tolerance
#    * (c) take inputs without ties

# %%
letters = ...
n03.check_quiz(letters)

# %% tags=["solution"] jupyter={"source_hidden": true}
assert n03.check_quiz.accepts("bac")

# %% [markdown]
# ## Where to read on
#
# * `minifcn/gradcheck.py`: `gradcheck` and `gradcheck_along`, a page each.
# * `tests/op_cases.py` and `tests/ops/test_ops.py`: inputs for every op, and five faults planted in each of its
#   gradients, all of which must be found.
# * `minifcn/introspect/detective.py`: the suspects; `minifcn/introspect/planted.py`: ops with their faults.
# * `minifcn/ops/pool.py`: how the first of equal pixels is found.
# * Next: [04 Pools, receptive fields, and why the padding is 100](04_receptive_fields.ipynb).
