"""A dilated trunk: finer scores without skips (FCN, sections 3.2 and 4.2).

Its last strides are taken out and the filters behind them rarefied, so the weights of the classifier still fit. The
price is paid in cells: at stride 8, the layers behind pool3 run on sixteen times as many as at stride 32.
`minifcn describe fcn-dilated` and `minifcn describe fcn8s` print both bills.
"""

from collections.abc import Callable
from typing import Any

from minifcn.models.fcn import FCN, fcn
from minifcn.models.trunk import Trunk
from minifcn.models.vgg import VGG
from minifcn.stitch import rarefy


def FCN_dilated(output_stride: int = 8, *, trunk: Callable[..., Trunk] = VGG, **options: Any) -> FCN:
    """Return an FCN without skips on a trunk rarefied to `output_stride`. Options as in `fcn`; the padding is safe.

    Its parameters have the names and shapes of the net that is not rarefied: each loads the other's.
    """

    def dilated(**trunk_options: Any) -> Any:
        return rarefy(trunk(**trunk_options), output_stride)

    return fcn(dilated, (), **options)
