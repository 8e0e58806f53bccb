"""From labelled source and unlabelled target to a classifier, beside the one that never saw the target."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedser.compute import generator
from fedser.errors import ConfigError, TooLittleDataError, UsageError
from fedser.models import EmotionClassifier, ModelSettings, initialise
from fedser.train import Trained, TrainSettings, train_model
from fedser.train.checks import check
from fedser.train.loop import recalibrate
from fedser.transfer.loop import epochs
from fedser.transfer.references import make

MINIMUM = 2  # target utterances: one alone has no batch statistics


@dataclass(frozen=True)
class TransferModel:
    """A classifier trained on both corpora, and the one trained on the source alone.

    Attributes:
        model: features [B, \\*shape] to logits [B, C], on the CPU, in evaluation mode.
        source_only: the same network after the same number of steps without the target.
        temperature: divides the logits; calibrated on held-out speakers of the source, with ``source_only``.
        history: one entry an epoch: ``labels``, and each part of the reference's loss.
    """

    model: EmotionClassifier
    source_only: EmotionClassifier
    temperature: float
    history: list[dict[str, float]] = field(default_factory=list)


def transfer(
    name: str,
    source_x: Tensor,
    source_y: Tensor,
    source_speakers: Sequence[str | None],
    target_x: Tensor,
    classes: Sequence[str],
    *,
    model: ModelSettings | None = None,
    train: TrainSettings | None = None,
    options: Mapping[str, object] | None = None,
    seed: int,
    device: torch.device = torch.device("cpu"),
    trained: Trained | None = None,
) -> TransferModel:
    """Train one reference.

    First weights, epochs, batches, noise, mixup and teacher are those of :func:`fedser.train.train_model` with the
    same seed. The last model is the result, with the target's batch-normalisation statistics. Inputs and the global
    random state are left alone; the same seed gives the same model on a CPU.

    Args:
        name: one of ``REFERENCES``.
        source_x: normalised features [N, \\*shape].
        source_y: class numbers [N]; -1 is left out.
        source_speakers: per utterance, None where unknown.
        target_x: normalised features [M, \\*shape]; its labels have no way in.
        classes: emotion names.
        model: what the classifier looks like.
        train: the source recipe.
        options: of the reference.
        seed: of everything random.
        device: to train on.
        trained: what ``train_model`` gave for this source, recipe and seed, where the caller has it.

    Raises:
        UsageError: the name is unknown, or source and target have different features.
        ConfigError: an option does not fit, or the training diverged.
        TooLittleDataError: fewer than two target utterances, or the source is too small.
    """
    model, train = model or ModelSettings(), train or TrainSettings()
    _check_target(source_x, target_x)
    x, y = check(source_x, source_y, classes)
    network = EmotionClassifier(model, tuple(x.shape[1:]), classes)
    initialise(network, generator(seed, "weights", 0))  # source training's own first weights
    reference = make(name, network, options, seed=seed)
    if trained is None:
        trained = train_model(source_x, source_y, source_speakers, classes, model, train, seed, device)
    # The epochs that speaker folds of the source chose: as many steps as source-only, and no target label near.
    whole = train.model_copy(update={"epochs": trained.epochs})
    target_x = target_x.to(device)
    network.to(device)
    history = list(epochs(network, reference.to(device), x.to(device), y, target_x, whole, seed))
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise ConfigError(f"The training of {name} diverged: weights became infinite.", "Lower the weight of its loss.")
    recalibrate(network, target_x)
    return TransferModel(network.cpu(), copy.deepcopy(trained.model), trained.temperature, history)


def _check_target(source_x: Tensor, target_x: Tensor) -> None:
    if source_x.shape[1:] != target_x.shape[1:]:
        raise UsageError(
            f"The source's features have shape {tuple(source_x.shape[1:])}, the target's {tuple(target_x.shape[1:])}.",
            "Extract both with the same settings.",
        )
    if len(target_x) < MINIMUM:
        raise TooLittleDataError(
            f"A reference needs at least {MINIMUM} target utterances, and there are {len(target_x)}.",
            "Add recordings of the target.",
        )
