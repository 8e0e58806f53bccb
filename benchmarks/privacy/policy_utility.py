"""UAR under the recommended policy itself: masked rounds of many sites that share the speakers out.

``configs/policy/private.yaml`` and ``configs/study/private.yaml`` as they stand, through the same orders, gates,
ledgers and masks as over a network; the source, the targets and the score are those of ``utility.py``::

    python benchmarks/privacy/policy_utility.py --source SPEECH/source --target SPEECH/calls --seeds 3

The policy's ``groups`` are the public number that every site divides its steps by, whatever number of speakers it has:
a site of a twelfth of the speakers moves a twelfth as far. ``--groups`` tries other numbers; which to take is for the
corpus ``development`` to say, whose speakers and recording place are others (``SPEECH/office``).
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from fedser_server.settings import StudySettings
from utility import Case, prepare, score, table

from fedser.adapt import Schedule, adapt, make
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator, one_thread
from fedser.config import load
from fedser.errors import FedserError
from fedser.evaluate.federate import federate
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation.data import local_data
from fedser.federation.policy import Policy

CONFIGS = Path(__file__).parents[2] / "configs"


def main() -> int:
    """Print the table; 1 where the policy as it stands keeps less than half of ordinary adaptation's gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--groups", type=int, nargs="+", help="the policy's own when left out; its row is always there")
    parser.add_argument("--epochs", type=int, default=5, help="of ordinary adaptation")
    given = parser.parse_args()
    one_thread()
    policy = load(Policy, CONFIGS / "policy" / "private.yaml")
    study = load(StudySettings, CONFIGS / "study" / "private.yaml")
    found: dict[str, list[float]] = {}
    for seed in range(given.seeds):
        case = prepare(given.source, given.target, seed)
        for name, value in rows_of(case, policy, study, given.sites, given.groups or (), given.epochs, seed):
            found.setdefault(name, []).append(value)
            sys.stderr.write(f"seed {seed}: {name} {value:.1f}\n")
            sys.stderr.flush()
    sys.stdout.write(table(found))
    kept = zip(found["source"], found["ordinary adaptation"], found[named(policy)], strict=True)
    return 0 if all(after - before >= (most - before) / 2 for before, most, after in kept) else 1


def named(policy: Policy) -> str:
    """The row of a policy."""
    return f"policy, ε = {policy.privacy.epsilon:g}, groups: {policy.privacy.groups}"


def rows_of(
    case: Case, policy: Policy, study: StudySettings, sites: int, groups: Sequence[int], epochs: int, seed: int
) -> Iterator[tuple[str, float]]:
    """Names and UAR in percent; noise, coins and masks are new in every run."""
    raw, speakers = case.target.raw, case.target.speakers
    x = SiteNormaliser.fit(raw, speakers, NormalisationSettings()).transform(raw, speakers)
    yield "source", score(case.source.model, x, case)
    for number in dict.fromkeys((policy.privacy.groups, *groups)):
        tried = policy.model_copy(update={"privacy": policy.privacy.model_copy(update={"groups": number})})
        yield named(tried), joined(case, tried, study, sites, seed)
    after = adapt(case.source.model, x, make("ecan"), Schedule(epochs=epochs, learning_rate=1e-2), seed=seed)
    yield "ordinary adaptation", score(after.model, x, case)


def joined(case: Case, policy: Policy, study: StudySettings, sites: int, seed: int) -> float:
    """UAR of the joint model of one federation; it goes to each site as it is, with the published statistics."""
    rows = shared_out(case.target.speakers, sites, seed)
    members, seen = [], torch.empty_like(case.target.raw)
    for number, own in enumerate(rows):
        data, normaliser = local_data(
            *(case.target.subset(own), case.source.model, None, NormalisationSettings(), None),
            unit=policy.privacy.unit,
            published=case.published,
        )
        seen[own] = data.x
        members.append(SiteWorld(f"site-{number}", tuple(own), data, normaliser))
    threshold = max(policy.privacy.masking.honest, 2 * sites // 3 + 1)
    settings = RoundSettings(
        rounds=study.rounds,
        personal=0,
        aggregation=study.aggregation,
        masked=study.masked,
        masking=study.masking.model_copy(update={"threshold": threshold}),
    )
    assert study.schedule is not None
    result = federate(
        *(members, case.source.model, make(study.method.name, study.method.options), study.schedule, settings, policy),
        study="utility",
        rounds=study.rounds,
        personal_steps=0,
        seed=seed,
    )
    if result.refusals:
        raise FedserError(f"Sites refused: {[refused.code for refused in result.refusals]}.", "Look at the settings.")
    model = copy.deepcopy(case.source.model)
    model.load_state_dict({**model.state_dict(), **result.tensors})
    return score(model, seen, case)


def shared_out(speakers: Sequence[str | None], sites: int, seed: int) -> list[list[int]]:
    """Rows of each site: all speakers in random order, dealt out in turn."""
    names = sorted({name or "" for name in speakers})
    order = torch.randperm(len(names), generator=generator("policy utility", "sites", seed)).tolist()
    place = {names[speaker]: number % sites for number, speaker in enumerate(order)}
    return [[row for row, name in enumerate(speakers) if place[name or ""] == site] for site in range(sites)]


if __name__ == "__main__":
    sys.exit(main())
