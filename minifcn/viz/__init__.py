"""Every picture that the library draws, from class colours to receptive fields.

colours.py   labels become colours (NumPy alone)
panels.py    colours become panels with captions and a legend (Pillow): galleries, the ladder of figure 4
plots.py     numbers become plots (matplotlib): curves, confusion, benchmarks
heat.py      score maps laid over the image they came from
fields.py    receptive fields on the photograph, padding included
inside.py    what is inside a net: feature maps, filters, the flow and the errors of gradients

Pictures are (H, W, 3) uint8 RGB arrays and plots are matplotlib figures; `png` and `figure_png` turn either into the
bytes of a file, `show` puts either into a notebook. Void, the pixels without a label, is always white with a hatch, in
pictures and legends alike, so that it is never mistaken for a class.
"""

from minifcn.data.palette import palette
from minifcn.data.sample import VOID
from minifcn.viz.colours import ACCENT, FAINT, INK, SECOND, colourize, overlay
from minifcn.viz.fields import field_box, receptive_fields
from minifcn.viz.heat import heat_map, heat_maps
from minifcn.viz.inside import feature_maps, gradient_errors, gradient_flow, kernels
from minifcn.viz.panels import gallery, ladder, legend, png, triptych
from minifcn.viz.plots import confusion_picture, curves, figure_png, log_log, show

__all__ = [
    "ACCENT",
    "FAINT",
    "INK",
    "SECOND",
    "VOID",
    "colourize",
    "confusion_picture",
    "curves",
    "feature_maps",
    "field_box",
    "figure_png",
    "gallery",
    "gradient_errors",
    "gradient_flow",
    "heat_map",
    "heat_maps",
    "kernels",
    "ladder",
    "legend",
    "log_log",
    "overlay",
    "palette",
    "png",
    "receptive_fields",
    "show",
    "triptych",
]

FILES = ("colours", "panels", "plots", "heat", "fields", "inside")
