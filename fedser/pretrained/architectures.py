"""The fixed table of architectures: whatever a file says, nothing outside this table is ever built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from fedser.errors import ConfigError


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        width: D, of each transformer layer's output.
        layers: L, of the transformer.
        receptive: samples that the first frame needs; shorter utterances are padded with silence.
        factory: torchaudio's function that builds it.
        options: its arguments, over those that switch dropout off.
    """

    width: int
    layers: int
    receptive: int
    factory: str
    options: Mapping[str, object]

    @property
    def levels(self) -> int:
        """What goes into the first layer, and what each layer gives."""
        return self.layers + 1

    @property
    def statistics(self) -> int:
        """Mean and standard deviation over time."""
        return 2

    def build(self) -> nn.Module:
        """A ``torchaudio.models.Wav2Vec2Model`` in evaluation mode, with weights that mean nothing yet."""
        from torchaudio import models  # half a second, and only these encoders need it

        make: Callable[..., nn.Module] = getattr(models, self.factory)
        return make(**dict.fromkeys(_DROPOUTS, 0.0), **self.options).eval()


_DROPOUTS = (
    *("encoder_projection_dropout", "encoder_attention_dropout", "encoder_ff_interm_dropout"),
    *("encoder_dropout", "encoder_layer_drop"),
)
_TINY = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(8, 10, 5), (8, 8, 8), (8, 8, 8)],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 24,
    "encoder_layer_norm_first": False,
    "aux_num_out": None,
}
_RECEPTIVE = 400  # kernels 10, 3, 3, 3, 3, 2, 2 and strides 5, 2, 2, 2, 2, 2, 2


def _tiny(factory: str, **more: object) -> Architecture:
    return Architecture(16, 3, 325, factory, _TINY | more)


def _base(factory: str) -> Architecture:
    return Architecture(768, 12, _RECEPTIVE, factory, {})


def _large(factory: str) -> Architecture:
    return Architecture(1024, 24, _RECEPTIVE, factory, {})


ARCHITECTURES: dict[tuple[str, str], Architecture] = {
    ("wav2vec2", "tiny"): _tiny("wav2vec2_model"),
    ("wav2vec2", "base"): _base("wav2vec2_base"),
    ("wav2vec2", "large"): _large("wav2vec2_large"),
    ("wav2vec2", "large_lv60k"): _large("wav2vec2_large_lv60k"),
    ("hubert", "tiny"): _tiny("wav2vec2_model", extractor_mode="layer_norm", encoder_layer_norm_first=True),
    ("hubert", "base"): _base("hubert_base"),
    ("hubert", "large"): _large("hubert_large"),
    ("wavlm", "tiny"): _tiny("wavlm_model", encoder_num_buckets=8, encoder_max_distance=16),
    ("wavlm", "base"): _base("wavlm_base"),
    ("wavlm", "large"): _large("wavlm_large"),
}


def architecture(family: str, size: str) -> Architecture:
    """A row of the table.

    Raises:
        ConfigError: there is none of this name.
    """
    found = ARCHITECTURES.get((family, size))
    if found is None:
        sizes = ", ".join(other for name, other in ARCHITECTURES if name == family) or "none"
        raise ConfigError(f"There is no encoder {family} of the size {size}.", f"Choose one of its sizes: {sizes}.")
    return found
