"""How a convolution is computed: arrays in, arrays out, no gradients recorded. Read the files in this order.

im2col.py        the windows of a convolution, and the readable adjoint pair im2col / col2im
products.py      correlate, spread, weigh: the three products of a convolution over columns, in bounded memory
threads.py       a few threads that take blocks of work in turn
convolution.py   the same three for everybody to call: arguments checked, and who computes them
"""

FILES = ("im2col", "products", "threads", "convolution")
