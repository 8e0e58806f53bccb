"""One run of the attack lab: each attack on each setting, the tables, and the verdict.

``OUT/results.json``, schema 1::

    {"kind": "attack", "schema": 1, "name": str, "created": str, "versions": {..}, "command": str, "git": str | null,
     "config": {the whole configuration}, "seed": int, "seconds": float,
     "data": {"speakers": int, "utterances": int, "bundle": str},
     "policies": {setting: {the policy's privacy settings}},
     "findings": [{see fedser.attacks.findings.Finding, and "kept": true | false | null}],
     "refusals": {"attack/setting": {code: number}},
     "controls_failed": [sentence], "bars_missed": [sentence]}

Beside it ``results.csv`` (one row a finding), ``summary.md`` and ``report.html``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedser import bundle as bundles
from fedser import console
from fedser.attacks import audit, imprint, inference, membership, people, published, report
from fedser.attacks.findings import Finding, missed, sentence
from fedser.attacks.people import People
from fedser.attacks.settings import AttackSettings
from fedser.attacks.sites import Defence, Keys, defended, fresh_keys, undefended
from fedser.attacks.study import Attack, Source
from fedser.config import load
from fedser.errors import ConfigError
from fedser.federation.policy import Policy
from fedser.federation.stages import LocalData
from fedser.files import output_folder
from fedser.provenance import run_manifest


@dataclass(frozen=True)
class Lab:
    """What all attacks share.

    Attributes:
        settings: of the run.
        source: the model that the sites got.
        policies: by the setting's name.
        keys: of the run.
        known: speakers that the attacker has recordings of.
        victims: the others.
        refusals: codes of refusals by attack and setting.
    """

    settings: AttackSettings
    source: Source
    policies: dict[str, Policy]
    keys: Keys
    known: People
    victims: People
    refusals: dict[str, Counter[str]] = field(default_factory=dict)

    def findings(self, attack: str) -> Iterator[Finding]:
        """Run one attack on all settings."""
        if attack == "bundle":
            yield from published.run(self.settings, self.victims, self.source.model.settings, self.source.rule)
            return
        if attack == "audit":
            for name, policy in self.policies.items():
                if policy.privacy.on:
                    yield from audit.run(self.settings, name, policy, self.source, self.keys)
            return
        runs: dict[str, Callable[[Defence], list[Finding]]] = {
            "gender": self._gender,
            "speaker": self._speaker,
            "membership": self._membership,
            "imprint": self._imprint,
        }
        for name, policy in self.policies.items():
            defence = undefended() if name == "none" else defended(name, policy, self.keys)
            yield from runs[attack](defence)

    def _attack(self, attack: str, defence: Defence, rounds: int) -> Attack:
        own, rng = self.settings, self._rng(2)
        draws = inference.gender_sites(
            self.known, own.study.bystanders, own.inference.speakers, own.inference.utterances, 1, rng
        )
        bystanders = [self.source.site(self.known, draw.rows) for draw in draws]
        refused = self.refusals.setdefault(f"{attack}/{defence.name}", Counter())
        return Attack(own, self.source, defence, self.keys, rounds, bystanders, refused)

    def _clean(self, defence: Defence) -> Defence:
        return defended("noiseless", defence.policy, self.keys, noiseless=True)

    def _gender(self, defence: Defence) -> list[Finding]:
        own, rng, bars = self.settings.inference, self._rng(3), self.settings.bars
        size = (own.speakers, own.utterances)
        shadow = inference.gender_sites(self.known, own.shadow, *size, inference.FOLDS, rng)
        test = inference.gender_sites(self.victims, own.test, *size, 1, rng)
        attack = self._attack("gender", defence, max(own.rounds))
        told = inference.infer(attack, self._clean(defence), shadow, test, self.known, own.rounds)
        return inference.findings("gender", defence.name, told, (bars.control_gender, bars.gender), self.settings.seed)

    def _speaker(self, defence: Defence) -> list[Finding]:
        own, rng, bars = self.settings.inference, self._rng(4), self.settings.bars
        names = self.victims.named()
        rng.shuffle(names)
        known = names[: own.known]
        shadow, test = inference.speaker_sites(self.victims, known, own.shadow, own.test, own.utterances, rng)
        attack = self._attack("speaker", defence, max(own.rounds))
        told = inference.infer(attack, self._clean(defence), shadow, test, self.victims, own.rounds)
        control, bar = (None if limit is None else limit / len(known) for limit in (bars.control_speaker, bars.speaker))
        return inference.findings("speaker", defence.name, told, (control or 0.0, bar), self.settings.seed)

    def _membership(self, defence: Defence) -> list[Finding]:
        own, bars = self.settings.membership, self.settings.bars
        pool = membership.pool_of(self.victims, own.pool, self._rng(5))
        attack = self._attack("membership", defence, own.rounds)
        told = membership.infer(attack, self._clean(defence), self.victims, pool)
        where = f"{own.rounds} round{'s' if own.rounds > 1 else ''}"
        found = [
            membership.finding("membership", defence.name, f"{where}, {score}", ratios, self.settings.seed)
            for score, ratios in told.items()
        ]
        best = max(range(len(found)), key=lambda place: found[place].value)
        if defence.name == "none":
            found[best] = replace(found[best], role="control", limit=bars.control_membership)
        if defence.name == "private":
            found = [replace(one, role="bar", limit=bars.membership) for one in found]
        return found

    def _imprint(self, defence: Defence) -> list[Finding]:
        own, source, rng = self.settings.imprint, imprint.bare(self.source), self._rng(6)
        rows = rng.permutation(np.concatenate(list(self.victims.rows.values())))
        size = min(own.utterances, len(rows) // 2)
        unit = defence.policy.privacy.unit
        crowd = [source.site(self.victims, rows[:size], unit), source.site(self.victims, rows[size : 2 * size], unit)]
        others: list[LocalData] = [crowd[1]] * (defence.cohort - 1)
        known = source.site(self.known, np.concatenate(list(self.known.rows.values())), unit).x
        return imprint.Server(self.settings, source, defence, self.keys, crowd[0], others, known).run()

    def _rng(self, part: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, part])


def run(settings: AttackSettings, out: Path, *, command: str = "") -> dict[str, Any]:
    """Run the lab and write its tables.

    Args:
        settings: the whole configuration.
        out: folder for the results.
        command: the command line, for the report.

    Returns:
        What ``results.json`` holds, and ``summary`` and ``report``, paths.

    Raises:
        ConfigError: the private policy is not named.
        FedserError: data, bundle or the folder do not fit.
    """
    begin = time.perf_counter()
    output_folder(out)
    policies = policies_of(settings)
    bundle = bundles.read(settings.bundle, signer=settings.signer)
    source = Source.of(bundle)
    source = source if settings.study.dropout else imprint.bare(source)
    everybody = people.load(settings, bundle.header.features, out / "speech")
    known, victims = everybody.halves(np.random.default_rng([settings.seed, 1]))
    lab = Lab(settings, source, policies, fresh_keys(), known, victims)
    found: list[Finding] = []
    with console.progress("attacks", len(settings.attacks)) as step:
        for attack in settings.attacks:
            found += [replace(one, judge=settings.bars.judge) for one in lab.findings(attack)]
            step()
    about = run_manifest(command)
    results = {
        "kind": "attack",
        "schema": 1,
        "name": settings.name,
        "created": about["date"],
        "command": about["command"],
        "versions": {"python": about["python"], **about["versions"]},
        "git": about["git"],
        "config": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "seconds": round(time.perf_counter() - begin, 1),
        "data": {
            "speakers": len(everybody.rows),
            "utterances": sum(len(rows) for rows in everybody.rows.values()),
            "bundle": bundle.header.name,
        },
        "policies": {name: policy.privacy.model_dump(mode="json") for name, policy in policies.items()},
        "findings": [finding.row() for finding in found],
        "refusals": {name: dict(codes) for name, codes in lab.refusals.items() if codes},
        "controls_failed": [sentence(finding) for finding in missed(found, "control")],
        "bars_missed": [sentence(finding) for finding in missed(found, "bar")],
    }
    return {**results, **report.write(out, results)}


def policies_of(settings: AttackSettings) -> dict[str, Policy]:
    """The policy of each setting; the control comes first and is always there.

    Raises:
        ConfigError: the private one is to be attacked and not named, or it has no differential privacy.
    """
    found = {"none": undefended().policy}
    if "default" in settings.defences:
        found["default"] = Policy(peer=settings.study.peer.weight > 0)
    if "private" in settings.defences:
        if settings.policy is None:
            raise ConfigError("No private policy is named.", "Set policy=configs/policy/private.yaml.")
        found["private"] = load(Policy, settings.policy)
    return found
