"""The forward pass of a pretrained encoder, step by step, so that layers can be pooled, replaced and adapted.

It gives what ``torchaudio.models.Wav2Vec2Model.extract_features`` gives for one utterance at a time, in a batch of
utterances of different lengths too, where torchaudio's own does not: the first group norm of the base models runs
over the padding, and WavLM takes no lengths. So convolutions see each length by itself, and all further layers get a
mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

FAR = -10_000.0  # added to the attention of padded frames, as torchaudio does
STEADY = 1e-5  # added to variances, so that a square root has a slope at constant frames


@dataclass(frozen=True)
class Hidden:
    """A batch between two layers.

    Attributes:
        x: frames [B, T, D], anything at padded places.
        padded: bool [B, T], true behind an utterance's end; None where all are of one length.
        bias: WavLM's position bias [B, heads, T, T], which its first layer makes for all; None for the others.
    """

    x: Tensor
    padded: Tensor | None
    bias: Tensor | None = None


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The transformer layers, in order."""
    encoder: Any = model.encoder
    layers: nn.ModuleList = encoder.transformer.layers
    return layers


def frames(model: nn.Module, waveforms: Sequence[Tensor], receptive: int) -> Hidden:
    """All that comes before the first transformer layer.

    Args:
        model: a ``Wav2Vec2Model``.
        waveforms: each [T_i], standardised; shorter than ``receptive`` samples are padded with silence.
        receptive: samples of the first frame.
    """
    parts: Any = model
    longest = [functional.pad(wave, (0, max(0, receptive - len(wave)))) for wave in waveforms]
    if len({len(wave) for wave in longest}) == 1:
        seen, _ = parts.feature_extractor(torch.stack(longest), None)
        padded = None
    else:
        rows = [parts.feature_extractor(wave[None], None)[0][0] for wave in longest]
        seen = pad_sequence(rows, batch_first=True)
        counts = torch.tensor([len(row) for row in rows], device=seen.device)
        padded = torch.arange(seen.shape[1], device=seen.device) >= counts[:, None]
    x = parts.encoder.feature_projection(seen)
    if padded is not None:
        x = x.masked_fill(padded[:, :, None], 0.0)  # the positional convolution sees silence behind the end
    transformer = parts.encoder.transformer
    x = x + transformer.pos_conv_embed(x)
    if transformer.layer_norm_first:
        x = transformer.layer_norm(x)
    return Hidden(x, padded)


def step(layer: nn.Module, hidden: Hidden, replaced: Mapping[str, Tensor] | None = None) -> Hidden:
    """One transformer layer.

    Args:
        layer: torchaudio's, or one with the same parts.
        hidden: what comes in.
        replaced: parameters to use instead of the layer's own, by name.
    """
    options: dict[str, Tensor | None] = {"position_bias": hidden.bias}
    if hidden.padded is not None:
        far = FAR * hidden.padded.to(hidden.x.dtype)
        if _is_wavlm(layer):
            options["key_padding_mask"] = far
        else:
            options["attention_mask"] = far[:, None, None, :].expand(-1, 1, hidden.x.shape[1], -1)
    if replaced:
        x, bias = functional_call(layer, dict(replaced), (hidden.x,), options)
    else:
        x, bias = layer(hidden.x, **options)
    return replace(hidden, x=x, bias=bias)


def pooled(hidden: Hidden) -> Tensor:
    """Mean and standard deviation of each channel over an utterance's own frames, [B, 2, D]."""
    x = hidden.x
    if hidden.padded is None:
        mean = x.mean(dim=1)
        variance = (x - mean[:, None]).square().mean(dim=1)
    else:
        own = (~hidden.padded)[:, :, None].to(x.dtype)
        count = own.sum(dim=1)
        mean = (x * own).sum(dim=1) / count
        variance = ((x - mean[:, None]).square() * own).sum(dim=1) / count
    return torch.stack([mean, (variance + STEADY).sqrt()], dim=1)


def levels(model: nn.Module, waveforms: Sequence[Tensor], receptive: int) -> Tensor:
    """Pooled outputs of all levels, [B, 2, L + 1, D]: what goes into the first layer, and what each layer gives."""
    hidden = frames(model, waveforms, receptive)
    found = [pooled(hidden)]
    for layer in layers_of(model):
        hidden = step(layer, hidden)
        found.append(pooled(hidden))
    return torch.stack(found, dim=2)


def _is_wavlm(layer: nn.Module) -> bool:
    return hasattr(layer.attention, "gru_rel_pos")
