"""How a provider asks for masked sums, and what cannot be combined with them."""

from __future__ import annotations

from pydantic import Field

from fedser.config import Settings
from fedser.errors import ConfigError
from fedser.federation.aggregation import AggregationSettings
from fedser.federation.schema import MOST_MASKED, Encoding, Modulus, Terms
from fedser.privacy.masking import has_room


class MaskingTerms(Settings):
    """The terms of a study's masked sums. Each site's policy says whether they are enough for it.

    Attributes:
        threshold: sites of a round that must be left at every step, and whose shares unmask the sum; more than two
            thirds of the round's sites when None. Sites refuse one of half of them or fewer.
        grid: each value is rounded to a multiple of 2^-grid: the mean is off by at most half of that.
        modulus: bits of the integers that travel, 32 or 64.
        clip: L2 norm to which every site shortens its update. Under a mask nobody else can.
    """

    threshold: int | None = Field(default=None, ge=2, le=MOST_MASKED)
    grid: int = Field(default=20, ge=4, le=40)
    modulus: Modulus = 32
    clip: float = Field(default=4.0, gt=0, le=1e4)

    def terms(self, sites: int) -> Terms:
        """The terms of a round of so many sites.

        Raises:
            ConfigError: there are too few sites, too many, or their sum would not fit the modulus.
        """
        if not 2 <= sites <= MOST_MASKED:
            raise ConfigError(
                f"A masked sum of {sites} sites cannot be: a sum of one is its update, and {MOST_MASKED} are the most.",
                "Wait for more sites (sites: 3), or leave out masked.",
            )
        threshold = self.threshold or 2 * sites // 3 + 1
        if threshold > sites:
            raise ConfigError(f"A threshold of {threshold} cannot be reached by {sites} sites.", "Choose a lower one.")
        if not has_room(self.modulus, sites, self.clip * 2**self.grid + 1):
            raise ConfigError(
                f"The sum of {sites} updates of norm {self.clip:g} does not fit into {self.modulus} bits.",
                "Choose modulus: 64, a smaller clip or a smaller grid.",
            )
        return Terms(threshold=threshold, grid=self.grid, modulus=self.modulus, clip=self.clip)


def unsound(aggregation: AggregationSettings, encoding: Encoding) -> str:
    """Why settings cannot be combined with masked sums, and the nearest that can; empty where they can."""
    if aggregation.rule == "norm_bounded":
        return "under masks no update's norm is seen: take aggregation.rule: mean, and masking.clip bounds each site"
    if aggregation.rule != "mean":
        return f"the rule {aggregation.rule} compares single updates, which masks hide: take aggregation.rule: mean"
    if aggregation.weighting != "uniform":
        return "a count that weighs is told of one site, and masks hide the rest: take aggregation.weighting: uniform"
    if encoding != "f32":
        return f"{encoding} rounds after the mask, which then cancels no more: take encoding: f32 and masking.grid"
    return ""
