"""The shared linear peer: how sites learn from each other's speech, and the network learns from that.

Averaging weights alone does not bring what pooled data brings: each site still finds its neighbours and
pseudo-labels among its own few speakers. The published logistic regression is convex, so that the mean of the
sites' refits comes near the refit on all data, which no site could make alone:

1. The joint peer labels the site's utterances; its answers are balanced (Cuturi 2013, Sinkhorn's iterations, to a
   prior between the site's own mean answer and the uniform one) and made hard.
2. The network adapts by its own method plus weight · CE(labels, p).
3. The network's balanced answers are the labels of the peer's refit: some steps of Nesterov's accelerated gradient
   on class-balanced cross-entropy + penalty/2 · ‖W − W_published‖², from the joint W on. Biases stay as published.
4. The change of W, [C, D], travels with the network's update and is averaged.

Self-training of two unlike classifiers on each other's labels is co-training (Blum and Mitchell 1998); averaging
local refits is federated averaging (McMahan et al. 2017) of a convex model. W is a weighted sum of the site's
feature vectors, one a class: like a class prototype it tells more of the speech than the network's inner layers
do. It leaves only where a site's policy says ``peer: true``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedser import compute
from fedser.adapt import Method, Schedule, adapt, probabilities
from fedser.adapt.class_shares import balance as scale
from fedser.adapt.method import Batch, Gradient
from fedser.config import Settings
from fedser.errors import ConfigError
from fedser.federation.layout import PEER, Layout
from fedser.federation.schema import PeerWork
from fedser.federation.settle import settle
from fedser.models import EmotionClassifier, LinearClassifier

_BALANCING = 10  # Sinkhorn's iterations
_POWER = 10  # power iterations to the largest eigenvalue
_TINY = 1e-8


class PeerSettings(Settings):
    """The linear peer that sites share.

    Attributes:
        weight: of the network's cross-entropy to the peer's labels; 0 shares no peer.
        penalty: of the peer's distance from the published one, an utterance.
        steps: of one refit.
        balance: how far the labels' class shares are pulled from the site's mean answer (0) to equal shares (1).
    """

    weight: float = Field(default=0.0, ge=0, le=100)
    penalty: float = Field(default=0.2, ge=1e-3, le=100)
    steps: int = Field(default=10, ge=1, le=1000)
    balance: float = Field(default=0.5, ge=0, le=1)

    def work(self) -> PeerWork | None:
        """What an order says of it; None where no peer is shared."""
        if not self.weight:
            return None
        return PeerWork(weight=self.weight, penalty=self.penalty, steps=self.steps, balance=self.balance)


def layout_of_peer(linear: LinearClassifier | None) -> Layout:
    """The peer's part of the layout.

    Raises:
        ConfigError: no peer is published.
    """
    if linear is None:
        raise ConfigError(
            "The peer is to be shared, and the source model comes without a linear peer.",
            "Use features that are vectors, or set peer.weight=0.",
        )
    return ((PEER, tuple(linear.weight.shape)),)


class Taught(Gradient):
    """A method with one more term: cross-entropy to the labels that the peer gave.

    Args:
        method: whose loss, schedule and parameters it keeps.
        labels: class numbers of the site's utterances, int64 [N].
        weight: of the term.
    """

    name = "taught"

    def __init__(self, method: Gradient, labels: Tensor, weight: float) -> None:
        super().__init__(method.settings)
        self._method = method
        self._labels = labels
        self._weight = weight
        self.schedule = method.schedule  # type: ignore[misc]
        self.refreshes = method.refreshes  # type: ignore[misc]
        self.minimum = method.minimum  # type: ignore[misc]

    def trainable(self, model: EmotionClassifier) -> tuple[str, ...]:
        """As the method says."""
        return self._method.trainable(model)

    def refresh(self, *seen: Tensor) -> Tensor:
        """As the method says."""
        return self._method.refresh(*seen)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The method's parts and the peer's."""
        labels = self._labels.to(batch.logits.device)[batch.index]
        return {**self._method.loss(batch), "peer": self._weight * functional.cross_entropy(batch.logits, labels)}


def labels_of(p: Tensor, balance: float) -> Tensor:
    """Hard labels of balanced answers.

    The answers are scaled by class until the classes' shares are those of the prior balance · uniform +
    (1 − balance) · mean answer (Cuturi 2013, "Sinkhorn distances").

    Args:
        p: class probabilities [N, C], exact zeros for classes that the site does not have.
        balance: see :class:`PeerSettings`.

    Returns:
        Class numbers, int64 [N].
    """
    present = (p.sum(dim=0) > 0).double()
    return scale(p.double(), present / present.sum(), balance, _BALANCING).argmax(dim=1)


def refit(weight: Tensor, published: LinearClassifier, x: Tensor, labels: Tensor, work: PeerWork) -> Tensor:
    """Some steps towards the site's own peer.

    Args:
        weight: where it starts, [C, D].
        published: the centre of the penalty; its bias is kept.
        x: normalised features [N, D].
        labels: class numbers, int64 [N].
        work: steps and penalty.

    Returns:
        The new weight, float32 [C, D], on the CPU.
    """
    x = x.detach().cpu().double()
    centre, bias = published.weight.detach().cpu().double(), published.bias.detach().cpu().double()
    wanted = functional.one_hot(labels.cpu(), len(centre)).double()
    counts = wanted.sum(dim=0)
    each = (1 / (counts * (counts > 0).sum()).clamp(min=1))[labels.cpu()]  # classes weigh alike, all together 1
    rate = 1 / (0.5 * _largest(x, each) + work.penalty)  # softmax cross-entropy curves by at most half of xᵀx
    now = ahead = weight.detach().cpu().double()
    for step in range(work.steps):
        wrong = (functional.linear(x, ahead, bias).softmax(dim=1) - wanted) * each.unsqueeze(1)
        after = ahead - rate * (wrong.T @ x + work.penalty * (ahead - centre))
        now, ahead = after, after + step / (step + 3) * (after - now)
    return now.float()


def _largest(x: Tensor, each: Tensor) -> float:
    """An upper estimate of the largest eigenvalue of Σ each · x xᵀ."""
    v = torch.randn(x.shape[1], dtype=x.dtype, generator=compute.generator("peer"))
    length = torch.zeros(())
    for _ in range(_POWER):
        v = x.T @ (each * (x @ v))
        length = v.norm()
        v = v / length.clamp(min=_TINY)
    return 1.1 * float(length)


class Together(nn.Module):
    """A network and the joint peer as one classifier: the mean of their probabilities.

    Args:
        model: features [B, D] to logits [B, C].
        published: the peer as published; its bias is kept.
        weight: the joint peer's, [C, D].
    """

    def __init__(self, model: nn.Module, published: LinearClassifier, weight: Tensor) -> None:
        super().__init__()
        self.model = model
        self.peer = copy.deepcopy(published)
        self.peer.weight.data = weight.to(self.peer.weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities [B, C]."""
        both = self.model(x).softmax(dim=1) + self.peer(x).softmax(dim=1)
        mean: Tensor = (both / 2).clamp(min=_TINY)
        return mean.log()


@dataclass(frozen=True)
class Pupil:
    """A network and its peer in the middle of an adaptation.

    Attributes:
        model: the network.
        weight: the peer's, [C, D].
        losses: of the epochs so far.
    """

    model: EmotionClassifier
    weight: Tensor
    losses: tuple[float, ...] = ()


def study(
    pupil: Pupil,
    x: Tensor,
    method: Method,
    schedule: Schedule,
    work: PeerWork,
    published: LinearClassifier,
    *,
    seed: int,
    start: int,
    total: int,
    steps: int,
    class_mask: Tensor | None = None,
    frozen: frozenset[str] = frozenset(),
) -> Pupil:
    """Let the network follow the peer for some steps, then refit the peer on the network's answers.

    Args:
        pupil: where both stand.
        x: normalised features [N, D].
        method: the network's own, a gradient method.
        schedule: of the local loop.
        work: see :class:`PeerSettings`.
        published: the peer as published.
        seed, start, total, steps, class_mask, frozen: as in :func:`fedser.adapt.adapt`.

    Raises:
        FedserError: data or settings do not fit.
    """
    if not isinstance(method, Gradient):
        raise ConfigError(f"The method {method.name} trains nothing that a peer could teach.", "Choose another.")
    peer = copy.deepcopy(published)
    peer.weight.data = pupil.weight.to(peer.weight)
    answers = probabilities(peer.to(x.device), x, class_mask=class_mask)
    result = adapt(
        pupil.model,
        x,
        Taught(method, labels_of(answers, work.balance), work.weight),
        schedule,
        seed=seed,
        linear=published,
        class_mask=class_mask,
        frozen=frozen,
        start=start,
        total=total,
        steps=steps,
        whole=False,
    )
    model: EmotionClassifier = result.model  # type: ignore[assignment]
    settle(model, x)
    labels = labels_of(probabilities(model, x, class_mask=class_mask), work.balance)
    losses = tuple(entry["loss"] for entry in result.history if "loss" in entry)
    return replace(pupil, model=model, weight=refit(pupil.weight, published, x, labels, work), losses=losses)
