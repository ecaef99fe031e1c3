"""Notebook 02, convolution is a matrix product: do you know which pixel meets which weight?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifcn.kernels.im2col import Windows

from . import Verdict, exercise, number, quiz, right, wrong


@exercise
def check_outputs(answer: Callable[[int, int, int, int, int], int]) -> Verdict:
    """`answer(size, kernel, stride, padding, dilation)`: windows that fit into a row of `size` pixels."""
    for size, kernel, stride, padding, dilation in (
        (7, 3, 1, 0, 1),
        (7, 3, 1, 1, 1),
        (7, 3, 2, 0, 1),
        (8, 3, 2, 0, 1),
        (9, 3, 1, 0, 2),
        (500, 3, 1, 100, 1),
        (27, 5, 4, 3, 2),
    ):
        g = Windows((kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
        wanted, found = g.out_size((size, 1))[0], number(answer(size, kernel, stride, padding, dilation))
        if found != wanted:
            hint = (
                f"with dilation {dilation} the kernel reaches over {g.span[0]} pixels"
                if dilation > 1
                else "padding is added at both ends"
                if padding and found == Windows((kernel, 1), (stride, 1), (padding, 0)).out_size((size - padding, 1))[0]
                else "put the first window at the left edge, then count the steps that still fit"
            )
            return wrong(
                f"size {size}, kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation} has "
                f"{wanted} outputs, you say {found}: {hint}"
            )
    return right("floor((size + 2 padding - span) / stride) + 1, and the + 1 is the first window")


@exercise
def check_grad_x(answer: Callable[[np.ndarray, np.ndarray, tuple[int, int], int], np.ndarray]) -> Verdict:
    """`answer(gy, w, size, stride)`: the gradient at an image of one channel."""
    rng = np.random.default_rng(3)
    for size, kernel, stride in (((3, 3), (3, 3), 1), ((6, 5), (3, 2), 1), ((7, 7), (3, 3), 2), ((8, 6), (2, 3), 3)):
        w = rng.standard_normal(kernel)
        out = [(n - k) // stride + 1 for n, k in zip(size, kernel, strict=True)]
        gy = rng.standard_normal(out)
        wanted, overwritten, flipped = np.zeros(size), np.zeros(size), np.zeros(size)
        for i, j in np.ndindex(*out):
            window = slice(i * stride, i * stride + kernel[0]), slice(j * stride, j * stride + kernel[1])
            wanted[window] += w * gy[i, j]
            overwritten[window] = w * gy[i, j]
            flipped[window] += w[::-1, ::-1] * gy[i, j]
        found = answer(gy.copy(), w.copy(), size, stride)
        case = f"for an image of {size[0]}x{size[1]}, a kernel of {kernel[0]}x{kernel[1]} and stride {stride}"
        if np.shape(found) != size:
            return wrong(f"{case} the gradient has the image's shape, yours has {np.shape(found)}")
        if np.allclose(found, wanted):
            continue
        if np.allclose(found, overwritten):
            return wrong("a pixel in several windows gets a part from each, and the parts add up: += and not =")
        if np.allclose(found, flipped):
            return wrong(
                "your kernel lies the wrong way round: output (i, j) sees pixel (i s + u, j s + v) through w[u, v]"
            )
        return wrong(f"{case} some pixels get another gradient; begin with the forward line and turn it round")
    return right("each output sends its gradient to the pixels it saw, through the weights it saw them with")


def forward(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """y of one channel, stride 1, padding 1, for a kernel of 3x3: as large as x."""
    padded = np.pad(x, 1)
    y = np.zeros(x.shape)
    for u, v in np.ndindex(3, 3):
        y += w[u, v] * padded[u : u + x.shape[0], v : v + x.shape[1]]
    return y


def _suspect_a(gy: np.ndarray, w: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return forward(gy, w)


def _suspect_b(gy: np.ndarray, w: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    gx = forward(gy, w[::-1, ::-1])
    gx[0] += w[0] @ gy[0, :3]
    return gx


def _suspect_c(gy: np.ndarray, w: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return forward(gy, w[::-1, ::-1])


suspects = {"A": _suspect_a, "B": _suspect_b, "C": _suspect_c}


@exercise
def check_adjoint(answer: str) -> Verdict:
    """Which of the suspects is the adjoint of `forward`."""
    answer = "".join(filter(str.isalpha, answer)).upper() if isinstance(answer, str) else answer
    if not isinstance(answer, str) or answer not in suspects:
        return wrong(f"expected one of the letters {', '.join(suspects)}, found {answer!r}")
    rng = np.random.default_rng(4)
    x, w, gy = (rng.standard_normal(shape) for shape in ((5, 6), (3, 3), (5, 6)))
    there, back = (forward(x, w) * gy).sum(), (x * suspects[answer](gy, w, x.shape)).sum()
    if not np.isclose(there, back):
        return wrong(f"for random x, w and gy, <y, gy> is {there:.3f} and <x, {answer}> is {back:.3f}: not an adjoint")
    return right("a convolution again, with the kernel turned by half a turn")


check_quiz = quiz(
    "c: 32 + 2 * 2 - 5 + 1",
    "a: 2 * (3 - 1) + 1 = 5 a side",
    "c: a pixel in two windows gets two parts, which add up",
)
