"""Membership inference from the published bundle: was this utterance among the source's training set?

LiRA again (Carlini et al. 2022), on source models that were each trained on a random half of a pool. No site's policy
has a part in this: what protects the training set is the recipe. The control is a recipe that learns by heart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedser.attacks.findings import Finding, Role
from fedser.attacks.membership import finding, likelihood_ratio, members
from fedser.attacks.people import People
from fedser.attacks.settings import AttackSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.evaluate.source import SourceModel, train_source
from fedser.models import ModelSettings
from fedser.train import TrainSettings

RECIPES = ("none", "default")  # learns by heart, and as ``fedser train`` does


def run(settings: AttackSettings, people: People, model: ModelSettings, rule: NormalisationSettings) -> list[Finding]:
    """Train the source models of both recipes, and attack a third of each.

    Args:
        settings: of the run.
        people: whose labelled utterances train them.
        model: what the published classifier looks like.
        rule: of normalisation.
    """
    own, bars = settings.membership, settings.bars
    rng = np.random.default_rng([settings.seed, 53])
    x, y, classes = _pool(people, own.bundle_pool, rule, rng)
    member = members(own.models, len(x), rng)
    shadow, found = own.models * 2 // 3, []
    for recipe in RECIPES:
        seen = torch.stack([_confidence(settings, recipe, model, x, y, row, classes) for row in member])
        for place, name in enumerate(("network", "linear peer")):
            score = seen[..., place]
            told = (likelihood_ratio(score[:shadow], member[:shadow], score[shadow:]), member[shadow:])
            role: Role = "figure"
            limit: float | None = None
            if recipe == "none" and name == "network":
                role, limit = "control", bars.control_membership
            elif recipe == "default" and bars.bundle is not None:
                role, limit = "bar", bars.bundle
            what = "learnt by heart" if recipe == "none" else "recipe of fedser train"
            found.append(finding("bundle", recipe, f"{what}, {name}", told, settings.seed, role, limit))
    return found


def _pool(
    people: People, size: int, rule: NormalisationSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Normalised features [M, D], labels [M] and classes of labelled utterances."""
    rows = [row for own in people.rows.values() for row in own.tolist() if people.speech.emotions[row] is not None]
    speech = people.speech.subset(rng.permutation(np.array(rows))[:size].tolist())
    classes = tuple(sorted({emotion for emotion in speech.emotions if emotion is not None}))
    x = SiteNormaliser.fit(speech.raw, speech.speakers, rule).transform(speech.raw, speech.speakers)
    return x, speech.labels(classes), classes


def _confidence(
    settings: AttackSettings,
    recipe: str,
    model: ModelSettings,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    classes: tuple[str, ...],
) -> Tensor:
    """log(p/(1 − p)) of the true class of each utterance, by the network and by the linear peer, double [M, 2]."""
    train = TrainSettings(folds=0, early_stop=False)
    if recipe == "none":
        heart: dict[str, float] = {"input_noise": 0.0, "mixup": 0.0, "label_smoothing": 0.0, "linear_share": 0.0}
        train = train.model_copy(update={**heart, "epochs": settings.membership.epochs, "weight_decay": 0.0})
        model = model.model_copy(update={"dropout": 0.0})
    seed = int(rows.long().dot(torch.arange(len(rows))))
    made = train_source(x[rows], y[rows], [None] * int(rows.sum()), classes, model, train, seed=seed, device=x.device)
    return torch.stack([_odds(logits, y) for logits in _logits(made, x)], dim=1)


@torch.no_grad()
def _logits(made: SourceModel, x: Tensor) -> list[Tensor]:
    network = made.model(x)
    return [network, network if made.linear is None else made.linear(x)]


def _odds(logits: Tensor, y: Tensor) -> Tensor:
    hot = functional.one_hot(y, logits.shape[1]).bool()
    wide = logits.double()
    return wide[hot] - wide.masked_fill(hot, -torch.inf).logsumexp(dim=1)
