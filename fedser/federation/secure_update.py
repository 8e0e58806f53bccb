"""The integers that a site puts under its masks: clipped, on the study's public grid, noised as its policy wants it.

The order of steps is clip → grid → noise → modulus → mask, and all of it happens here and at the site: under a mask
nobody else could shorten or noise anything.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedser.federation.layout import elements
from fedser.federation.policy import Policy
from fedser.federation.schema import Masked, Order
from fedser.privacy.masking import has_room
from fedser.privacy.site_unit import noised, on_grid

TAIL = 12.0  # standard deviations: a normal value lies beyond with a chance below 1e-32
LARGEST = 2**31  # of one value in grid steps, so that squares of a vector sum up exactly


def fits(order: Order, policy: Policy, std: float) -> bool:
    """Whether the sum of an order's masked updates is the same modulo its power of two, if all are as this site's.

    Args:
        order: the order; one without masks always fits.
        policy: the site's.
        std: of the noise that is added to each value, in grid steps.
    """
    if order.masking is None:
        return True
    terms, sites = order.masking.terms, len(order.masking.senders)
    largest = clip_of(policy, order.masking) * 2.0**terms.grid + math.sqrt(elements(order.layout)) + TAIL * std
    return largest < LARGEST and has_room(terms.modulus, sites, largest)


def integers(flat: Tensor, policy: Policy, masked: Masked, std: float) -> NDArray[np.int64]:
    """An update as whole grid steps, int64 [P]: of an L2 norm of the clip and what rounding adds, before noise.

    Args:
        flat: the change, float32 [P]; whatever is not finite counts as zeros.
        policy: the site's.
        masked: of the order.
        std: of the noise, in grid steps; 0 for none.
    """
    steps = on_grid(flat, clip_of(policy, masked), 2.0**-masked.terms.grid)
    return noised(steps, std) if std else steps


def clip_of(policy: Policy, masked: Masked) -> float:
    """The L2 norm to which this site shortens its update: its own policy's, or the sum's where that is smaller."""
    own = policy.privacy.clip if policy.privacy.unit == "site" else policy.clip
    return min(own, masked.terms.clip)
