"""The mailroom: the one transport of the rounds over Flower's link state and object store.

Both lie in memory: the project's roster is the truth about sites and its checkpoint the truth about rounds, and
neither weights nor updates touch the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from fedser.errors import WireError
from fedser.federation.flower import environment, letter
from fedser.federation.flower.binding import Binding, Mail
from fedser.federation.provider import Silence

_RUN_HEARTBEAT = 20.0  # seconds; Flower gives up a run after 60
_STALLED = 30.0  # seconds without a byte after which a begun reply frees its place


class StoppedError(Exception):
    """The mailroom was closed while an exchange went on."""


class Mailroom:
    """Brings orders to sites and their replies back.

    Args:
        largest: bytes of the largest payload of an order or reply.
        deadline: seconds after which an exchange goes on without a site.
        patience: seconds without a sign of life after which it does so earlier.

    Attributes:
        binding: what each site may do at present.
        factory: of Flower's link state, for its routes.
        ring: called with a node's id when there is mail for it.
        closed: set when the mailroom closes.
    """

    def __init__(self, largest: int, *, deadline: float = 600.0, patience: float = 60.0) -> None:
        environment.quieten()
        self.factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.largest = largest
        self.deadline = deadline
        self.patience = patience
        self.ring: Callable[[int], None] = lambda node: None
        self.closed = threading.Event()
        self._state = self.factory.state()
        self._store = self._state.object_store
        self._run, self._task = _open_run(self._state)
        self.binding = Binding(self._run, largest)
        self._nodes: dict[str, int] = {}
        self._sites: dict[int, str] = {}
        self._keys: dict[str, bytes] = {}
        self._heard: dict[int, float] = {}
        self._done: list[Mail] = []
        self._news = threading.Condition()
        threading.Thread(target=self._keep_run_alive, name="fedser-run", daemon=True).start()

    # Sites

    def admit(self, site: str, key: bytes) -> None:
        """Let a site in.

        Args:
            site: its name.
            key: its node key, an EC public key in PEM, as Flower's node authentication presents it.
        """
        if self._keys.get(site) == key:
            return
        self.expel(site)
        node = self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)
        # Flower takes messages, and deletions, only for nodes that were once online.
        self._state.acknowledge_node_heartbeat(node, 10)
        self._state.deactivate_node(node)
        self._nodes[site], self._sites[node], self._keys[site] = node, site, key

    def expel(self, site: str) -> None:
        """Shut a site out, and drop its mail."""
        node = self._nodes.pop(site, None)
        if node is None:
            return
        self._keys.pop(site)
        self._state.delete_node(NOOP_FLWR_AID, node)
        self._sites.pop(node)
        self._heard.pop(node, None)
        with self._news:
            self._news.notify_all()

    def site_of(self, node: int) -> str | None:
        """The site of a node, None where there is none."""
        return self._sites.get(node)

    def hear(self, node: int) -> None:
        """Note a sign of life."""
        self._heard[node] = time.monotonic()

    def online(self) -> set[str]:
        """Sites that gave a sign of life within the patience."""
        now = time.monotonic()
        heard = dict(self._heard)
        return {site for site, node in dict(self._nodes).items() if now - heard.get(node, -1e9) <= self.patience}

    def returned(self, key: bytes) -> bool:
        """A process of a site reports for duty: what an earlier one had in flight is lost, and laid ready again.

        Args:
            key: the node key, which its authentication has proved.

        Returns:
            False when no site has this key.
        """
        node = self._state.get_node_id_by_public_key(key)
        if node is None or node not in self._sites:
            return False
        self._state.deactivate_node(node)  # Flower would wait for the earlier process' heartbeats to stop
        self.hear(node)
        with self.binding.lock:
            mail = self.binding.open.get(node)
            if mail is not None and not mail.complete:
                self.lay(mail)
        return True

    # Rounds

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
        """See :class:`fedser.federation.provider.Transport`; replies are taken in one at a time.

        Raises:
            StoppedError: the mailroom was closed.
        """
        begin = time.monotonic()
        try:
            strangers = []
            for site, order in orders:
                if not self._post(site, order):
                    strangers.append(site)
                del order  # before the next one is made
            for site in strangers:
                yield site, Silence("The site is not enrolled.")
            while (mail := self._next(begin)) is not None:
                yield mail.site, self._take(mail)
        finally:
            with self.binding.lock:
                self.binding.open.clear()
                self._done.clear()
            self._state.cleanup_run(self._run)

    def close(self) -> None:
        """End a running exchange."""
        self.closed.set()
        with self._news:
            self._news.notify_all()

    def _post(self, site: str, order: bytes) -> bool:
        """Lay an order ready for a site; False when there is no such site."""
        node = self._nodes.get(site)
        if node is None:
            return False
        metadata = Metadata(
            run_id=self._run,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=self.deadline + 3600,
            message_type="train",
        )
        metadata.delivered_at = ""
        with no_object_id_recompute():  # each object's digest is taken once
            message = make_message(metadata, letter.content(order))
            metadata.__dict__["_message_id"] = message.object_id
            objects, tree = get_all_nested_objects(message), get_object_tree(message)
        # Contents that another site's order has too are kept once.
        kept = {name: self._store.get(name) or part.deflate() for name, part in objects.items()}
        mail = Mail(site, node, remove_content_from_message(message), tree, kept)
        with self.binding.lock:
            self.lay(mail)
            self.binding.open[node] = mail
        self.ring(node)
        return True

    def lay(self, mail: Mail) -> None:
        """Lay an order ready for its site, the first time or again; what came of a reply is dropped."""
        if mail.reply:
            self._drop(mail.tree)
            self.binding.forget_reply(mail)
        self._state.delete_messages({mail.message_id})
        mail.delivered, mail.message.metadata.delivered_at = 0.0, ""
        session = self._state.start_session(self._run)
        _, missing = self._state.store_message_and_object_tree(mail.message, mail.layout, session)
        for object_id in missing:
            self._state.store_object(self._run, session, object_id, mail.objects[object_id])

    def take_in(self, mail: Mail) -> bool:
        """Announce a complete reply; False when it is not there: Flower says yes to replies that it did not store."""
        if all(self._store.get(object_id) for object_id in mail.tree):
            with self._news:
                self._done.append(mail)
                self._news.notify_all()
            return True
        with self.binding.lock:
            mail.complete = 0.0
            self.lay(mail)
        return False

    def _next(self, begin: float) -> Mail | None:
        """The next mail with a reply, or one whose site stays silent; None when none is open."""
        with self._news:
            while True:
                if self.closed.is_set():
                    raise StoppedError
                if self._done:
                    return self._done.pop(0)
                with self.binding.lock:
                    if not self.binding.open:
                        return None
                    for mail in self.binding.open.values():
                        if mail.complete:
                            continue
                        mail.lost = self._silence(mail, begin)
                        if mail.lost:
                            self.binding.open.pop(mail.node)  # what comes of it from now on is too late
                            return mail
                        if mail.reply and time.monotonic() - mail.moved > _STALLED:
                            self.lay(mail)  # others may push meanwhile, and its site may begin again
                self._news.wait(0.5)

    def _silence(self, mail: Mail, begin: float) -> str:
        """Why to go on without a site; empty while there is hope."""
        now = time.monotonic()
        if self._nodes.get(mail.site) != mail.node:
            return "The site was revoked, or has left."
        if now - begin > self.deadline:
            return f"No reply within the deadline of {self.deadline:g} s."
        if now - max(self._heard.get(mail.node, begin), begin) > self.patience:
            return f"The site vanished: no sign of life for {self.patience:g} s."
        return ""

    def _take(self, mail: Mail) -> bytes | Silence:
        """The reply's bytes; its objects and the order's leave the memory."""
        contents = {object_id: self._store.get(object_id) or b"" for object_id in mail.tree}
        with self.binding.lock:
            self.binding.open.pop(mail.node, None)
        self._state.delete_messages({mail.message_id})
        self._drop((mail.message_id, *mail.tree))
        if mail.lost:
            return Silence(mail.lost)
        try:
            return letter.read(mail.reply, contents, self.largest)
        except WireError as error:
            return Silence(str(error))

    def _drop(self, ids: Iterable[str]) -> None:
        """Let go of objects that nothing else needs: each of a tree, since a tree may lie about what hangs together."""
        for object_id in ids:
            self._store.delete(object_id)

    def _keep_run_alive(self) -> None:
        while not self.closed.wait(_RUN_HEARTBEAT):
            self._state.acknowledge_task_heartbeat(self._task)


def _open_run(state: LinkState) -> tuple[int, int]:
    """Create, claim and activate a run without an app; returns its id and its task's."""
    run = state.create_run(None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
    task = state.get_run_info(run_ids=[run])[0].primary_task_id
    if task is None or not state.claim_task(task) or not state.activate_task(task):
        raise RuntimeError("Flower's link state did not open a run")
    return run, task
