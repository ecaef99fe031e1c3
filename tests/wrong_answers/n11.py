"""Answers to the exercises of notebook 11 that a student might give, and that are wrong."""

import numpy as np


def counts_void(truth, prediction, classes):
    truth = np.where(truth == 255, 0, truth)
    cell = classes * truth.astype(int) + prediction
    return np.bincount(cell.ravel(), minlength=classes**2).reshape(classes, classes)


def exchanged(truth, prediction, classes):
    known = truth != 255
    cell = classes * prediction[known].astype(int) + truth[known]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def in_uint8(truth, prediction, classes):
    known = truth != 255
    cell = (truth[known].astype(int) * classes + prediction[known]).astype(np.uint8)
    return np.bincount(cell, minlength=classes**2)[: classes**2].reshape(classes, classes)


def mean_accuracy(matrix):
    return np.nanmean(np.diag(matrix) / matrix.sum(axis=1))


def union_twice(matrix):
    return np.nanmean(np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1)))


def absent_is_zero(matrix):
    n = np.diag(matrix)
    return np.mean(n / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1) - n, 1))


def absent_is_nan(matrix):
    n = np.diag(matrix)
    return np.mean(n / (matrix.sum(axis=0) + matrix.sum(axis=1) - n))


WRONG = {
    "confusion": [counts_void, exchanged, in_uint8, lambda truth, prediction, classes: np.eye(classes)],
    "mean_iu": [
        mean_accuracy,
        union_twice,
        absent_is_zero,
        absent_is_nan,
        lambda matrix: np.trace(matrix) / matrix.sum(),
        0.5,
    ],
    "diagnosis": [
        {"A": "rate too low", "B": "healthy", "C": "too few images", "D": "rate too high"},
        {"A": "rate too high", "B": "too few images", "C": "healthy", "D": "rate too low"},
        {"A": "rate too high", "B": "healthy"},
        {"A": "rate too high", "B": "healthy", "C": "unlucky", "D": "rate too low"},
        {"A": ..., "B": ..., "C": ..., "D": ...},
        "B",
    ],
}
