from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fedser.audio.normalise import Moments, NormalisationSettings, SiteNormaliser, between_speaker_share
from fedser.config import validate
from fedser.errors import AudioError, BundleFormatError, ConfigError, TooLittleDataError

RULES = ("corpus", "speaker", "shrunk", "auto")


def fit(raw: torch.Tensor, speakers: list[str | None], rule: str = "auto", **more: float) -> SiteNormaliser:
    return SiteNormaliser.fit(raw, speakers, NormalisationSettings(rule=rule, **more))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


# --- hand-computed statistics -------------------------------------------------------------------------------

SITE = column(0, 2, 4, 6, 10, 14)  # mean 6, E[x²] = 352/6, variance 68/3
SPEAKERS: list[str | None] = ["a", "a", "a", "a", "b", "b"]  # a: mean 3, variance 5; b: mean 12, variance 4


def test_corpus_by_hand() -> None:
    z = fit(SITE, SPEAKERS, "corpus").transform(SITE, SPEAKERS)
    assert z[:, 0].tolist() == pytest.approx([(x - 6) / math.sqrt(68 / 3) for x in (0, 2, 4, 6, 10, 14)])


def test_speaker_by_hand_and_the_small_one_is_shrunk() -> None:
    normaliser = fit(SITE, SPEAKERS, "speaker", kappa=2)
    z = normaliser.transform(SITE, SPEAKERS)[:, 0].tolist()
    assert z[:4] == pytest.approx([(x - 3) / math.sqrt(5) for x in (0, 2, 4, 6)])
    mean, second = (2 * 12 + 2 * 6) / 4, (2 * (144 + 4) + 2 * 352 / 6) / 4
    assert z[4:] == pytest.approx([(x - mean) / math.sqrt(second - mean**2) for x in (10, 14)])


@pytest.mark.parametrize("kappa", [0.5, 1.0, 7.0, 300.0])
def test_shrunk_by_hand(kappa: float) -> None:
    z = fit(SITE, SPEAKERS, "shrunk", kappa=kappa).transform(SITE, SPEAKERS)[:, 0].tolist()
    mean = (4 * 3 + kappa * 6) / (4 + kappa)
    second = (4 * (9 + 5) + kappa * 352 / 6) / (4 + kappa)
    assert z[:4] == pytest.approx([(x - mean) / math.sqrt(second - mean**2) for x in (0, 2, 4, 6)])


def test_clipped_on_both_sides() -> None:
    raw = torch.cat([noise(50, 1), column(1e6, -1e6)])
    z = fit(noise(50, 1), ["a"] * 50, "corpus").transform(raw, ["a"] * 52)
    assert z[-2:, 0].tolist() == [5.0, -5.0]
    assert fit(noise(50, 1), ["a"] * 50, "corpus", clip=1.5).transform(raw, ["a"] * 52).abs().max() == 1.5


def test_spectrogram_is_normalised_per_band_over_utterances_and_frames() -> None:
    raw = noise(6, 3, 7) * torch.tensor([1.0, 10.0, 100.0])[:, None] + 5
    z = fit(raw, ["a"] * 6, "corpus", clip=100).transform(raw, ["a"] * 6).double().numpy()
    assert np.allclose(z.mean(axis=(0, 2)), 0, atol=1e-6)
    assert np.allclose(z.std(axis=(0, 2)), 1, atol=1e-6)
    own = fit(raw, list("aaaabb"), "speaker", clip=100).transform(raw, list("aaaabb"))[:4].double().numpy()
    assert np.allclose(own.mean(axis=(0, 2)), 0, atol=1e-6)
    assert np.allclose(own.std(axis=(0, 2)), 1, atol=1e-6)


def test_waveforms_are_normalised_one_by_one() -> None:
    raw = 0.1 * noise(3, 1, 16000) + 0.02
    raw[2] = 0.5
    normaliser = fit(raw, ["a", "b", None])
    z = normaliser.transform(raw, ["a", "b", None])
    assert torch.equal(z[:1], normaliser.transform(raw[:1], [None]))
    assert z[:2, 0].mean(dim=1).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert z[:2, 0].std(dim=1).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert z[2].abs().max() == 0
    assert normaliser.tensors() == {}
    assert normaliser.statistics_for("a") == "each utterance by itself"


# --- one site, one set of statistics ------------------------------------------------------------------------


def by_site(
    raw: torch.Tensor, sites: list[str], speakers: list[str | None], rule: str, *, pooled: bool = False
) -> torch.Tensor:
    """Normalise each site by itself; ``pooled`` is the mistake that the test below must catch."""
    result = torch.empty_like(raw)
    for site in set(sites):
        own = [i for i, name in enumerate(sites) if name == site]
        basis = list(range(len(sites))) if pooled else own
        normaliser = fit(raw[basis], [speakers[i] for i in basis], rule)
        result[own] = normaliser.transform(raw[own], [speakers[i] for i in own])
    return result


def two_sites() -> tuple[torch.Tensor, list[str], list[str | None]]:
    raw = noise(40, 5)
    raw[20:] = 3 * raw[20:] + 2
    return raw, ["A"] * 20 + ["B"] * 20, [*"pq"] * 10 + [*"rs"] * 10


@pytest.mark.parametrize("rule", RULES)
def test_changing_site_b_leaves_site_a_unchanged(rule: str) -> None:
    raw, sites, speakers = two_sites()
    changed = raw.clone()
    changed[20:] = changed[20:] * 9 - 4
    assert torch.equal(by_site(raw, sites, speakers, rule)[:20], by_site(changed, sites, speakers, rule)[:20])


@pytest.mark.parametrize("rule", ["corpus", "shrunk", "auto"])
def test_statistics_pooled_over_sites_would_be_noticed(rule: str) -> None:
    raw, sites, speakers = two_sites()
    changed = raw.clone()
    changed[20:] = changed[20:] * 9 - 4
    before = by_site(raw, sites, speakers, rule, pooled=True)[:20]
    after = by_site(changed, sites, speakers, rule, pooled=True)[:20]
    assert (before - after).abs().max() > 0.1
    assert (before - by_site(raw, sites, speakers, rule)[:20]).abs().max() > 0.1


# --- robustness ---------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 12), voices=st.integers(1, 4), seed=st.integers(0, 10**6), rule=st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_matches_a_plain_loop(rows: int, voices: int, seed: int, rule: str) -> None:
    raw = 3 * noise(rows, 4, seed=seed) + 7
    raw[:, 3] = 2.5  # a constant dimension
    speakers: list[str | None] = [None if i % 5 == 4 else f"s{i % voices}" for i in range(rows)]
    normaliser = fit(raw, speakers, rule)
    z = normaliser.transform(raw, speakers)
    assert torch.isfinite(z).all()
    assert z[:, 3].abs().max() == 0
    history = {s: [raw[i] for i in range(rows) if speakers[i] == s] for s in set(speakers) if s is not None}
    for i, speaker in enumerate(speakers):
        own = history.get(speaker, []) if speaker is not None else []
        expected = oracle(raw[i], own, list(raw), normaliser.rule, normaliser.kappa)
        assert z[i].tolist() == pytest.approx(expected, abs=1e-4)


def oracle(x: torch.Tensor, own: list[torch.Tensor], site: list[torch.Tensor], rule: str, kappa: float) -> list[float]:
    """The rules of the documentation, one number at a time."""
    result = []
    for d in range(len(x)):
        everyone = [float(row[d]) for row in site]
        mean = math.fsum(everyone) / len(everyone)
        variance = math.fsum((value - mean) ** 2 for value in everyone) / len(everyone)
        if max(everyone) == min(everyone):
            result.append(0.0)
            continue
        least = 0.01 * math.sqrt(variance)
        if own and rule != "corpus":
            mine = [float(row[d]) - mean for row in own]
            n, pull = len(mine), 0.0 if rule == "speaker" and len(mine) >= 4 else kappa
            first = math.fsum(mine) / (n + pull)
            second = (math.fsum(value**2 for value in mine) + pull * variance) / (n + pull)
            mean, variance = mean + first, second - first**2
        z = (float(x[d]) - mean) / max(math.sqrt(max(variance, 0.0)), least)
        result.append(min(max(z, -5.0), 5.0))
    return result


def test_large_offsets_lose_no_digits() -> None:
    raw = noise(30, 2).double()
    speakers: list[str | None] = ["a", "b", "c"] * 10
    for rule in RULES:
        near = fit(raw, speakers, rule).transform(raw, speakers)
        far = fit(raw + 1e7, speakers, rule).transform(raw + 1e7, speakers)
        assert torch.allclose(near, far, atol=1e-5)


def test_one_utterance_is_the_sites_centre() -> None:
    raw = noise(1, 3)
    for rule in RULES:
        assert fit(raw, ["a"], rule).transform(raw, ["a"]).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    raw = noise(5, 3)
    normaliser = fit(raw, ["a"] * 5)
    raw[3, 1] = bad
    steps: list[Callable[[], object]] = [
        lambda: fit(raw, ["a"] * 5),
        lambda: normaliser.transform(raw, ["a"] * 5),
        lambda: normaliser.transform_causal(raw, ["a"] * 5),
        lambda: normaliser.observe(raw, "a"),
    ]
    for step in steps:
        with pytest.raises(AudioError, match="Utterance 3"):
            step()


def test_other_misuse_is_refused() -> None:
    with pytest.raises(TooLittleDataError):
        fit(torch.empty(0, 4), [])
    with pytest.raises(AudioError, match="shape"):
        fit(noise(4, 3), ["a"] * 4).transform(noise(2, 5), ["a"] * 2)
    with pytest.raises(ValueError, match="3 speakers for 4"):
        fit(noise(4, 3), ["a"] * 3)
    with pytest.raises(ConfigError):
        validate(NormalisationSettings, {"kappa": -1})


# --- auto ---------------------------------------------------------------------------------------------------


def voices(
    identity: float, emotion: float, mixed: float, speakers: int = 10, each: int = 20, seed: int = 0
) -> tuple[torch.Tensor, list[str | None]]:
    """Speech whose speakers show one emotion each (``mixed`` 0) or every emotion alike (1)."""
    random = torch.Generator().manual_seed(seed)
    offset = identity * torch.randn(speakers, 1, 30, generator=random)
    centres = emotion * torch.randn(5, 30, generator=random)
    kind = torch.arange(speakers)[:, None].expand(speakers, each).clone()
    any_kind = torch.randint(0, 5, (speakers, each), generator=random)
    use = torch.rand(speakers, each, generator=random) < mixed
    kind = torch.where(use, any_kind, kind) % 5
    raw = offset + centres[kind] + torch.randn(speakers, each, 30, generator=random)
    return raw.flatten(0, 1), [f"s{i}" for i in range(speakers) for _ in range(each)]


def test_auto_trusts_speakers_who_show_every_emotion_and_not_those_who_show_one() -> None:
    kappas = [fit(*voices(0.5, 0.8, mixed)).kappa for mixed in (1.0, 0.7, 0.4, 0.0)]
    assert kappas == sorted(kappas)
    assert kappas[0] <= 3
    assert kappas[-1] >= 100


def test_auto_depends_on_no_name_order_or_unit() -> None:
    raw, speakers = voices(0.5, 0.8, 0.5)
    order = torch.randperm(len(raw), generator=torch.Generator().manual_seed(1))
    renamed: list[str | None] = [f"x{str(speakers[i])[::-1]}" for i in order.tolist()]
    scaled = (raw * torch.logspace(-6, 6, 30) + 3)[order]
    assert fit(raw, speakers).kappa == pytest.approx(fit(scaled, renamed).kappa, rel=0.02)


def test_share_is_the_textbook_anova_estimate() -> None:
    raw, speakers = voices(0.7, 0.0, 1.0, speakers=4, each=6)
    x = raw.double().numpy()
    x = (x - x.mean(0)) / x.std(0)
    shares = []
    for d in range(x.shape[1]):
        groups = [x[6 * k : 6 * k + 6, d] for k in range(4)]
        within = sum(((g - g.mean()) ** 2).sum() for g in groups) / 20
        raised = sum(6 * g.mean() ** 2 for g in groups) / 3
        shares.append((raised - within) / (raised + 5 * within))  # intraclass correlation, equal group sizes
    assert between_speaker_share(raw.double(), speakers) == (pytest.approx(np.mean(shares), abs=1e-9), 4)


def test_auto_hears_the_speakers_of_spectrograms_through_padding() -> None:
    raw, speakers = voices(0.5, 0.8, 0.0)
    alike, same = voices(0.5, 0.8, 1.0)
    frames = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(3))
    lengths = torch.randint(10, 40, (200, 1, 1), generator=torch.Generator().manual_seed(4))
    silent = torch.arange(40) >= lengths
    one_each = torch.where(silent, -20.0, raw[:, :, None] + frames)
    every = torch.where(silent, -20.0, alike[:, :, None] + frames)
    assert fit(one_each, speakers).kappa >= 100
    assert fit(every, same).kappa <= 3


@pytest.mark.parametrize("speakers", [[None] * 6, ["a"] * 6, [*"abcdef"], [None, None, None, *"aab"]])
def test_auto_without_much_to_compare_stays_moderate(speakers: list[str | None]) -> None:
    normaliser = fit(noise(6, 4), speakers)
    assert normaliser.rule == "shrunk"
    assert 1 <= normaliser.kappa <= 100
    assert normaliser.reason.endswith(".")


def test_one_speaker_site_equals_the_sites_statistics() -> None:
    raw = noise(12, 4)
    expected = fit(raw, ["a"] * 12, "corpus").transform(raw, ["a"] * 12)
    assert torch.allclose(fit(raw, ["a"] * 12).transform(raw, ["a"] * 12), expected, atol=1e-6)


# --- causal use ---------------------------------------------------------------------------------------------


@given(
    who=st.lists(st.sampled_from(["a", "b", "new", None]), min_size=1, max_size=10),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_causal_matches_a_slow_loop(who: list[str | None], rule: str, seed: int) -> None:
    site, raw = noise(8, 3, seed=seed), 2 * noise(len(who), 3, seed=seed + 1)
    known: list[str | None] = [*"aaaabbb", None]
    normaliser = fit(site, known, rule)
    z = normaliser.transform_causal(raw, who)
    for i, speaker in enumerate(who):
        earlier = [site[j] for j in range(8) if known[j] == speaker]
        own = earlier + [raw[j] for j in range(i + 1) if who[j] == speaker]
        expected = oracle(raw[i], own if speaker else [], list(site), normaliser.rule, normaliser.kappa)
        assert z[i].tolist() == pytest.approx(expected, abs=1e-4)


def test_causal_ignores_later_utterances_and_leaves_no_trace() -> None:
    normaliser = fit(noise(20, 3), ["a", "b"] * 10)
    raw, speakers = noise(6, 3, seed=5), ["new", "a", "new", "a", "new", None]
    z = normaliser.transform_causal(raw, speakers)
    changed = raw.clone()
    changed[3:] = 100
    assert torch.equal(normaliser.transform_causal(changed, speakers)[:3], z[:3])
    assert normaliser.statistics_for("new") == "site (20 utterances)"


def test_observe_is_told_and_kept() -> None:
    normaliser = fit(noise(20, 3), ["a", "b"] * 10, "speaker")
    assert normaliser.statistics_for("c").startswith("site (20")
    fresh = noise(5, 3, seed=9)
    for row in fresh:
        normaliser.observe(row[None], "c")
    normaliser.observe(fresh, None)
    assert normaliser.statistics_for("c") == "speaker c (5 utterances)"
    z = normaliser.transform(fresh, ["c"] * 5)
    assert z.mean(dim=0).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert "κ = 10" in fit(noise(20, 3), ["a", "b"] * 10, "shrunk").statistics_for("a")


def test_moments_add_like_one_group() -> None:
    x = noise(9, 3).double()
    whole = Moments.of(x, torch.zeros_like(x))
    parts = Moments.of(x[:4], torch.zeros(4, 3)).add(Moments.of(x[4:], torch.zeros(5, 3)))
    assert parts.count == 9
    assert torch.allclose(parts.mean, whole.mean, atol=1e-12)
    assert torch.allclose(parts.variance, whole.variance, atol=1e-12)


# --- stored and restored ------------------------------------------------------------------------------------


def stored(normaliser: SiteNormaliser, folder: Path, **flags: bool) -> SiteNormaliser:
    tensors, header = normaliser.tensors(**flags), json.loads(json.dumps(normaliser.header(**flags)))
    if tensors:
        save_file(tensors, folder / "n.safetensors")
        tensors = load_file(folder / "n.safetensors")
    return SiteNormaliser.restore(tensors, header)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (1, 8000), (8000,)])
@pytest.mark.parametrize("rule", RULES)
def test_round_trip_is_exact(rule: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    raw, speakers = noise(12, *shape), ["b", "a", None] * 4
    normaliser = fit(raw, speakers, rule)
    again = stored(normaliser, tmp_path)
    assert torch.equal(again.transform(raw, speakers), normaliser.transform(raw, speakers))
    assert torch.equal(again.transform_causal(raw, speakers), normaliser.transform_causal(raw, speakers))
    assert (again.rule, again.kappa, again.reason) == (normaliser.rule, normaliser.kappa, normaliser.reason)
    assert again.settings == normaliser.settings
    assert again.statistics_for("a") == normaliser.statistics_for("a")


def test_speakers_can_be_left_out(tmp_path: Path) -> None:
    normaliser = fit(noise(12, 3), ["Ann", "Bob"] * 6, "speaker")
    again = stored(normaliser, tmp_path, with_speakers=False)
    assert "Ann" not in json.dumps(normaliser.header(with_speakers=False))
    assert set(normaliser.tensors(with_speakers=False)) == {"site.count", "site.mean", "site.m2"}
    assert again.statistics_for("Ann") == "site (12 utterances)"


def junk() -> dict[str, Callable[[dict[str, torch.Tensor], dict[str, object]], object]]:
    nan = torch.full((1, 3), math.nan, dtype=torch.float64)
    return {
        "missing header entry": lambda t, h: h.pop("kappa"),
        "surplus header entry": lambda t, h: h.update(more=1),
        "other format": lambda t, h: h.update(format=2),
        "rule": lambda t, h: h.update(rule="median"),
        "kappa text": lambda t, h: h.update(kappa="3"),
        "kappa nan": lambda t, h: h.update(kappa=math.nan),
        "kappa negative": lambda t, h: h.update(kappa=-1.0),
        "settings": lambda t, h: h.update(settings={"clip": -5}),
        "reason": lambda t, h: h.update(reason=None),
        "shape": lambda t, h: h.update(shape=[4]),
        "shape text": lambda t, h: h.update(shape=["3"]),
        "shape empty": lambda t, h: h.update(shape=[]),
        "shape deep": lambda t, h: h.update(shape=[3, 3, 3]),
        "speakers unsorted": lambda t, h: h.update(speakers=["b", "a"]),
        "speakers twice": lambda t, h: h.update(speakers=["a", "a"]),
        "speakers numbers": lambda t, h: h.update(speakers=[1, 2]),
        "fewer speakers": lambda t, h: h.update(speakers=["a"]),
        "no speakers": lambda t, h: h.update(speakers=[]),
        "missing tensor": lambda t, h: t.pop("site.m2"),
        "surplus tensor": lambda t, h: t.update(more=nan),
        "nan": lambda t, h: t.update({"site.mean": nan}),
        "float32": lambda t, h: t.update({"site.mean": torch.zeros(1, 3)}),
        "negative": lambda t, h: t.update({"site.m2": torch.full((1, 3), -1.0, dtype=torch.float64)}),
        "count zero": lambda t, h: t.update({"site.count": torch.tensor([0])}),
        "count float": lambda t, h: t.update({"site.count": torch.tensor([3.0])}),
        "not a tensor": lambda t, h: t.update({"site.count": [3]}),
    }


@pytest.mark.parametrize("name", sorted(junk()))
def test_junk_is_refused(name: str) -> None:
    normaliser = fit(noise(12, 3), ["a", "b"] * 6)
    tensors, header = normaliser.tensors(), normaliser.header()
    SiteNormaliser.restore(tensors, header)
    junk()[name](tensors, header)
    with pytest.raises(BundleFormatError) as caught:
        SiteNormaliser.restore(tensors, header)
    assert caught.value.hint
