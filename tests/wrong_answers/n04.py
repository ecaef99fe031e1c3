"""Plausible wrong answers to the exercises of notebook 04."""


def floor_always(size, kernel, stride, padding, ceil):
    return (size + 2 * padding - kernel) // stride + 1


def padding_kept(size, kernel, stride, padding, ceil):
    free = size + 2 * padding - kernel
    return (-(-free // stride) if ceil else free // stride) + 1


def always_one_more(size, kernel, stride, padding, ceil):
    return (size + 2 * padding - kernel) // stride + 1 + bool(ceil)


WRONG = {
    "out_size": [
        floor_always,
        padding_kept,
        always_one_more,
        lambda size, kernel, stride, padding, ceil: size // stride,
    ],
    "compose": [
        lambda outer, inner: (outer[0] + (inner[0] - 1) * outer[1], outer[1] * inner[1]),  # the wrong way round
        lambda outer, inner: (inner[0] + outer[0] * inner[1], outer[1] * inner[1]),  # a stride too many
        lambda outer, inner: (inner[0] + (outer[0] - 1) * inner[1], outer[1] + inner[1]),  # strides added
        lambda outer, inner: (inner[0] + outer[0] - 1, outer[1] * inner[1]),  # as if the stride were 1
        lambda outer, inner: outer[0] * inner[0],  # no stride
    ],
    "vgg19": [404, 410, 432, 516, 461, 460.5],
    "padding": [97, 64, 66, 49, 100, 65.5],
}
