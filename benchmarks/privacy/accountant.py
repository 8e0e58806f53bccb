"""ε against an independent accountant, on random schedules of releases.

python benchmarks/privacy/accountant.py [--schedules 200] [--seed 0]

Sampled (continuous) schedules: the privacy loss accountant of dp-accounting, which is tight. Discrete schedules: its
Rényi accountant with a finer grid of orders than fedser's, and, since Rényi bounds are not tight, its privacy loss
accountant of the continuous Gaussian beside it. One JSON object on stdout; exit code 1 where a bar is not met.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence

import dp_accounting
import numpy as np
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from fedser.privacy.accountant import LARGEST, Accountant, Charge

DELTAS = (-8.0, -5.0)
FINE = list(1 + np.geomspace(1e-3, 1e5, 10_001))


def schedules(count: int, seed: int, *, discrete: bool) -> list[tuple[list[Charge], float]]:
    """Random series of one to four kinds of release, and a δ each; ε comes out between 0.01 and ``LARGEST``."""
    draw = np.random.default_rng([seed, int(discrete)])
    found: list[tuple[list[Charge], float]] = []
    while len(found) < count:
        charges = [
            Charge(
                noise=float(math.exp(draw.uniform(math.log(0.6), math.log(30)))),
                rate=1.0 if discrete else float(math.exp(draw.uniform(math.log(1e-3), 0))),
                steps=int(math.exp(draw.uniform(0, math.log(200 if discrete else 3000)))),
            )
            for _ in range(draw.integers(1, 5))
        ]
        delta = float(10 ** draw.uniform(*DELTAS))
        if 0.01 <= Accountant(discrete=discrete, charges=charges).epsilon(delta) <= LARGEST:
            found.append((charges, delta))
    return found


def events(charges: Sequence[Charge]) -> dp_accounting.DpEvent:
    """The same series in dp-accounting's words."""
    return dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
                if rate < 1
                else dp_accounting.GaussianDpEvent(noise),
                steps,
            )
            for noise, rate, steps in charges
        ]
    )


def tight(charges: Sequence[Charge], delta: float) -> float:
    """ε by dp-accounting's privacy loss distributions."""
    return float(PLDAccountant().compose(events(charges)).get_epsilon(delta))


def renyi(charges: Sequence[Charge], delta: float) -> float:
    """ε by dp-accounting's Rényi accountant, on a fine grid of orders."""
    return float(RdpAccountant(orders=FINE).compose(events(charges)).get_epsilon(delta))


def within(own: float, other: float) -> bool:
    """The bar: never below, and above by at most max(1 %, 0.015)."""
    return other <= own <= other + max(0.01 * other, 0.015)


def main() -> int:
    """Compare, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    told: dict[str, object] = {"schedules": arguments.schedules, "seed": arguments.seed}
    good = True
    for name, discrete, other in (("sampled", False, tight), ("discrete", True, renyi)):
        begin, rows = time.monotonic(), []
        for charges, delta in schedules(arguments.schedules, arguments.seed, discrete=discrete):
            own = Accountant(discrete=discrete, charges=charges).epsilon(delta)
            rows.append((own, other(charges, delta), tight(charges, delta) if discrete else math.nan))
        kept = [within(own, theirs) for own, theirs, _ in rows]
        good &= all(kept)
        told[name] = {
            "within_the_bar": sum(kept),
            "least_above": min(own - theirs for own, theirs, _ in rows),
            "most_above": max(own - theirs for own, theirs, _ in rows),
            "most_above_share": max((own - theirs) / theirs for own, theirs, _ in rows if theirs > 1.5),
            "epsilons": [min(own for own, _, _ in rows), max(own for own, _, _ in rows)],
            "seconds": round(time.monotonic() - begin, 1),
        }
        if discrete:
            shares = sorted((own - best) / best for own, _, best in rows)
            told["discrete_beside_the_tight_continuous"] = {
                "below": sum(own < best for own, _, best in rows),
                "median_share_above": shares[len(shares) // 2],
                "most_share_above": shares[-1],
            }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
