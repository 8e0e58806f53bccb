"""The toolkit's own method: neighbours in the network's space and a linear view of the whole site teach each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from fedser.adapt.distil import DistilSettings, distil
from fedser.adapt.method import Batch, Gradient, Target
from fedser.adapt.probabilities import probabilities
from fedser.adapt.schedule import Schedule
from fedser.adapt.vectors import vectors
from fedser.config import Settings
from fedser.losses import agreement, divergence, neighbour_contrastive, overlap, supervised_contrastive
from fedser.models import EmotionClassifier, fit_logistic


class FedserSettings(Settings):
    """L = −attraction + α_t·dispersion + λ·L_ncl + [t ≥ start·T] (β·L_scl + γ·KL(view ‖ p)).

    Attributes:
        neighbours: M nearest neighbours in the bank, for attraction and for L_ncl.
        decay: α_t = (1 + 10 t/T)^−decay.
        temperature: τ of both contrastive losses.
        neighbour_weight: λ of ECAN's neighbour term.
        supervised_weight: β of ECAN's supervised contrastive term, with the linear view's answers as labels.
        view_weight: γ; 0 with β 0 leaves the linear view out.
        start: share of the schedule before the linear view joins in: at first its pupil, the network, still has
            the source's preference for some classes, which the view would copy.
        anchor: weight of the published answers beside the network's in what the view learns.
        penalty: scikit-learn's C of the view, inverse strength of its L2 penalty.
        student_steps: of the last stage, in which a new network learns from the published answers and the adapted
            one's; 0 leaves it out, and so do features that are no vectors.
    """

    neighbours: int = Field(default=5, ge=1)
    decay: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=0.2, gt=0)
    neighbour_weight: float = Field(default=1.0, ge=0)
    supervised_weight: float = Field(default=1.0, ge=0)
    view_weight: float = Field(default=3.0, ge=0)
    start: float = Field(default=0.3, ge=0, le=1)
    anchor: float = Field(default=0.5, ge=0)
    penalty: float = Field(default=0.01, gt=0)
    student_steps: int = Field(default=1000, ge=0)


class Fedser(Gradient):
    """ECAN's two contrastive ideas on AaD's agreement of neighbours, held together by a view of the whole site.

    Neighbours are a local matter: where a cluster of the network's space lies across two emotions, they confirm each
    other's error. A strongly penalised linear classifier of the recordings themselves can't follow such a cluster.
    Each epoch it is fitted to the network's own answers and the published ones, and its answers are what the network
    learns from: co-training (Blum and Mitchell 1998) of a local and a global view.
    """

    name = "fedser"
    settings_type = FedserSettings
    settings: FedserSettings
    schedule: ClassVar[Schedule] = Schedule(epochs=30, learning_rate=2e-2)
    refreshes = True

    def refresh(self, x: Tensor, b: Tensor, p: Tensor, source: Tensor) -> Tensor:
        """The linear view's probabilities [N, C]; the network's own where it answers with one class alone."""
        own = self.settings
        labels = (p + own.anchor * source).argmax(dim=1)
        if int(labels.min()) == int(labels.max()):
            return p
        seen = vectors(x, b)
        linear = fit_logistic(seen.double(), labels, [str(k) for k in range(p.shape[1])], own.penalty)
        return probabilities(linear.to(p.device), seen)

    def conclude(self, model: EmotionClassifier, target: Target, published: Tensor) -> nn.Module:
        """A student from nothing: at first of the published answers, then of the adapted network's and its own.

        It has no memory of the source's features, and two teachers that err in different ways: the published answers
        by what the source never heard, the adapted network's by neighbours that confirm each other. Its own answers
        stand between them (after Liang et al., CVPR 2022, arXiv 2104.01539).
        """
        steps = self.settings.student_steps
        if not steps or len(model.shape) > 1:  # a network of spectrograms or waveforms needs more than one site
            return model
        x, mask = target.x, target.class_mask
        adapted = probabilities(model, x, class_mask=mask)
        return distil(model, published, x, mask, target.seed, DistilSettings(steps=steps), adapted)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The terms of the settings' formula; terms of weight 0 are left out."""
        own, bank = self.settings, batch.bank
        near = bank.neighbours(batch.index, own.neighbours)
        parts = {
            "attraction": -agreement(batch.p, bank.scores[near]),
            "dispersion": (1.0 + 10.0 * batch.progress) ** -own.decay * overlap(batch.p),
        }
        if own.neighbour_weight:
            contrast = neighbour_contrastive(batch.f, near, bank.features, batch.index, own.temperature)
            parts["neighbour"] = own.neighbour_weight * contrast
        if batch.targets is None or batch.progress < own.start:
            return parts
        if own.supervised_weight:
            classes = supervised_contrastive(batch.f, batch.targets.argmax(dim=1), own.temperature)
            parts["supervised"] = own.supervised_weight * classes
        if own.view_weight:
            parts["view"] = own.view_weight * divergence(batch.targets, batch.logits)
        return parts
