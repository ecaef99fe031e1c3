"""Solutions of notebook 11."""

import numpy as np


def confusion(truth, prediction, classes):
    known = truth != 255
    # class numbers come as uint8, and 21 * 20 is more than 255
    cell = classes * truth[known].astype(int) + prediction[known]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def mean_iu(matrix):
    intersection = np.diag(matrix)
    union = matrix.sum(axis=1) + matrix.sum(axis=0) - intersection
    there = union > 0
    return np.mean(intersection[there] / union[there])


diagnosis = {"A": "rate too high", "B": "healthy", "C": "too few images", "D": "rate too low"}
