"""Networks. A trunk is a classifier without its last layer; the FCN puts scores and upsampling on any trunk.

Read the files in this order; each imports only those before it.
"""

FILES = (
    "trunk",
    "classifier",
    "lenet",
    "alexnet",
    "vgg",
    "googlenet",
    "squeezenet",
    "context",
    "ladder",
    "fcn",
    "paper",
    "upsampling",
    "dilated",
)
