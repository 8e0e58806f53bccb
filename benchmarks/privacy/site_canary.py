"""A canary audit of the site unit: what the releases of a site are seen to leak, against the claimed ε.

python benchmarks/privacy/site_canary.py [--canaries 10000] [--releases 5] [--values 16] [--claims 1 2 4]

A canary is a site whose updates all have the longest norm that the clip lets through, in one direction that the
attacker knows; without it, zeros stand in their place. Each is released as often as the budget was made for, and the
attacker adds up how far the releases lie in that direction: for Gaussian noise no other test is stronger. The bound is
of independent runs (``fedser/privacy/audit_epsilon.py``), at 95 %. Controls: a fifth of the noise, and none.
One JSON object on stdout; exit code 1 where a bound is above its claim, or a control is not found out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.privacy import site_unit
from fedser.privacy.accountant import epsilon_of, noise_for
from fedser.privacy.audit_epsilon import epsilon_lower_bound

CLIP, DELTA = 1.0, 1e-5
Release = Callable[[Tensor], Tensor]


def scores(count: int, releases: int, values: int, length: float, release: Release) -> NDArray[np.float64]:
    """The attacker's score of ``count`` sites whose updates have the norm ``length``."""
    direction = torch.ones(values) / values**0.5
    update = length * direction
    return np.array([sum(float(release(update) @ direction) for _ in range(releases)) for _ in range(count)])


def audit(count: int, releases: int, values: int, release: Release) -> float:
    """The lower bound on ε from half of the canaries in, half of them out."""
    inside = scores(count // 2, releases, values, 10 * CLIP, release)  # clipped to CLIP by the release itself
    outside = scores(count // 2, releases, values, 0.0, release)
    return epsilon_lower_bound(inside, outside, DELTA)


def plain(update: Tensor) -> Tensor:
    """A release whose noise was forgotten."""
    grid = site_unit.grid_of(CLIP, len(update))
    return torch.from_numpy(site_unit.on_grid(update, CLIP, grid) * grid).float()


def main() -> int:
    """Audit each claim, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--canaries", type=int, default=10_000)
    parser.add_argument("--releases", type=int, default=5)
    parser.add_argument("--values", type=int, default=16)
    parser.add_argument("--claims", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    given = parser.parse_args()
    rows, good = [], True
    for claim in given.claims:
        begin = time.monotonic()
        noise = noise_for(claim, DELTA, 1.0, given.releases, discrete=True)
        shape = (given.canaries, given.releases, given.values)
        bound = audit(*shape, lambda update, noise=noise: site_unit.released(update, CLIP, noise))  # type: ignore[misc]
        weak = audit(*shape, lambda update, noise=noise: site_unit.released(update, CLIP, noise / 5))  # type: ignore[misc]
        none = audit(*shape, plain)
        good &= bound <= claim < min(weak, none)
        rows.append(
            {
                "claim": claim,
                "noise": round(noise, 4),
                "bound": round(bound, 3),
                "bound_at_a_fifth_of_the_noise": round(weak, 3),
                "true_at_a_fifth": round(epsilon_of(noise / 5, 1.0, given.releases, DELTA, discrete=True), 2),
                "bound_without_noise": round(none, 3),
                "seconds": round(time.monotonic() - begin, 1),
            }
        )
    told = {"canaries": given.canaries, "releases": given.releases, "delta": DELTA, "confidence": 0.95, "claims": rows}
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
