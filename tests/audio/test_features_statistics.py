"""Batched masked statistics against a numpy loop over single utterances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio.features import statistics
from fedser.audio.features.frames import Group, groups


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Values [B, T, D] and a mask [B, T] with gaps, full rows and empty rows."""
    batch, frames, width = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal((batch, frames, width)) * 3
    if draw(st.booleans()):
        values = values.round()  # ties
    mask = rng.random((batch, frames)) < draw(st.sampled_from([0.0, 0.4, 0.8, 1.0]))
    return values, mask


def _runs(mask: np.ndarray) -> list[int]:
    lengths, current = [], 0
    for flag in [*mask, False]:
        if flag:
            current += 1
        elif current:
            lengths.append(current)
            current = 0
    return lengths


def _steps(values: np.ndarray, mask: np.ndarray) -> list[float]:
    """Mean and deviation of rising and of falling steps of one contour."""
    found: list[float] = []
    for direction in (1, -1):
        sizes = []
        for t in range(1, len(values)):
            step = direction * (values[t] - values[t - 1])
            if mask[t] and mask[t - 1] and step > 0:
                sizes.append(step)
        found += [float(np.mean(sizes)), float(np.std(sizes))] if sizes else [0.0, 0.0]
    return found


def _close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_against_a_loop_over_utterances(table):
    values, mask = table
    v, m = torch.tensor(values), torch.tensor(mask)
    levels = (0.2, 0.5, 0.8)
    mean, spread = statistics.mean(v, m), statistics.spread(v, m)
    quantiles = statistics.quantiles(v, m, levels)
    slopes, runs, smooth = statistics.slopes(v, m), statistics.runs(m), statistics.smooth(v, m)
    peaks = statistics.peaks(v[..., 0], m)
    for b in range(len(values)):
        rows = values[b][mask[b]]
        empty = len(rows) == 0
        zero = np.zeros(values.shape[2])
        _close(mean[b], zero if empty else rows.mean(0))
        _close(spread[b], zero if empty else rows.std(0))
        _close(quantiles[b], np.zeros((len(zero), 3)) if empty else np.quantile(rows, levels, axis=0).T)
        _close(slopes[b], np.array([_steps(values[b, :, d], mask[b]) for d in range(len(zero))]))
        lengths = _runs(mask[b])
        expected = [len(lengths), np.mean(lengths), np.std(lengths)] if lengths else [0, 0, 0]
        np.testing.assert_allclose(runs[b].numpy(), expected, atol=1e-5)
        for t in range(values.shape[1]):
            near = [values[b, k] for k in (t - 1, t, t + 1) if 0 <= k < values.shape[1] and mask[b, k]]
            _close(smooth[b, t], np.mean(near, 0) if mask[b, t] else zero)
        assert int(peaks[b]) == _peaks(values[b, :, 0], mask[b])


def _peaks(values: np.ndarray, mask: np.ndarray) -> int:
    low = np.where(mask, values, -np.inf)
    centre = values[mask].mean() if mask.any() else 0.0
    padded = np.concatenate([[-np.inf], low, [-np.inf]])
    return sum(
        padded[t] > padded[t - 1] and padded[t] >= padded[t + 1] and padded[t] > centre
        for t in range(1, len(padded) - 1)
    )


def test_padding_plays_no_part():
    rng = np.random.default_rng(0)
    values = torch.tensor(rng.standard_normal((1, 9, 2)))
    mask = torch.ones(1, 9, dtype=torch.bool)
    wide, wide_mask = torch.cat([values, values * 100], 1), torch.cat([mask, ~mask], 1)
    for function in (statistics.mean, statistics.spread, statistics.slopes):
        torch.testing.assert_close(function(values, mask), function(wide, wide_mask))


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 100))
def test_groups_hold_each_utterance_once_within_the_budget(lengths, budget):
    found = list(groups(lengths, budget))
    assert sorted(i for group in found for i in group) == list(range(len(lengths)))
    for group in found:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget
    order = [lengths[i] for group in found for i in group]
    assert order == sorted(order)


@pytest.mark.parametrize("lengths", [(1, 160, 161, 4000), (479,)])
def test_frames_are_cut_around_the_middle_of_each_hop(lengths):
    rng = np.random.default_rng(0)
    signals = [torch.tensor(rng.standard_normal(n), dtype=torch.float32) for n in lengths]
    group = Group.of(signals, torch.device("cpu"))
    frames = torch.cat(list(group.blocks(400)))
    assert group.counts == tuple(-(-n // 160) for n in lengths)
    row = 0
    for signal, count in zip(signals, group.counts, strict=True):
        padded = np.concatenate([np.zeros(400), signal.numpy(), np.zeros(800)])
        for frame in range(count):
            start = 400 + frame * 160 + 80 - 200
            np.testing.assert_array_equal(frames[row].numpy(), padded[start : start + 400].astype(np.float32))
            row += 1
    assert row == len(frames)
