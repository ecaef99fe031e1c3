"""Solutions of notebook 04."""


def out_size(size, kernel, stride, padding, ceil):
    free = size + 2 * padding - kernel  # how far the window can move
    count = free // stride + 1
    if ceil and free % stride:
        count += 1  # one more, which hangs over the end
        if (count - 1) * stride >= size + padding:
            count -= 1  # it would begin in the padding
    return count


def compose(outer, inner):
    (k, s), (k2, s2) = outer, inner
    return k2 + (k - 1) * s2, s * s2


vgg19 = 404 + 2 * (4 + 8 + 16)  # one more window of 3 in each of block3, block4 and block5

padding = 65  # ceil((H + 2P - 2) / 32) >= 5 at H = 1: 2P - 1 >= 4 * 32 + 1
