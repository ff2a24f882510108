"""Crystals kept beside the golden numbers of authors' code."""

import numpy as np

from replimat.datasets.base import Structures


def stored_crystals(arrays: dict[str, np.ndarray]) -> Structures:
    """Structures from the arrays numbers [N], fractional [N, 3], cells [n, 3, 3] and offsets [n + 1]."""
    cells = np.repeat(arrays["cells"], np.diff(arrays["offsets"]), axis=0)
    positions = np.einsum("ai,aij->aj", arrays["fractional"], cells)
    return Structures(arrays["numbers"], positions, arrays["cells"], arrays["offsets"], periodic=True)
