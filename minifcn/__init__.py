"""minifcn: Fully Convolutional Networks for Semantic Segmentation (Long, Shelhamer, Darrell), from scratch in NumPy."""

__version__ = "0.1.0"
