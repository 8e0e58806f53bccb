"""One site's normaliser: fitted on its own speech, kept beside its model, updated causally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedser.audio.normalise import persistence
from fedser.audio.normalise.choice import choose
from fedser.audio.normalise.settings import NormalisationSettings
from fedser.audio.normalise.statistics import Moments, inverse_scale, profiles, summaries
from fedser.errors import AudioError, TooLittleDataError

ENOUGH = 4  # utterances from which the rule ``speaker`` trusts a speaker's own standard deviation


class SiteNormaliser:
    """The statistics of one site, and the rule that says which of them an utterance gets.

    Vectors of descriptors [D] are normalised per dimension, spectrograms [bands, frames] per band, waveforms
    [1, samples] each by itself (zero mean, unit variance, not clipped), without statistics.

    Attributes:
        settings: what was asked for.
        shape: of one utterance's features.
        rule: ``corpus``, ``speaker`` or ``shrunk``, which is what ``auto`` resolves to; ``utterance`` for
            waveforms.
        kappa: pseudo-utterances of the site mixed into each speaker's statistics (0 for ``corpus``, unused).
        reason: one sentence that says why.
        site: statistics of all utterances; None for waveforms.
        speakers: statistics of each known speaker.
    """

    def __init__(
        self,
        settings: NormalisationSettings,
        shape: tuple[int, ...],
        rule: str,
        kappa: float,
        reason: str,
        site: Moments | None,
        speakers: Mapping[str, Moments],
    ) -> None:
        self.settings = settings
        self.shape = shape
        self.rule = rule
        self.kappa = kappa
        self.reason = reason
        self.site = site
        self.speakers: dict[str, Moments] = dict(speakers)

    @classmethod
    def fit(cls, raw: Tensor, speakers: Sequence[str | None], settings: NormalisationSettings) -> SiteNormaliser:
        """Compute a site's statistics.

        Args:
            raw: [N, *shape] features of the site's utterances, not normalised.
            speakers: N speaker ids; None where unknown.
            settings: the rule; ``auto`` is resolved here.

        Raises:
            TooLittleDataError: there is no utterance.
            AudioError: the features are not finite or their shape is none of the three kinds.
            ValueError: ``speakers`` is not as long as ``raw`` (a programming error).
        """
        if len(raw) == 0:
            raise TooLittleDataError(
                "There is no utterance to compute statistics from.", "Give at least one recording."
            )
        shape = tuple(raw.shape[1:])
        _check(raw, speakers, shape)
        if _is_waveform(shape):
            return cls(settings, shape, "utterance", 0.0, "Waveforms are normalised one by one.", None, {})
        means, variances = summaries(raw)
        site = Moments.of(means, variances)
        groups = {name: Moments.of(means[i], variances[i]) for name, i in _groups(speakers).items() if name is not None}
        rule, kappa, reason = _resolve(settings, raw, speakers)
        return cls(settings, shape, rule, kappa, reason, site, groups)

    def transform(self, raw: Tensor, speakers: Sequence[str | None]) -> Tensor:
        """Clipped z-scores, float32 [N, *shape]; speakers that were never seen get the site's statistics.

        Raises:
            AudioError: the features are not finite or have another shape than the fitted ones.
        """
        _check(raw, speakers, self.shape)
        result = torch.empty(raw.shape, dtype=torch.float32, device=raw.device)
        for name, index in _groups(speakers).items():
            result[index] = self._apply(raw[index], self.speakers.get(name) if name is not None else None)
        return result

    def transform_causal(self, raw: Tensor, speakers: Sequence[str | None]) -> Tensor:
        """Like :meth:`transform`, but a speaker's statistics hold no utterance later than the one at hand.

        Starts from what is known of each speaker and leaves the normaliser as it is.
        """
        scratch = SiteNormaliser(
            self.settings, self.shape, self.rule, self.kappa, self.reason, self.site, self.speakers
        )
        _check(raw, speakers, self.shape)
        result = torch.empty(raw.shape, dtype=torch.float32, device=raw.device)
        for i, speaker in enumerate(speakers):
            scratch.observe(raw[i : i + 1], speaker)
            result[i : i + 1] = scratch.transform(raw[i : i + 1], [speaker])
        return result

    def observe(self, raw: Tensor, speaker: str | None) -> None:
        """Add utterances [n, *shape] to a speaker's statistics; the site's stay as they were fitted.

        An unknown speaker (None) leaves no trace: the utterances of several people may not be told apart.
        """
        _check(raw, [speaker] * len(raw), self.shape)
        if speaker is None or self.site is None or len(raw) == 0:
            return
        fresh = Moments.of(*summaries(raw))
        known = self.speakers.get(speaker)
        self.speakers[speaker] = fresh if known is None else known.add(fresh)

    def statistics_for(self, speaker: str | None) -> str:
        """Which statistics an utterance of this speaker gets, in words."""
        if self.site is None:
            return "each utterance by itself"
        own = self.speakers.get(speaker) if speaker is not None else None
        if own is None or self.rule == "corpus":
            return f"site ({_utterances(self.site.count)})"
        named = f"speaker {speaker} ({_utterances(own.count)})"
        kappa = self._pull(own)
        return named if kappa == 0 else f"{named}, pulled to the site's by κ = {kappa:g}"

    def tensors(self, *, with_speakers: bool = True) -> dict[str, Tensor]:
        """The statistics as float64 and int64 tensors, for a file beside the model."""
        return persistence.tensors(self.site, self.speakers if with_speakers else {})

    def header(self, *, with_speakers: bool = True) -> dict[str, object]:
        """Everything else, as plain JSON values.

        Args:
            with_speakers: speaker names are personal data, and so are their statistics; False leaves both out
                (here and in :meth:`tensors`), and a restored normaliser then treats every speaker as new.
        """
        return {
            "format": persistence.FORMAT,
            "settings": self.settings.model_dump(),
            "shape": list(self.shape),
            "rule": self.rule,
            "kappa": self.kappa,
            "reason": self.reason,
            "speakers": sorted(self.speakers) if with_speakers else [],
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], header: Mapping[str, object]) -> SiteNormaliser:
        """Rebuild from :meth:`tensors` and :meth:`header`; statistics come back bit by bit.

        Raises:
            BundleFormatError: something is missing, surplus, of another shape or type, or not finite.
        """
        state = persistence.parse(tensors, header)
        return cls(state.settings, state.shape, state.rule, state.kappa, state.reason, state.site, state.speakers)

    def _pull(self, own: Moments) -> float:
        """κ for one speaker under the rules ``speaker`` and ``shrunk``."""
        if self.rule == "speaker":
            return 0.0 if own.count >= ENOUGH else self.kappa
        return self.kappa

    def _apply(self, raw: Tensor, own: Moments | None) -> Tensor:
        """Normalise utterances that share their statistics."""
        if self.site is None:
            return _each_by_itself(raw)
        mean, variance = self.site.mean, self.site.variance
        if own is not None and self.rule != "corpus":
            mean, variance = own.shrunk(self.site, self._pull(own))
        broadcast = (-1,) + (1,) * (raw.dim() - 2)
        values = raw.to(dtype=torch.float64)
        scale = inverse_scale(variance, self.site).to(raw.device)
        z = (values - mean.to(raw.device).view(broadcast)) * scale.view(broadcast)
        return z.clamp(-self.settings.clip, self.settings.clip).to(torch.float32)


def _resolve(settings: NormalisationSettings, raw: Tensor, speakers: Sequence[str | None]) -> tuple[str, float, str]:
    """Rule, κ and reason."""
    if settings.rule != "auto":
        return settings.rule, 0.0 if settings.rule == "corpus" else settings.kappa, "Set by configuration."
    choice = choose(profiles(raw), speakers, settings.kappa)
    return "shrunk", choice.kappa, choice.reason


def _groups(speakers: Sequence[str | None]) -> dict[str | None, list[int]]:
    """Indices of each speaker's utterances; those of unknown speakers under None."""
    groups: dict[str | None, list[int]] = {}
    for i, speaker in enumerate(speakers):
        groups.setdefault(speaker, []).append(i)
    return groups


def _each_by_itself(raw: Tensor) -> Tensor:
    values = raw.to(dtype=torch.float64)
    centred = values - values.mean(dim=-1, keepdim=True)
    std = centred.square().mean(dim=-1, keepdim=True).sqrt()
    return (centred / torch.where(std > 1e-9, std, 1.0)).to(torch.float32)


def _is_waveform(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == 1


def _check(raw: Tensor, speakers: Sequence[str | None], shape: tuple[int, ...]) -> None:
    if len(speakers) != len(raw):
        raise ValueError(f"{len(speakers)} speakers for {len(raw)} utterances")
    if len(shape) not in (1, 2) or 0 in shape or tuple(raw.shape[1:]) != shape:
        told = f"Features of shape {tuple(raw.shape[1:])} do not fit the normaliser's {shape}."
        raise AudioError(told, "Extract them with the feature settings of the model.")
    finite = torch.isfinite(raw).flatten(1).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise AudioError(f"Utterance {first} has features that are not finite numbers.", "Set the recording aside.")


def _utterances(count: int) -> str:
    return f"{count} utterance" + ("" if count == 1 else "s")
