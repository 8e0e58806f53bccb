"""Label-free scores of a classifier's answers at one site: pure functions of tensors.

Probabilities p are [N, C] with rows that sum to 1, bottleneck outputs b are [N, d]; entropies are in nats. None of
these can see a label, and none is the truth: :mod:`fedser.adapt.guard` says which of them decide, and docs/guard.md how
well each of them follows the recall that it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedser.adapt.bank import CHUNK, Bank
from fedser.adapt.probabilities import probabilities
from fedser.models.norms import batch_norms

TINY = 1e-6  # a variance that counts as none


def entropy(p: Tensor) -> float:
    """Mean entropy of the answers, (1/N) Σ_i H(p_i), from 0 (certain) to log C."""
    return float(_entropies(p).mean())


def mutual_information(p: Tensor) -> float:
    """H(p̄) − (1/N) Σ_i H(p_i): how much the answers tell, in [0, log C] (Bridle et al., NIPS 1991)."""
    return float(_entropies(p.mean(dim=0, keepdim=True)).sum() - _entropies(p).mean())


def soft_neighbourhood_density(p: Tensor, temperature: float = 0.05) -> float:
    """How dense the neighbourhoods of the answers are (Saito et al., ICCV 2021, eqs. 1 to 3); larger is denser.

    Each row's similarities to the others (cosine of the softmax outputs) become a distribution by a softmax with a
    small temperature; the score is the mean entropy of those, in [0, log(N − 1)]. Fewer than two rows give 0.
    """
    if len(p) < 2:
        return 0.0
    unit = functional.normalize(p, dim=1)
    total = 0.0
    for rows in torch.split(torch.arange(len(p), device=p.device), CHUNK):
        similarity = unit[rows] @ unit.T / temperature
        similarity.scatter_(1, rows.unsqueeze(1), -torch.inf)
        total += float(_entropies(similarity.softmax(dim=1)).sum())
    return total / len(p)


def prototype_margin(b: Tensor, p: Tensor) -> float:
    """Mean cosine to the own answer's prototype minus that to the nearest other one, in [−2, 2].

    Prototypes are means of the bottleneck outputs of length 1 over the utterances that got the same answer. With one
    answer everywhere there is no other prototype, and the margin is 0.
    """
    answers = p.argmax(dim=1)
    seen, place = torch.unique(answers, return_inverse=True)
    if len(seen) < 2:
        return 0.0
    f = functional.normalize(b, dim=1)
    member = functional.one_hot(place, len(seen)).to(f.dtype)
    cosine = f @ functional.normalize(member.T @ f, dim=1).T
    own = cosine.gather(1, place.unsqueeze(1)).squeeze(1)
    other = cosine.masked_fill(member.bool(), -torch.inf).max(dim=1).values
    return float((own - other).mean())


def ridge_hat(vectors: Tensor, strength: float = 10.0) -> Tensor:
    """The hat matrix H [N, N] of ridge regression on centred vectors [N, D]: fitted values are H y.

    H = K (K + strength · I)⁻¹ with K the Gram matrix over the mean squared length, so that ``strength`` has the
    same meaning for any number of features.
    """
    centred = vectors.double() - vectors.double().mean(dim=0)
    gram = centred @ centred.T
    gram = gram / gram.diagonal().mean().clamp_min(TINY)
    hat: Tensor = torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), gram)
    return hat


def predictability(p: Tensor, hat: Tensor) -> float:
    """How well the answers can be predicted from the others' features and answers: leave-one-out R², at most 1.

    Ridge regression of the one-hot answers, each utterance predicted without itself; the residuals follow from the
    hat matrix as e_i / (1 − H_ii) (PRESS: Allen, Technometrics 1974). Answers that follow the recordings' structure are
    predictable, and shares count for nothing: always the same answer gives 0.

    Args:
        p: class probabilities [N, C].
        hat: :func:`ridge_hat` of the utterances' features.
    """
    answers = functional.one_hot(p.argmax(dim=1), p.shape[1]).to(hat.dtype)
    y = answers - answers.mean(dim=0)
    spread = float(y.square().sum())
    if spread < TINY:
        return 0.0
    left = (y - hat @ y) / (1 - hat.diagonal()).clamp_min(TINY).unsqueeze(1)
    return 1.0 - float(left.square().sum()) / spread


def agreement(p: Tensor, q: Tensor) -> float:
    """Share of utterances to which p and q [N, C] give the same answer."""
    return float((p.argmax(dim=1) == q.argmax(dim=1)).double().mean())


def changed(p: Tensor, source: Tensor) -> float:
    """Share of the source's answers that are others now."""
    return 1.0 - agreement(p, source)


def view_agreement(p: Tensor, views: Sequence[Tensor]) -> float:
    """Mean agreement with the answers for disturbed copies of the same utterances, each [N, C]; 1 without any."""
    return sum(agreement(p, view) for view in views) / len(views) if views else 1.0


def neighbour_agreement(p: Tensor, features: Tensor, count: int = 5) -> float:
    """Share of utterances whose nearest neighbours' mean answer is their own.

    Args:
        p: class probabilities [N, C].
        features: in whose space neighbours are sought, by cosine: [N, d].
        count: neighbours; at most N − 1 are taken. A single utterance has none, and agrees.
    """
    if len(p) < 2 or count < 1:
        return 1.0
    near = Bank(features, p).neighbours(torch.arange(len(p), device=p.device), count)
    return agreement(p, p[near].mean(dim=1))


def balance(p: Tensor) -> float:
    """Entropy of the answers' shares over that of equal shares: 1 is even, 0 one answer everywhere."""
    count = p.shape[1]
    if count < 2:
        return 1.0
    shares = functional.one_hot(p.argmax(dim=1), count).double().mean(dim=0)
    return float(_entropies(shares.unsqueeze(0))) / math.log(count)


def distance(z: Tensor) -> float:
    """How far recordings lie from the source's: the median over utterances of the median |z| of their features.

    Args:
        z: features [N, \\*shape] normalised by the *source's* statistics. The source itself has about 0.67.
    """
    return float(z.abs().flatten(1).median(dim=1).values.median())


@torch.no_grad()
def variance_shift(model: nn.Module, x: Tensor) -> float:
    """How differently the first batch normalisation's inputs vary at the site and at the source.

    The root mean square over its channels of log(σ² at the site / running σ²). Features are normalised within a
    site, so their own variances tell nothing; those of the first layer's weighted sums tell whether they go
    together as they do in the source's speech. Models without batch normalisation give 0.

    Args:
        model: the source model.
        x: normalised features [N, \\*shape].
    """
    norms = batch_norms(model)
    if not norms or len(x) < 2 or norms[0].running_var is None:
        return 0.0
    seen: list[Tensor] = []
    hook = norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].transpose(0, 1).flatten(1)))
    try:
        probabilities(model, x)
    finally:
        hook.remove()
    here = torch.cat(seen, dim=1).var(dim=1, correction=0)
    ratio = (here.clamp_min(TINY) / norms[0].running_var.clamp_min(TINY)).log()
    return math.sqrt(float(ratio.square().mean()))


def _entropies(p: Tensor) -> Tensor:
    h: Tensor = -torch.special.xlogy(p, p).sum(dim=1)
    return h
