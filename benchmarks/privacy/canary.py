"""A canary audit of private steps: what the weights that leave tell of 1,000 units, against the claimed ε.

A canary is a speaker, or an utterance, of random features. Half of them, by fair coins, are in the site's data. The
attacker knows every canary's features, the released weights before and after each step, and the groups' key; from the
steps it takes the noised sums, and from all canaries' gradients at the same weights who was drawn: the best linear
estimate, beside the noise and the other canaries' coins. How much likelier a canary that is in makes the estimates of
all steps is its score; where each step draws a share of the units alone (Poisson sampling), one that was never drawn is
like one that is out. The guesses become a lower bound on ε of 95 % confidence (Steinke, Nasr and Jagielski 2023,
"Privacy auditing with one training run", theorem 5.2: valid for canaries of one run whose coins are thrown one by one,
whatever the attacker computes). A claim below the bound would be false; without noise the bound must be above it::

    python benchmarks/privacy/canary.py --unit speaker --rate 0.25 --steps 40

An utterance is alone in its group here, and so moves the sum by half the clip at most.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.adapt import Method, Schedule, make
from fedser.adapt.method import Gradient
from fedser.compute import generator, one_thread
from fedser.models import EmotionClassifier, ModelSettings, initialise
from fedser.privacy.accountant import noise_for
from fedser.privacy.audit_epsilon import one_run_lower_bound
from fedser.privacy.group_features import GroupUnit
from fedser.privacy.group_losses import gradients_of
from fedser.privacy.group_optimiser import MARGIN
from fedser.privacy.group_steps import GroupSettings, PrivateSteps
from fedser.privacy.groups import Groups, bucket, views
from fedser.privacy.randomness import bernoulli, random_bytes

CLASSES = ("anger", "fear", "happiness", "neutral", "sadness")
WIDTH = 32
EACH = {"speaker": 4, "utterance": 1}  # utterances of a canary
SIZE = 4  # utterances of a group in a step
CLIP = 0.05  # shorter than a canary's gradient
DELTA = 1e-5
EXACT = 1e-3  # in clips: released weights are float32, and even without noise a step is known to so much only
#: Without noise on the features and without momentum, a step is the noised sum times a public number.
SCHEDULE = Schedule(learning_rate=1.0, momentum=0.0, weight_decay=0.0, decay=0.0, input_noise=0.0)


def main() -> int:
    """Audit each claim, and steps without noise; 1 where a bound is above its claim, or the control is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", choices=tuple(EACH), default="speaker")
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
        bound = audit(given.canaries, given.steps, given.rate, noise, given.method, given.unit)
        rows.append({"claim": claim, "noise": round(noise, 3), "bound": round(bound, 3)})
        sys.stderr.write(f"{rows[-1]}\n")
    bare = audit(given.canaries, given.steps, given.rate, 0.0, given.method, given.unit)
    sys.stdout.write(json.dumps({"audits": rows, "without noise": round(bare, 3), **vars(given)}) + "\n")
    return 0 if all(row["bound"] <= row["claim"] for row in rows) and bare > max(given.claims) else 1


def audit(
    canaries: int,
    steps: int,
    rate: float,
    noise: float,
    method: str = "ecan",
    unit: GroupUnit = "speaker",
    sure: float = 0.95,
    delta: float = DELTA,
) -> float:
    """The lower bound on ε from one run of private steps."""
    model = EmotionClassifier(ModelSettings(hidden=48, depth=1, bottleneck=24, norm="layer"), (WIDTH,), CLASSES)
    initialise(model, generator("canary", "weights"))
    each, key, together = EACH[unit], random_bytes(32), unit == "utterance"
    x = 3 * torch.randn(canaries * each, WIDTH, generator=generator("canary", "features"))
    settings = GroupSettings(
        clip=CLIP, noise=noise, rate=rate, groups=4 * canaries, size=SIZE, together=together, trained="all"
    )
    units = [name for name in apart(canaries, settings.groups, key) for _ in range(each)]
    included = bernoulli(0.5, canaries)
    inside = np.flatnonzero(np.repeat(included, each))
    loss = make(method)
    run = PrivateSteps(model, x[inside], [units[row] for row in inside], loss, SCHEDULE, settings, key=key)
    everyone, scores = Groups.of(units, settings.groups, key, together=together), np.zeros(canaries)
    for step in range(steps):
        gradients = clipped(run, x, everyone, loss, step, steps)
        before = flat(run)
        run.step(step, steps)
        summed = (before - flat(run)) * rate * settings.groups  # the public learning rate is 1, the normaliser known
        scores += evidence(gradients.numpy(), summed.numpy(), max(noise, EXACT) * CLIP, rate)
    return one_run_lower_bound(scores, included, delta, sure)


def apart(canaries: int, groups: int, key: bytes) -> list[str]:
    """Names of canaries that the keyed hash puts into a group each."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < canaries:
        found.setdefault(bucket(f"canary-{number}", groups, key), f"canary-{number}")
        number += 1
    return list(found.values())


def evidence(
    gradients: NDArray[np.float64], summed: NDArray[np.float64], std: float, rate: float
) -> NDArray[np.float64]:
    """How much likelier one step's sum [P] is where a canary is in, log [M], given all canaries' gradients [M, P].

    A canary is drawn with probability p = rate / 2. Of z, drawn or not, the sum gives the best linear estimate, which
    lies around p + a (z - p) with the variance a·v; what one that is in makes likelier is the mixture over its coin.
    """
    p = rate / 2
    prior = p * (1 - p)
    error = np.linalg.inv(gradients @ gradients.T / std**2 + np.eye(len(gradients)) / prior)
    moved = error @ (gradients @ (summed - p * gradients.sum(axis=0))) / std**2
    v = np.diag(error)
    drawn = (moved - (1 - v / prior) * (1 - 2 * p) / 2) / v
    return np.logaddexp(np.log1p(-rate), np.log(rate) + drawn) if rate < 1 else drawn


def flat(run: PrivateSteps) -> Tensor:
    """The trained parameters, float64 [P]."""
    return torch.cat([run.model.get_parameter(name).detach().double().flatten() for name in run.names])


def clipped(run: PrivateSteps, x: Tensor, groups: Groups, method: Method, step: int, steps: int) -> Tensor:
    """Every canary's clipped gradient at the released weights, float64 [M, P]: the attacker computes them itself."""
    assert isinstance(method, Gradient)
    everyone = groups.drawn(np.ones(len(groups.units), dtype=bool))
    made = views(x, groups, everyone, SIZE, SCHEDULE.input_noise, step)
    found = gradients_of(run.model, method, tuple(run.names))(made, step / steps)
    rows = torch.cat([each.flatten(1) for each in found.values()], dim=1).double()
    longest = (1 - MARGIN) * groups.radius(CLIP)
    return rows * (longest / rows.norm(dim=1, keepdim=True).clamp_min(longest))


if __name__ == "__main__":
    sys.exit(main())
