"""A site in a masked sum, against a provider that tries what it should not: every answer is the code MASK.

The provider of these tests holds all keys, its own and the other sites', and signs whatever it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fedser.bundle.keys import fingerprint
from fedser.errors import StateError
from fedser.federation import secure_state, wire
from fedser.federation.provider import Flight
from fedser.federation.schema import Code, Masked, Order, Terms
from fedser.federation.secure_context import list_digest, roster_digest, task_digest
from fedser.federation.secure_schema import (
    Consent,
    KeysOrder,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Member,
    Revealed,
    Roster,
    Survivors,
    Unmask,
)
from fedser.federation.secure_site import SecureSite
from fedser.privacy.settings import MaskingSettings
from tests.federation.masks import Stub, key, name, provider, start, stubs

TERMS = Terms(threshold=3, grid=20, modulus=32, clip=4.0)
SITES = 5
COMMON: dict[str, Any] = {"study": "study", "round": 1, "expires": 2**40}


class Game:
    """One attempt at a masked sum, step by step; ``site`` is the one under attack."""

    def __init__(
        self, policy: MaskingSettings | None = None, attempt: int = 0, sites: dict[str, Stub] | None = None
    ) -> None:
        self.sites = sites or stubs(SITES, policy=policy)
        self.site = self.sites[name(0)]
        self.attempt = attempt
        self.common = {**COMMON, "attempt": attempt}

    def read(self, site: str, reply: bytes | Code) -> Any:
        assert isinstance(reply, bytes), reply
        return wire.read(reply, self.sites[site].key.public_hex)

    def keys_order(self, site: str, **changes: Any) -> KeysOrder:
        return KeysOrder(**{"protocol": 1, "site": site, "terms": TERMS, **self.common, **changes})

    def roster(self, site: str = name(0), **changes: Any) -> Roster:
        """Every site's keys, asked for anew the first time."""
        if not hasattr(self, "members"):
            self.members = []
            for other, stub in self.sites.items():
                opened = self.read(other, stub.said(self.keys_order(other)))
                said = opened.message
                self.members.append(
                    Member(
                        other, stub.key.public_hex, said.encryption, said.agreement, said.commitment, opened.signature
                    )
                )
        return Roster(
            **{"protocol": 1, "site": site, "terms": TERMS, "members": tuple(self.members), **self.common, **changes}
        )

    def boxes(self) -> dict[str, dict[str, str]]:
        """Every site's boxes, by sender and receiver."""
        found = {}
        for site, stub in self.sites.items():
            said = self.read(site, stub.said(self.roster(site))).message
            assert isinstance(said, MaskShares)
            found[site] = dict(zip((other for other in self.sites if other != site), said.boxes, strict=True))
        return found

    def order(self, site: str = name(0), senders: tuple[str, ...] | None = None, **changes: Any) -> Order:
        if not hasattr(self, "sealed"):
            self.sealed = self.boxes()
        senders = senders or tuple(self.sites)
        masked = Masked(
            **{
                "terms": TERMS,
                "roster": roster_digest(self.roster()),
                "senders": senders,
                "boxes": tuple(self.sealed[sender][site] for sender in senders if sender != site),
                **changes.pop("masked", {}),
            }
        )
        node = provider(self.sites, None, threshold=3)
        bare = node.order(1, site, "train", start(), Flight(self.attempt, 2**40))
        return replace(bare, **{"masking": masked, **changes})

    def upload(self, *sites: str) -> None:
        for site in sites or tuple(self.sites):
            assert isinstance(self.read(site, self.sites[site].said(self.order(site))).message, MaskedUpdate)

    @property
    def task(self) -> str:
        return task_digest(self.order())

    def survivors(self, names: tuple[str, ...], **changes: Any) -> Survivors:
        about = {"protocol": 1, "site": name(0), "task": self.task, "survivors": names, **self.common}
        return Survivors(**{**about, **changes})

    def consents(self, names: tuple[str, ...], signers: tuple[str, ...] | None = None) -> tuple[tuple[str, str], ...]:
        """Signatures under a list, made with the sites' own keys: all of them collude."""
        digest = list_digest(self.task, names)
        signed = []
        for site in signers or names:
            said = Consent(protocol=1, site=site, task=self.task, survivors=digest)
            signed.append((site, self.sites[site].key.sign(wire.signed_bytes(said)).hex()))
        return tuple(signed)

    def unmask(self, names: tuple[str, ...], **changes: Any) -> Unmask:
        about = {"protocol": 1, "site": name(0), "task": self.task, "survivors": list_digest(self.task, names)}
        return Unmask(**{**about, "consents": self.consents(names), **self.common, **changes})


ALL = tuple(name(number) for number in range(SITES))
FOUR = ALL[:4]


def changed_member(**changes: Any) -> Callable[[Game], Roster]:
    """A roster in which one other site's entry was changed, and signed anew by that site's key where it is."""

    def make(game: Game) -> Roster:
        roster = game.roster()
        return replace(
            roster, members=(*roster.members[:2], replace(roster.members[2], **changes), *roster.members[3:])
        )

    return make


def resigned(game: Game, member: Member, signer: int) -> Member:
    said = MaskKeys(1, "study", 1, 0, member.site, TERMS, member.encryption, member.agreement, member.commitment)
    made = key(signer)
    return replace(member, signer=made.public_hex, signature=made.sign(wire.signed_bytes(said)).hex())


def with_copied_keys(game: Game) -> Roster:
    """A member that repeats this site's own public keys, correctly signed by its own long-term key."""
    members = list(game.roster().members)
    copied = replace(members[2], encryption=members[0].encryption, agreement=members[0].agreement)
    members[2] = resigned(game, copied, 2)
    return game.roster(members=tuple(members))


def with_one_signer_twice(game: Game) -> Roster:
    members = list(game.roster().members)
    members[2] = resigned(game, members[2], 1)
    return game.roster(members=tuple(members))


ROSTERS: dict[str, Callable[[Game], Roster]] = {
    "another encryption key": changed_member(encryption="11" * 32),
    "another agreement key": changed_member(agreement="11" * 32),
    "another commitment": changed_member(commitment="11" * 32),
    "another name": changed_member(site="site-02b"),
    "another signer": changed_member(signer=key(40).public_hex),
    "another signature": changed_member(signature="22" * 64),
    "keys twice": with_copied_keys,
    "a signer twice": with_one_signer_twice,
    "without this site": lambda game: game.roster(members=game.roster().members[1:]),
    "own keys exchanged": lambda game: game.roster(
        members=(resigned(game, replace(game.roster().members[0], agreement="33" * 32), 0), *game.roster().members[1:])
    ),
    "out of order": lambda game: game.roster(members=game.roster().members[::-1]),
    "a member twice": lambda game: game.roster(members=(*game.roster().members[:2], *game.roster().members[1:])),
    "fewer than the threshold": lambda game: game.roster(members=game.roster().members[:2]),
    "another threshold": lambda game: game.roster(terms=replace(TERMS, threshold=4)),
    "another grid": lambda game: game.roster(terms=replace(TERMS, grid=21)),
    "a later attempt": lambda game: game.roster(attempt=1),
}


@pytest.mark.parametrize("what", ROSTERS)
def test_a_changed_roster_is_refused(what: str) -> None:
    game = Game()
    assert game.site.said(ROSTERS[what](game)) == Code.MASK
    assert isinstance(game.read(name(0), game.site.said(game.roster())).message, MaskShares)  # the right one is not


@pytest.mark.parametrize("threshold", [2, 3])
def test_half_of_a_roster_is_no_threshold(threshold: int) -> None:
    terms = replace(TERMS, threshold=threshold)
    game = Game()
    game.keys_order = lambda site, **changes: KeysOrder(1, site=site, terms=terms, **game.common)  # type: ignore[method-assign]
    said = game.site.said(game.roster(terms=terms))
    assert (said == Code.MASK) == (threshold == 2)


def test_the_smallest_cohort_is_the_sites_own_policy() -> None:
    for honest, refused in ((3, False), (4, True)):
        game = Game(MaskingSettings(honest=honest))
        assert (game.site.said(game.roster()) == Code.MASK) == refused


def known(*numbers: int, exchanged: int | None = None) -> dict[str, str]:
    return {name(n): fingerprint(key(40 if n == exchanged else n).public_hex) for n in numbers}


@pytest.mark.parametrize(
    ("peers", "accepted"),
    [
        (known(1, 2, 3, 4), True),
        (known(0, 1, 2, 3, 4, 5), True),
        (known(1, 2, 3), False),
        (known(1, 2, 3, 4, exchanged=2), False),
    ],
)
def test_peers_are_those_of_the_policys_fingerprints(peers: dict[str, str], accepted: bool) -> None:
    game = Game(MaskingSettings(peers=peers))
    assert (game.site.said(game.roster()) == Code.MASK) == (not accepted)


def test_against_an_active_provider_it_takes_two_thirds_and_fingerprints() -> None:
    with pytest.raises(ValidationError, match="fingerprints"):
        MaskingSettings(active=True)
    game = Game(MaskingSettings(active=True, peers=known(1, 2, 3, 4)))
    assert game.site.said(game.roster()) == Code.MASK  # three of five are no two thirds
    terms = replace(TERMS, threshold=4)
    game = Game(MaskingSettings(active=True, peers=known(1, 2, 3, 4)))
    game.keys_order = lambda site, **changes: KeysOrder(1, site=site, terms=terms, **game.common)  # type: ignore[method-assign]
    assert isinstance(game.site.said(game.roster(terms=terms)), bytes)


def test_a_second_roster_of_one_attempt_is_refused() -> None:
    game = Game()
    first = game.site.said(game.roster())
    assert game.site.said(game.roster()) == first  # the same one again: the same bytes
    smaller = game.roster(members=game.roster().members[:4])
    assert game.site.said(smaller) == Code.MASK


def other_attempt(game: Game) -> dict[str, Any]:
    """The boxes of another attempt of the same sites."""
    other = Game(attempt=1)
    return {"boxes": other.order().masking.boxes}  # type: ignore[union-attr]


def altered(game: Game) -> dict[str, Any]:
    box, *rest = game.order().masking.boxes  # type: ignore[union-attr]
    return {"boxes": (box[:60] + ("0" if box[60] != "0" else "1") + box[61:], *rest)}


ORDERS: dict[str, Callable[[Game], dict[str, Any]]] = {
    "replayed shares": lambda game: {"masked": other_attempt(game)},
    "an altered share": lambda game: {"masked": altered(game)},
    "shares exchanged": lambda game: {"masked": {"boxes": game.order().masking.boxes[::-1]}},  # type: ignore[union-attr]
    "a share too few": lambda game: {"masked": {"boxes": game.order().masking.boxes[1:]}},  # type: ignore[union-attr]
    "shares for another site": lambda game: {"masked": {"boxes": game.order(name(1)).masking.boxes}},  # type: ignore[union-attr]
    "too few senders": lambda game: {"senders": ALL[:2]},
    "senders without this site": lambda game: {"masked": {"senders": ALL[1:], "boxes": ("00" * 94,) * 3}},
    "a sender twice": lambda game: {"masked": {"senders": (*ALL, ALL[-1]), "boxes": ("00" * 94,) * 5}},
    "a sender of no roster": lambda game: {"masked": {"senders": (*FOUR, "site-99")}},
    "another roster": lambda game: {"masked": {"roster": "0" * 64}},
    "other terms": lambda game: {"masked": {"terms": replace(TERMS, grid=10)}},
    "fewer bytes": lambda game: {"encoding": "i8"},
    "another attempt": lambda game: {"attempt": 1},
    "another round": lambda game: {"round": 2},
}


@pytest.mark.parametrize("what", ORDERS)
def test_an_order_with_other_masks_is_refused(what: str) -> None:
    game = Game()
    assert game.site.said(game.order(**ORDERS[what](game))) == Code.MASK
    assert isinstance(game.site.said(game.order()), bytes)


def test_an_order_to_finish_has_no_masks_and_one_to_train_needs_them_by_policy() -> None:
    game = Game(MaskingSettings(required=True))
    order = game.order()
    assert game.site.secure.admit(replace(order, masking=None)) == Code.MASK
    assert game.site.secure.admit(replace(order, phase="finish", masking=None)) is None
    assert game.site.secure.admit(replace(order, phase="finish")) == Code.MASK
    assert Game().site.secure.admit(replace(order, masking=None)) is None  # a policy that demands none


def test_there_is_one_payload_an_attempt() -> None:
    """After the masked update the site has no secret left to mask another one with, on disk neither."""
    game = Game()
    game.upload()
    state = game.site.kept[-1]
    assert (state.seed, state.agreement, state.encryption) == ("", "", "")
    assert game.site.said(game.order()) == Code.MASK
    assert game.site.said(game.order(seed=5)) == Code.MASK


def test_shares_are_gone_from_the_disk_once_the_sum_was_unmasked() -> None:
    """Both kinds of share of a survivor lie at its peers until then; the kind that is not given goes for good."""
    game = Game()
    game.upload(*FOUR)
    game.site.said(game.survivors(FOUR))
    held = game.site.kept[-1].shares
    assert set(held) == set(ALL)
    first = game.site.said(game.unmask(FOUR))
    text = game.site.kept[-1].model_dump_json()
    assert not any(held[site][0] in text for site in FOUR)  # shares of survivors' keys
    assert not any(held[site][1] in text for site in ALL if site not in FOUR)  # of the seeds of those that are left out
    assert game.site.said(game.unmask(FOUR)) == first
    assert game.site.said(game.unmask(FOUR, consents=game.consents(FOUR, FOUR[:3]))) == Code.MASK


LISTS: dict[str, Callable[[Game], Survivors]] = {
    "another task": lambda game: game.survivors(ALL, task="0" * 64),
    "too few": lambda game: game.survivors(ALL[:2]),
    "without this site": lambda game: game.survivors(ALL[1:]),
    "a stranger": lambda game: game.survivors((*FOUR, "site-99")),
    "a site twice": lambda game: game.survivors((*FOUR, FOUR[-1])),
    "out of order": lambda game: game.survivors(ALL[::-1]),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_list_that_does_not_fit_is_refused(what: str) -> None:
    game = Game()
    game.upload()
    assert game.site.said(LISTS[what](game)) == Code.MASK
    assert isinstance(game.site.said(game.survivors(ALL)), bytes)


def test_two_different_lists_are_refused_after_a_restart_too() -> None:
    game = Game()
    game.upload()
    first = game.site.said(game.survivors(ALL))
    assert game.site.said(game.survivors(FOUR)) == Code.MASK
    state = secure_state.SecureState.model_validate_json(game.site.kept[-1].model_dump_json())
    again = SecureSite(name(0), MaskingSettings(), key(0), state)
    assert again.answer(game.survivors(FOUR)) == Code.MASK
    assert again.answer(game.survivors(ALL)) == first


CONSENTS: dict[str, Callable[[Game], dict[str, Any]]] = {
    "none": lambda game: {"consents": ()},
    "too few": lambda game: {"consents": game.consents(FOUR, FOUR[:2])},
    "one twice": lambda game: {"consents": game.consents(FOUR, (FOUR[0], FOUR[1], FOUR[1]))},
    "of another list": lambda game: {"consents": game.consents(ALL, FOUR)},
    "of no survivor": lambda game: {"consents": game.consents(FOUR, ALL)},
    "in another's name": lambda game: {
        "consents": tuple((site, game.consents(FOUR, (FOUR[1],))[0][1]) for site in FOUR)
    },
    "another list": lambda game: {"survivors": list_digest(game.task, ALL), "consents": game.consents(ALL)},
    "another task": lambda game: {"task": "0" * 64},
}


@pytest.mark.parametrize("what", CONSENTS)
def test_nothing_is_revealed_without_enough_signatures_under_the_one_list(what: str) -> None:
    game = Game()
    game.upload(*FOUR)
    assert isinstance(game.site.said(game.survivors(FOUR)), bytes)
    assert game.site.said(game.unmask(FOUR, **CONSENTS[what](game))) == Code.MASK
    assert isinstance(game.site.said(game.unmask(FOUR)), bytes)


def test_nothing_is_revealed_before_the_upload_or_the_list() -> None:
    game = Game()
    game.order()
    assert game.site.said(game.survivors(ALL)) == Code.MASK
    assert game.site.said(game.unmask(ALL)) == Code.MASK
    game.upload()
    assert game.site.said(game.unmask(ALL)) == Code.MASK


def test_both_kinds_of_share_are_never_given_for_one_peer() -> None:
    """A provider with every other site's key tries all lists of survivors, in many orders, and reads all answers."""
    lists = [ALL[:1] + rest for size in (2, 3, 4) for rest in combinations(ALL[1:], size)]
    for turn in shuffled(lists, 33):
        game = Game()
        game.upload()
        seeds, keys = set[str](), set[str]()
        for names in turn:
            game.site.said(game.survivors(names))
            reply = game.site.said(game.unmask(names))
            if isinstance(reply, bytes):
                told = game.read(name(0), reply).message
                assert isinstance(told, Revealed)
                seeds |= set(names)
                keys |= set(ALL) - set(names)
                assert (len(told.seeds), len(told.keys)) == (len(names), SITES - len(names))
        assert seeds == set(turn[0])
        assert not seeds & keys


def shuffled(lists: list[tuple[str, ...]], count: int) -> list[list[tuple[str, ...]]]:
    """Orders of the lists in which each comes first."""
    turns = []
    for turn in range(count):
        order = torch.randperm(len(lists), generator=torch.Generator().manual_seed(turn)).tolist()
        first = turn % len(lists)
        turns.append([lists[first], *(lists[number] for number in order if number != first)])
    return turns


def test_one_round_has_one_sum() -> None:
    """Two sums of one round over different sites would differ by one site's update: the second list is refused."""
    game = Game()
    game.upload()
    game.site.said(game.survivors(ALL))
    assert isinstance(game.site.said(game.unmask(ALL)), bytes)
    for names, refused in ((FOUR, True), (ALL, False)):
        for stub in game.sites.values():
            stub.kept.clear()
        again = Game(attempt=1 if refused else 2, sites=game.sites)
        again.upload()
        assert (game.site.said(again.survivors(names)) == Code.MASK) == refused


def test_old_and_future_messages_are_refused() -> None:
    game = Game(attempt=1)
    game.upload()
    old = Game(sites=game.sites)
    assert game.site.said(old.keys_order(name(0))) == Code.STALE
    assert game.site.said(game.keys_order(name(0), expires=1)) == Code.EXPIRED
    assert game.site.said(game.keys_order(name(1))) == Code.OTHER_SITE
    assert game.site.said(game.keys_order(name(0), study="other")) == Code.OTHER_STUDY
    assert game.site.said(game.survivors(ALL, attempt=0)) == Code.STALE
    assert game.site.said(game.survivors(ALL, attempt=2)) == Code.MASK


def test_a_repeat_gets_the_stored_bytes_from_disk_too(tmp_path: Any) -> None:
    path = tmp_path / "masking.json"
    game = Game()
    first = game.site.said(game.roster())
    secure_state.save(path, game.site.kept[-1])
    assert path.stat().st_mode & 0o077 == 0
    state = secure_state.load(path, "study")
    assert state == game.site.secure.state
    again = SecureSite(name(0), MaskingSettings(), key(0), state)
    assert again.answer(game.roster()) == first
    assert secure_state.load(path, "another") is None
    path.write_text(path.read_text()[:-20])
    with pytest.raises(StateError, match="damaged"):
        secure_state.load(path, "study")


def test_keys_seeds_and_nonces_are_fresh_in_every_attempt() -> None:
    seen = set()
    for attempt in range(20):
        site = Stub(0)
        site.said(KeysOrder(1, site=name(0), terms=TERMS, attempt=attempt, **COMMON))
        state = site.kept[-1]
        seen |= {state.seed, state.agreement, state.encryption}
    assert len(seen) == 60
