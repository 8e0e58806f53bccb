"""A canary audit of private steps: what the weights that leave tell of 1,000 units, against the claimed ε.

A canary is a speaker of random features. Half of them, by fair coins, are in the site's data. The
attacker knows every canary's features, the released weights before and after each step, and the groups' key; from the
steps it takes the noised sums, and from all canaries' gradients at the same weights the best linear estimate of who is
in (of the noise, and of the other canaries' coins). Its guesses become a lower bound on ε of 95 % confidence (Steinke,
Nasr and Jagielski 2023, "Privacy auditing with one training run"). A claim below the bound would be false; without
noise the bound must be above every claim::

    python benchmarks/privacy/canary.py --canaries 1000
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch
from torch import Tensor

from fedser.adapt import Method, Schedule, make
from fedser.adapt.method import Gradient
from fedser.compute import generator, one_thread
from fedser.models import EmotionClassifier, ModelSettings, initialise
from fedser.privacy.accountant import noise_for
from fedser.privacy.audit_epsilon import one_run_lower_bound
from fedser.privacy.group_losses import gradients_of
from fedser.privacy.group_optimiser import MARGIN
from fedser.privacy.group_steps import GroupSettings, PrivateSteps
from fedser.privacy.groups import Groups, views
from fedser.privacy.randomness import bernoulli, random_bytes

CLASSES = ("anger", "fear", "happiness", "neutral", "sadness")
WIDTH = 32
EACH = 4  # utterances of a canary speaker
DELTA = 1e-5
#: Without noise on the features and without momentum, a step is the noised sum times a public number.
SCHEDULE = Schedule(learning_rate=1.0, momentum=0.0, weight_decay=0.0, decay=0.0, input_noise=0.0)


def main() -> int:
    """Audit each claim, and steps without noise; 1 where a bound is above its claim, or the control is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--method", default="ecan")
    parser.add_argument("--claims", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    given = parser.parse_args()
    one_thread()
    rows = []
    for claim in given.claims:
        noise = noise_for(claim, DELTA, given.rate, given.steps)
        bound = audit(given.canaries, given.steps, given.rate, noise, given.method)
        rows.append({"claim": claim, "noise": round(noise, 3), "bound": round(bound, 3)})
    bare = audit(given.canaries, given.steps, given.rate, 0.0, given.method)
    sys.stdout.write(json.dumps({"audits": rows, "without noise": round(bare, 3), **vars(given)}) + "\n")
    return 0 if all(row["bound"] <= row["claim"] for row in rows) and bare > max(given.claims) else 1


def audit(
    canaries: int,
    steps: int,
    rate: float,
    noise: float,
    method: str = "ecan",
    sure: float = 0.95,
    delta: float = DELTA,
) -> float:
    """The lower bound on ε from one run of private steps."""
    model = EmotionClassifier(ModelSettings(hidden=48, depth=1, bottleneck=24, norm="layer"), (WIDTH,), CLASSES)
    initialise(model, generator("canary", "weights"))
    x = 3 * torch.randn(canaries * EACH, WIDTH, generator=generator("canary", "features"))
    units = [f"canary-{row // EACH}" for row in range(len(x))]
    included = bernoulli(0.5, canaries)
    inside = np.flatnonzero(np.repeat(included, EACH))
    settings = GroupSettings(noise=noise, rate=rate, groups=canaries, size=EACH, trained="all")
    loss, key = make(method), random_bytes(32)
    run = PrivateSteps(model, x[inside], [units[row] for row in inside], loss, SCHEDULE, settings, key=key)
    precision, evidence = np.zeros((canaries, canaries)), np.zeros(canaries)
    for step in range(steps):
        gradients = clipped(run, x, Groups.of(units, canaries, key, together=False), loss, step, steps)
        before = flat(run)
        run.step(step, steps)
        summed = (before - flat(run)) * rate * canaries  # the public learning rate is 1, the public normaliser known
        # Released weights are float32: even without noise a step is known to a millionth only.
        width = max(noise, 1e-4) ** 2
        precision += (rate**2 * gradients @ gradients.T / width).numpy()
        evidence += (rate * gradients @ (summed - rate * gradients.sum(dim=0) / 2) / width).numpy()
    estimate = np.linalg.solve(precision + 4 * np.eye(canaries), evidence)  # a fair coin has the variance 1/4
    return one_run_lower_bound(estimate, included, delta, sure)


def flat(run: PrivateSteps) -> Tensor:
    """The trained parameters, float64 [P]."""
    return torch.cat([run.model.get_parameter(name).detach().double().flatten() for name in run.names])


def clipped(run: PrivateSteps, x: Tensor, groups: Groups, method: Method, step: int, steps: int) -> Tensor:
    """Every canary's clipped gradient at the released weights, float64 [M, P]: the attacker computes them itself."""
    assert isinstance(method, Gradient)
    everyone = groups.drawn(np.ones(len(groups.units), dtype=bool))
    made = views(x, groups, everyone, EACH, SCHEDULE.input_noise, step)
    found = gradients_of(run.model, method, tuple(run.names))(made, step / steps)
    rows = torch.cat([each.flatten(1) for each in found.values()], dim=1).double()
    return rows * ((1 - MARGIN) / rows.norm(dim=1, keepdim=True).clamp_min(1 - MARGIN))


if __name__ == "__main__":
    sys.exit(main())
