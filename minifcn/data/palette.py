"""The colours in which mask files show their classes: PASCAL VOC's, made by rule."""

import numpy as np


def palette(count: int = 256) -> np.ndarray:
    """Return the colours PASCAL VOC gives its classes, (count, 3) uint8 RGB, by rule and not by table.

    Write the class number in binary and deal its bits out in turn to red, green and blue, filling each colour from
    its highest bit down: bit 0 becomes red's bit 7, bit 1 green's, bit 2 blue's, bit 3 red's bit 6, and so on. Classes
    that follow each other therefore differ in a high bit, which the eye sees, and 255 (void) comes out near white.
    """
    index = np.arange(count)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = index >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours
