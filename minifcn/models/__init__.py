"""The networks: trunks, the ladder of skips and the nets of the paper.

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
    "efficientnet",
    "context",
    "ladder",
    "fcn",
    "paper",
    "resnet",
    "tiling",
    "upsampling",
    "dilated",
    "zoo",
)
