"""The voice source: a train of glottal pulses with jitter and shimmer, and aspiration noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]


def glottal_source(
    f0: Signal, rate: int, *, open_quotient: float, jitter: float, shimmer: float, rng: np.random.Generator
) -> tuple[Signal, Signal]:
    """Pulses by Rosenberg's model C (1971), differentiated for the lips' radiation.

    Args:
        f0: fundamental frequency per sample, hertz [T].
        rate: samples a second.
        open_quotient: share of the period in which the glottis is open, 0 to 1.
        jitter: standard deviation of the periods, relative.
        shimmer: standard deviation of the pulses' amplitudes, relative.
        rng: the source of chance.

    Returns:
        The flow's derivative [T] with a peak near 1, and the flow itself, 0 to 1 [T].
    """
    steady = np.cumsum(f0 / rate)
    period = steady.astype(np.int64)
    periods = int(period[-1]) + 2
    phase = np.cumsum(f0 * (1.0 + jitter * rng.standard_normal(periods))[period] / rate)
    pulse = phase.astype(np.int64)
    within = phase - pulse
    amplitude = 1.0 + shimmer * rng.standard_normal(int(pulse[-1]) + 1)
    rise = open_quotient * 2.0 / 3.0  # the opening lasts twice as long as the closing
    fall = open_quotient - rise
    flow = np.where(
        within < rise,
        0.5 - 0.5 * np.cos(np.pi * within / rise),
        np.where(within < open_quotient, np.cos(0.5 * np.pi * (within - rise) / fall), 0.0),
    )
    flow = flow * amplitude[pulse]
    # A difference of the continuous flow aliases far less than the sampled, discontinuous derivative would.
    slope = np.diff(flow, prepend=0.0) * (rate / f0) * (2.0 * fall / np.pi)
    return slope, flow


def aspiration(flow: Signal, rng: np.random.Generator) -> Signal:
    """Noise of the air, strongest while the glottis is open [T], with unit variance at full flow.

    Args:
        flow: glottal flow, 0 to 1 [T].
        rng: the source of chance.
    """
    return rng.standard_normal(len(flow)) * (0.35 + 0.65 * np.clip(flow, 0.0, 1.0))
