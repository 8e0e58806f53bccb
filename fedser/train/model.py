"""Training one classifier: speaker folds choose epochs and temperature, then all speakers train it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedser.compute import generator
from fedser.models import EmotionClassifier, LinearClassifier, ModelSettings, fit_logistic, initialise
from fedser.train import calibrate
from fedser.train.checks import check
from fedser.train.folds import speaker_folds, usable_for_early_stop
from fedser.train.loop import epochs, logits_of, recalibrate
from fedser.train.settings import TrainSettings

Watch = Callable[[], None]


@dataclass(frozen=True)
class Trained:
    """A trained classifier and how it came about.

    Attributes:
        model: on the CPU, in evaluation mode.
        temperature: divides its logits.
        history: one entry an epoch: ``loss``, and ``validation_uar`` where speakers were held out.
        validation: one sentence: what was held out, and what it decided.
        epochs: how many epochs the model was trained.
        held_out_logits: [N, C], out-of-fold logits of the labelled utterances; NaN rows where never held out.
    """

    model: EmotionClassifier
    temperature: float
    history: tuple[Mapping[str, float], ...]
    validation: str
    epochs: int
    held_out_logits: Tensor


@dataclass
class _Validation:
    """What the speaker folds said."""

    sentence: str
    epochs: int
    logits: Tensor
    uars: list[float] = field(default_factory=list)


def train_model(
    x: Tensor,
    y: Tensor,
    speakers: Sequence[str | None],
    classes: Sequence[str],
    model: ModelSettings,
    settings: TrainSettings,
    seed: int,
    device: torch.device,
    on_epoch: Watch | None = None,
    original: Tensor | None = None,
) -> Trained:
    """Train a classifier on the source.

    With 8 known speakers or more, each emotion among the held-out ones, speaker folds are trained side by
    side; the epoch with the best UAR on the held-out speakers is the length of the training on all
    speakers. Otherwise all speakers train for the full number of epochs. The temperature always comes
    from held-out speakers, where there are two or more.

    Args:
        x: normalised features [N, *shape].
        y: class numbers [N]; -1 marks utterances to leave out.
        speakers: per utterance, None where unknown.
        classes: emotion names.
        model: what the classifier looks like.
        settings: the recipe.
        seed: of everything random.
        device: to train on; the result lies on the CPU.
        on_epoch: called after each epoch, of the folds (all of them together) and of the last training.
        original: boolean mask [N]; augmented copies are False: they train, but validate nothing.

    Raises:
        TooLittleDataError: fewer than two emotions with two utterances each.
        ConfigError: the encoder does not take these features.
    """
    labelled = y >= 0
    x, y = check(x, y, classes)
    voices = [speaker for speaker, keep in zip(speakers, labelled.tolist(), strict=True) if keep]
    counted = torch.ones(len(y), dtype=torch.bool) if original is None else original[labelled]
    x = x.to(device)
    watch = on_epoch or (lambda: None)
    with _own_randomness(seed, device):
        found = _validate(x, y, voices, counted, classes, model, settings, seed, watch)
    usable = counted & torch.isfinite(found.logits).all(1)
    temperature = calibrate.temperature(found.logits[usable], y[usable]) if bool(usable.any()) else 1.0
    final = _fresh(model, x, classes, seed, 0)
    teacher = _teacher(x, y, classes, settings)
    # A complete schedule of that many epochs: one that is broken off has not been annealed.
    whole = settings.model_copy(update={"epochs": found.epochs})
    history = []
    with _own_randomness(seed, device):
        for epoch, loss in enumerate(epochs(final, x, y, whole, seed, teacher)):
            entry = {"loss": loss}
            if epoch < len(found.uars):
                entry["validation_uar"] = found.uars[epoch]
            history.append(entry)
            watch()
    recalibrate(final, x)
    final.cpu()
    return Trained(final, temperature, tuple(history), found.sentence, found.epochs, found.logits)


def _validate(
    x: Tensor,
    y: Tensor,
    speakers: Sequence[str | None],
    original: Tensor,
    classes: Sequence[str],
    model: ModelSettings,
    settings: TrainSettings,
    seed: int,
    watch: Watch,
) -> _Validation:
    """Train the folds side by side, an epoch each in turn, and look at all held-out utterances together."""
    folds = settings.folds if settings.folds is not None else 5 if model.quick else 1
    masks = [mask for mask in speaker_folds(speakers, folds, seed) if _trainable(y[~mask])] if folds else []
    logits = torch.full((len(y), len(classes)), torch.nan)
    if not masks:
        reason = "too few speakers to hold one out" if folds else "switched off"
        return _Validation(f"none: {reason}", settings.epochs, logits)
    obstacle = usable_for_early_stop(speakers, y, masks) if settings.early_stop else "early stop switched off"
    networks = [_fresh(model, x, classes, seed, 1 + number) for number in range(len(masks))]
    parts = [(x[~mask], y[~mask]) for mask in masks]
    runs = [
        epochs(network, own_x, own_y, settings, seed + 1 + number, _teacher(own_x, own_y, classes, settings))
        for number, (network, (own_x, own_y)) in enumerate(zip(networks, parts, strict=True))
    ]
    held = torch.stack(masks).any(0)
    counted = held & original
    best, best_logits, uars = 0, logits, list[float]()
    for epoch, _ in enumerate(zip(*runs, strict=True)):
        watch()
        if obstacle is not None and epoch + 1 < settings.epochs:
            continue  # only the last epoch counts
        now = logits.clone()
        for network, mask, (own_x, _) in zip(networks, masks, parts, strict=True):
            recalibrate(network, own_x)
            now[mask] = logits_of(network, x[mask.to(x.device)])
        if obstacle is not None:
            return _Validation(f"{_folds(masks)} for the temperature only: {obstacle}", settings.epochs, now)
        uars.append(calibrate.uar(now[counted].argmax(1), y[counted]))
        if uars[-1] >= max(uars):
            best, best_logits = epoch, now
        if epoch - best >= settings.patience:
            break
    return _Validation(f"{_folds(masks)}, early stop on UAR after epoch {best + 1}", best + 1, best_logits, uars)


def _teacher(x: Tensor, y: Tensor, classes: Sequence[str], settings: TrainSettings) -> LinearClassifier | None:
    if x.dim() != 2 or settings.linear_share == 0:
        return None
    return fit_logistic(x, y, classes).to(x.device)


def _folds(masks: Sequence[Tensor]) -> str:
    return f"{len(masks)} speaker folds" if len(masks) > 1 else "a fifth of the speakers held out"


def _trainable(y: Tensor) -> bool:
    return len(set(y.tolist())) >= 2 and len(y) >= 4


def _fresh(model: ModelSettings, x: Tensor, classes: Sequence[str], seed: int, number: int) -> EmotionClassifier:
    network = EmotionClassifier(model, tuple(x.shape[1:]), classes)
    initialise(network, generator(seed, "weights", number))
    return network.to(x.device)


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from the global generators: seed them for a while, and put them back afterwards."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(generator(seed, "dropout").initial_seed())
        yield
