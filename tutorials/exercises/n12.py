"""Notebook 12: making it fast."""

import numpy as np

from minifcn.experiments.bench.studies import Layer
from minifcn.kernels.convolution import correlate
from minifcn.kernels.im2col import Windows, im2col

from . import exercise, number, quiz, right, wrong


def bytes_of_columns(channels, height, width, kernel, padding):
    """The bytes of all columns of one float32 image, with stride 1."""
    out = Windows((kernel, kernel), padding=(padding, padding)).out_size((height, width))
    return 4 * channels * kernel**2 * out[0] * out[1]


def times_fewer(m, r):
    """How many times fewer multiplications F(m x m, r x r) has than the definition."""
    return (m * r / (m + r - 1)) ** 2


@exercise
def check_taps(answer):
    """`answer(x, w)`: the correlation of x (I, H, W) with w (O, I, kh, kw), no padding, one product for each tap."""
    rng = np.random.default_rng(11)
    for i, o, h, w, kh, kw in ((1, 1, 5, 5, 3, 3), (3, 4, 6, 7, 3, 3), (2, 5, 8, 9, 1, 2), (4, 2, 5, 5, 5, 5)):
        x, weights = rng.normal(size=(i, h, w)), rng.normal(size=(o, i, kh, kw))
        expected = correlate(x[None], weights, Windows((kh, kw)))[0]
        found = np.asarray(answer(x.copy(), weights.copy()))
        case = f"{i} to {o} channels, image {h}x{w}, kernel {kh}x{kw}"
        if found.shape != expected.shape:
            return wrong(f"{case}: your output is {found.shape}; expected {expected.shape}, one for each window")
        if np.allclose(found, expected):
            continue
        if np.allclose(found, correlate(x[None], weights[:, :, ::-1, ::-1], Windows((kh, kw)))[0]):
            return wrong(f"{case}: your kernel is turned around; tap (0, 0) sees the upper left pixel of the window")
        last = np.einsum("oi,ihw->ohw", weights[:, :, -1, -1], x[:, kh - 1 :, kw - 1 :])
        if np.allclose(found, last):
            return wrong(f"{case}: only the last tap is left; every tap's product is added to those before")
        return wrong(f"{case}: the largest error is {abs(found - expected).max():.2g}")
    return right("a convolution is kh*kw products of matrices, each on an image shifted by one tap")


@exercise
def check_column_bytes(answer):
    """`answer(channels, height, width, kernel, padding)`: bytes of all columns of one float32 image, stride 1."""
    for channels, height, width, kernel, padding in ((3, 8, 8, 3, 1), (2, 9, 7, 3, 0), (1, 6, 6, 1, 2)):
        g = Windows((kernel, kernel), padding=(padding, padding))
        expected = im2col(np.zeros((1, channels, height, width), np.float32), g).nbytes
        found = number(answer(channels, height, width, kernel, padding))
        case = f"{channels} channels of {height}x{width}, kernel {kernel}x{kernel}, padding {padding}"
        if found == expected:
            continue
        if 4 * found == expected:
            return wrong(f"{case}: {found} is the number of pixels; a float32 has 4 bytes")
        if found == 4 * channels * height * width * kernel**2:
            return wrong(f"{case}: you count a window for each pixel of the image; count the pixels of the output")
        if found * channels == expected:
            return wrong(f"{case}: a window looks at all channels, and copies kernel*kernel pixels of each")
        return wrong(f"{case}: you say {found}; the library's columns have {expected} bytes")
    return right("kernel*kernel copies of the image: what makes im2col fast makes it large")


@exercise
def check_intensity(answer):
    """`answer(inputs, outputs, size, kernel)`: multiply-adds per byte, stride 1, the output as large as the image."""
    for inputs, outputs, size, kernel in ((64, 64, 56, 3), (3, 64, 224, 3), (512, 512, 7, 1), (8, 16, 20, 5)):
        layer = Layer("", inputs, outputs, size, kernel, kernel // 2)
        expected = layer.multiply_adds / layer.least_bytes(1)
        found = number(answer(inputs, outputs, size, kernel))
        case = f"{inputs} to {outputs} channels, {size}x{size}, kernel {kernel}x{kernel}"
        images = 4 * size**2 * (inputs + outputs)
        hints = {
            "the weights have to be read, too": layer.multiply_adds / images,
            "that is by number; a float32 has 4 bytes": 4 * expected,
            "a multiply-add is one here; you counted it as two operations": 2 * expected,
            "the output has to be written, too":
                layer.multiply_adds / (layer.least_bytes(1) - 4 * outputs * size**2),
            "every output looks at all input channels": expected / inputs,
        }  # fmt: skip
        if np.isclose(found, expected, rtol=1e-6):
            continue
        for hint, value in hints.items():
            if np.isclose(found, value, rtol=1e-6):
                return wrong(f"{case}: {found:.2f} multiply-adds per byte; {hint}")
        return wrong(f"{case}: you say {found:.2f} multiply-adds per byte; expected {expected:.2f}")
    return right("work by traffic: large kernels and many channels use each byte often")


@exercise
def check_saving(answer):
    """`answer(m, r)`: how many times fewer multiplications F(m x m, r x r) has than the definition."""
    for m, r in ((4, 3), (2, 3), (6, 3), (1, 5), (4, 1)):
        expected = times_fewer(m, r)
        found = number(answer(m, r))
        case = f"F({m}x{m}, {r}x{r})"
        if np.isclose(found, expected):
            continue
        if np.isclose(found, expected**0.5) and expected != 1:
            return wrong(f"{case}: {found:.3g} is the saving of one row; rows and columns both save")
        if np.isclose(found, 1 / expected):
            return wrong(f"{case}: {found:.3g} is the part that is left; how many times fewer is that?")
        if np.isclose(found, (m * r / (m + r)) ** 2):
            return wrong(f"{case}: {m} outputs of a window of {r} look at {m + r - 1} pixels, not {m + r}")
        if np.isclose(found, (m + r - 1) ** 2):
            return wrong(f"{case}: {found:.3g} is the number of multiplications that are left")
        return wrong(f"{case}: you say {found:.3g}; {m}*{m} outputs need {m * m * r * r} multiplications by definition")
    return right("36 multiplications where there were 144, for F(4x4, 3x3)")


check_quiz = quiz(
    {
        "a": "(2 * 3 / 4)^2",
        "b": "that is F(4x4, 3x3); here 4 outputs take 16 multiplications instead of 36",
        "c": "9 is the number of multiplications for each output by definition; Winograd needs 4 of them",
    },
    {
        "c": "one copy for each weight",
        "a": "3 is one side of the kernel; every one of its taps sees the whole image",
        "b": "the kernel has 3 * 3 taps, not 3 + 3",
    },
    {
        "b": "the transforms lose a digit",
        "a": "it saves as many multiplications in float64",
        "c": "it has: im2col uses it",
    },
)
