"""What the guard chooses among, and everything that can be told of it without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from fedser import compute
from fedser.adapt import scores
from fedser.adapt.probabilities import outputs, probabilities
from fedser.adapt.vectors import vectors
from fedser.errors import UsageError
from fedser.models import EmotionClassifier

MOST = 1000  # utterances from which answers are predicted: their similarities are a table of MOST² numbers
NOISE = 0.5  # standard deviation of the noise of a view


@dataclass(frozen=True)
class Candidate:
    """One model that the guard may choose.

    Attributes:
        name: of the method; the first candidate is ``source``.
        model: features [B, \\*shape] to logits [B, C].
        probabilities: its answers for the site's own utterances [N, C].
        embedding: its bottleneck outputs [N, d]; None where it has none.
    """

    name: str
    model: nn.Module
    probabilities: Tensor
    embedding: Tensor | None


def candidate(
    name: str, model: nn.Module, x: Tensor, *, temperature: float = 1.0, class_mask: Tensor | None = None
) -> Candidate:
    """What the guard needs to know of a model, from one full pass over the site's utterances x [N, \\*shape]."""
    x = x.to(next(model.parameters()).device)
    mask = None if class_mask is None else class_mask.to(x.device)
    if not isinstance(model, EmotionClassifier):  # the temperature was calibrated for the classifier
        return Candidate(name, model, probabilities(model, x, 1.0, mask), None)
    return Candidate(name, model, probabilities(model, x, temperature, mask), outputs(model, x, mask)[0])


def source_of(candidates: Sequence[Candidate]) -> Candidate:
    """The source model among the candidates.

    Raises:
        UsageError: it is not there.
    """
    for each in candidates:
        if each.name == "source":
            return each
    raise UsageError("The guard was given no source model.", "Let one candidate be named source.")


@torch.no_grad()
def table(
    candidates: Sequence[Candidate], x: Tensor, *, temperature: float = 1.0, class_mask: Tensor | None = None
) -> dict[str, dict[str, float]]:
    """Label-free scores of all candidates: candidate → score → value.

    Args:
        candidates: of one site; one of them is ``source``.
        x: the site's normalised features [N, \\*shape].
        temperature, class_mask: as the candidates' probabilities were made.
    """
    source = source_of(candidates)
    x = x.to(source.probabilities.device)
    embedded = x.flatten(1) if source.embedding is None else source.embedding
    seen = vectors(x, embedded)
    rows = torch.linspace(0, len(x) - 1, min(len(x), MOST), device=x.device).round().long()
    hat = scores.ridge_hat(seen[rows])
    told = {}
    for each in candidates:
        p = each.probabilities
        others = [scores.agreement(p, other.probabilities) for other in candidates if other is not each]
        told[each.name] = {
            "predictability": scores.predictability(p[rows], hat),
            "prototype_margin": scores.prototype_margin(embedded, p),
            "neighbours": scores.neighbour_agreement(p, seen),
            "views": scores.view_agreement(p, _views(each, x, temperature, class_mask)),
            "consensus": fmean(others) if others else 1.0,
            "changed": scores.changed(p, source.probabilities),
            "balance": scores.balance(p),
            "entropy": scores.entropy(p),
            "mutual_information": scores.mutual_information(p),
            "density": scores.soft_neighbourhood_density(p),
        }
    return told


def _views(one: Candidate, x: Tensor, temperature: float, class_mask: Tensor | None) -> list[Tensor]:
    """Answers for two copies of the utterances with noise on their features."""
    draw = compute.generator("guard", "views")
    place = next(one.model.parameters()).device
    mask = None if class_mask is None else class_mask.to(place)
    noisy = [x.to(place) + NOISE * torch.randn(x.shape, generator=draw).to(place) for _ in range(2)]
    return [probabilities(one.model, copied, temperature, mask).to(x.device) for copied in noisy]
