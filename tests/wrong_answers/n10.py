"""Answers to the exercises of notebook 10 that a student might give, and that are wrong."""

WRONG = {
    "majority": [
        lambda share, classes: (share, share),
        lambda share, classes: (share, 1 / classes),
        lambda share, classes: (1 / classes, share / classes),
        0.7,
    ],
    "poly": [
        lambda step, steps, lr: lr * (1 - step / steps),
        lambda step, steps, lr: lr * (1 - (step / steps) ** 0.9),
        lambda step, steps, lr: lr * (1 - (step + 1) / steps) ** 0.9,
        lambda step, steps, lr: lr * (1 - step / (steps - 1)) ** 0.9,
        lambda step, steps, lr: (lr * (1 - step / steps)) ** 0.9,
        lambda step, steps, lr: lr,
    ],
    "mean_rate": [
        lambda rate, pixels, momentum: rate * pixels * (1 - momentum),
        lambda rate, pixels, momentum: rate * pixels,
        lambda rate, pixels, momentum: rate / pixels / (1 - momentum),
        lambda rate, pixels, momentum: rate / (1 - momentum),
        lambda rate, pixels, momentum: rate * pixels * (1 + momentum),
        0.002,
    ],
}
