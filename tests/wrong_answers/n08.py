"""Plausible wrong answers to the exercises of notebook 08."""

from minifcn import ops


def centred(score, skip, w, b, at):
    score = ops.bilinear_upsample(score, kernel_size=4, stride=2)
    scored = ops.conv2d(skip, w, b)
    return score + ops.crop(scored, like=score, at=(scored.shape[2] - score.shape[2]) // 2)


def unbiased(score, skip, w, b, at):
    score = ops.bilinear_upsample(score, kernel_size=4, stride=2)
    return score + ops.crop(ops.conv2d(skip, w), like=score, at=at)


def same_size(score, skip, w, b, at):
    score = ops.bilinear_upsample(score, kernel_size=4, stride=2, padding=1)
    return score + ops.crop(ops.conv2d(skip, w, b), like=score, at=at)


def only_up(score, skip, w, b, at):
    return ops.bilinear_upsample(score, kernel_size=4, stride=2)


def subtracted(score, skip, w, b, at):
    score = ops.bilinear_upsample(score, kernel_size=4, stride=2)
    return score - ops.crop(ops.conv2d(skip, w, b), like=score, at=at)


WRONG = {
    "offset": [
        lambda score, skip: (skip.start - score.start) / skip.stride,
        lambda score, skip: score.start - skip.start,
        lambda score, skip: 5,
        lambda score, skip: 0,
    ],
    "rung": [centred, unbiased, same_size, only_up, subtracted],
    "multiplier": [
        lambda c: (c, 1),
        lambda c: (c**2, 1),
        lambda c: (c**2, c**2),
        lambda c: (1 / c, 1),
        lambda c: c**2,  # the decay is missing
    ],
    "fcn4s": [(33, 17), (17, 31), (13, 33), (9, 31), 17, (18, 34)],
}
