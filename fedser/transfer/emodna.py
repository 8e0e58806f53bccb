"""Emo-DNA after its abstract: emotion decoupling, dual-level alignment (Ye et al., ACM MM 2023, arXiv 2308.02190)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedser.config import Settings
from fedser.losses import supervised_contrastive
from fedser.models import EmotionClassifier
from fedser.transfer.dann import reversal_strength
from fedser.transfer.reference import Batch, Part, Reference


class EmoDnaSettings(Settings):
    """λ_p (decoupling · L_dec + class_level · L_cls) + corpus_level · L_cor; all of them are ours.

    Attributes:
        decoupling: weight of the contrastive decoupling loss.
        class_level: weight of the class-level alignment.
        corpus_level: weight of the corpus-level alignment.
        temperature: τ of both contrastive losses.
        momentum: of the running mean confidence of each class, its threshold.
    """

    decoupling: float = Field(default=1.0, ge=0)
    class_level: float = Field(default=3.0, ge=0)
    corpus_level: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=0.3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)


class EmoDna(Reference):
    """Emotion parts of one class meet across corpora, away from what is the corpus' own."""

    name = "emodna"
    settings_type = EmoDnaSettings
    settings: EmoDnaSettings

    def __init__(self, settings: EmoDnaSettings, model: EmotionClassifier) -> None:
        super().__init__(settings, model)
        self.corpus_part = nn.Linear(model.encoder.outputs, model.settings.bottleneck)
        self.thresholds = ClassThresholds(len(model.classes), settings.momentum)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Decoupling, class-level and corpus-level alignment."""
        chosen, pseudo = self.thresholds.select(batch.target.logits.detach().softmax(dim=1))
        source, target = functional.normalize(batch.source.b, dim=1), functional.normalize(batch.target.b, dim=1)
        confident, labels = target[chosen], pseudo[chosen]
        own = [self._corpus(batch.source), self._corpus(batch.target)]
        temperature = self.settings.temperature
        ramp = reversal_strength(batch.progress)  # the first predictions, and so the pseudo-labels, are noise
        apart = decoupling(torch.cat([source, confident]), torch.cat([batch.y, labels]), own, temperature)
        near = class_alignment(source, batch.y, confident, labels, temperature)
        return {
            "decoupling": ramp * self.settings.decoupling * apart,
            "class_level": ramp * self.settings.class_level * near,
            "corpus_level": self.settings.corpus_level * mean_discrepancy(source, target),
        }

    def _corpus(self, part: Part) -> Tensor:
        return functional.normalize(self.corpus_part(part.encoded), dim=1)


class ClassThresholds(nn.Module):
    """One confidence threshold a class: the running mean confidence of the utterances predicted to be it.

    A class that the network finds hard thus keeps its more confident utterances as well, where one threshold for all
    would keep none of them.

    Args:
        classes: C.
        momentum: share of the old mean; a class' first batch sets it.
    """

    values: Tensor
    seen: Tensor

    def __init__(self, classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("values", torch.zeros(classes))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))

    @torch.no_grad()
    def select(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Take a batch of probabilities [B, C] in; which of them pass (bool [B]), and their pseudo-labels [B]."""
        confidence, labels = p.max(dim=1)
        hot = functional.one_hot(labels, p.shape[1]).to(p.dtype)
        count = hot.sum(dim=0)
        now = (hot * confidence.unsqueeze(1)).sum(dim=0) / count.clamp(min=1)
        moved = torch.where(self.seen, self.momentum * self.values + (1 - self.momentum) * now, now)
        self.values.copy_(torch.where(count > 0, moved, self.values))
        self.seen |= count > 0
        return confidence >= self.values[labels], labels


def decoupling(emotion: Tensor, labels: Tensor, corpus: list[Tensor], temperature: float) -> Tensor:
    """Supervised contrastive loss over emotion parts and corpus parts together.

    Emotion parts of one class attract each other across corpora, corpus parts those of their own corpus; everything
    else is pushed apart, so emotion parts from corpus parts.

    Args:
        emotion: of length 1, [E, d].
        labels: class numbers [E].
        corpus: one tensor [B, d] a corpus, of length 1.
        temperature: τ > 0.
    """
    beyond = int(labels.max()) + 1  # class numbers for the corpora
    own = [labels.new_full((len(part),), beyond + number) for number, part in enumerate(corpus)]
    return supervised_contrastive(torch.cat([emotion, *corpus]), torch.cat([labels, *own]), temperature)


def class_alignment(source: Tensor, y: Tensor, target: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of confident target utterances among the batch's source class centres.

    −mean_j log[ exp(f_j·μ_ŷj/τ) / Σ_c exp(f_j·μ_c/τ) ] over the j whose class the source batch has; μ_c is the mean
    of the class' source features, at length 1; zero where no j is left.

    Args:
        source: of length 1, [B, d], with class numbers ``y`` [B].
        y: see above.
        target: of length 1, [B', d], with pseudo-labels ``labels`` [B'].
        labels: see above.
        temperature: τ > 0.
    """
    present = torch.unique(y)
    members = (y.unsqueeze(0) == present.unsqueeze(1)).to(source.dtype)
    centres = functional.normalize(members @ source, dim=1)
    place = (labels.unsqueeze(1) == present).long()
    known = place.any(dim=1)
    logits = target[known] @ centres.T / temperature
    if not len(logits):
        return 0.0 * target.sum()
    return functional.cross_entropy(logits, place[known].argmax(dim=1))


def mean_discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of rows [B, d] and [B', d] (Gretton et al. 2012, eq. 5).

    The kernel is the mean of five Gaussians exp(−‖x − y‖² / s), s = 1/4, 1/2, 1, 2 and 4 times the mean squared
    distance (Long et al. 2015, DAN), which no gradient flows through.
    """
    both = torch.cat([source, target])
    size = both.square().sum(dim=1)
    distance = (size.unsqueeze(1) + size - 2 * both @ both.T).clamp(min=0)  # a rounded zero can fall below
    middle = distance.detach().mean().clamp(min=torch.finfo(both.dtype).tiny)
    kernel = torch.stack([(-distance / (factor * middle)).exp() for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]).mean(dim=0)
    count = len(source)
    return kernel[:count, :count].mean() + kernel[count:, count:].mean() - 2 * kernel[:count, count:].mean()
