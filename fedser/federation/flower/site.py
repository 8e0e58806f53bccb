"""The line: a site's side of Flower's fleet protocol.

Flower's own client and node authentication make the calls. The site never asks for code or for a run, and tells
no run times. What Flower's connection object would do on top of the client, end the process when the provider
says so, is left out.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedser.errors import EnrolmentError, NetworkError, WireError
from fedser.federation.flower import environment, letter

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_SLACK = 1 << 22  # bytes of a response beside a chunk
_AT_ONCE = 4  # objects on their way at a time
_BUSY = 120.0  # seconds for which a provider that receives other replies is asked again
_CLOCK = "Look whether this site's clock is right, and whether the provider revoked it."

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Letter:
    """An order as it came, and what its answer must refer to."""

    data: bytes
    header: Message


class Line:
    """A site's connection to its provider; a context manager.

    Args:
        address: ``host:port`` of the provider.
        context: for TLS, trusting the provider's CA alone.
        node_key: SECP384R1 key that was enrolled.
        limit: bytes of the largest order; more is refused before it reaches the memory.
        proxy: URL of an HTTP proxy; the environment's when None.
        heartbeat: seconds between signs of life, at least 10.
    """

    def __init__(
        self,
        address: str,
        context: ssl.SSLContext,
        node_key: ec.EllipticCurvePrivateKey,
        *,
        limit: int,
        proxy: str | None = None,
        heartbeat: float = 10.0,
    ) -> None:
        environment.quieten()
        public = node_key.public_key()
        self._key = public_key_to_bytes(public)
        self._limit = limit
        self._heartbeat = heartbeat
        self._client = FleetHttpClient(
            f"https://{address}", interceptors=[NodeAuthHttpInterceptor(node_key, public)], verify=context
        )
        # Flower's client would follow redirects, to anywhere, and read whatever comes.
        self._client._client.close()
        self._client._client = httpx.Client(
            verify=context,
            timeout=_TIMEOUT,
            follow_redirects=False,
            proxy=proxy,
            headers={"accept-encoding": "identity", "user-agent": "fedser"},
            event_hooks={"response": [_bounded]},
        )
        self._node = Node()
        self._end = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Line:
        """Report for duty.

        Raises:
            NetworkError: the provider cannot be reached, or is not the pinned one.
            EnrolmentError: it does not know this node.
        """
        request = ActivateNodeRequest(public_key=self._key, heartbeat_interval=self._heartbeat)
        try:
            self._node = Node(node_id=_call(lambda: self._client.ActivateNode(request)).node_id)
        except BaseException as error:
            self._client.close()
            if isinstance(error, _StatusError):
                raise error.translated() from None
            raise
        self._end.clear()
        self._beating = threading.Thread(target=self._beat, name="fedser-heartbeat", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take leave, so that a new process of this site is let in at once."""
        self._end.set()
        with suppress(httpx.HTTPError, ValueError, RuntimeError):  # without it the heartbeats tell
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
        self._client.close()

    def receive(self) -> Letter | None:
        """Wait for mail as long as the provider holds the poll; None when there is none.

        Raises:
            NetworkError: the provider cannot be reached.
            EnrolmentError: it no longer knows this node.
            WireError: what came is no letter, or a larger one than this site takes.
        """
        try:
            response = _call(lambda: self._client.PullMessages(PullMessagesRequest(node=self._node)))
            if not response.messages_list:
                return None
            if len(response.messages_list) != 1 or len(response.message_object_trees) != 1:
                raise WireError("The provider sent something else than one message.", "Ask the provider.")
            header = _header(response.messages_list[0])
            about, tree = header.metadata, response.message_object_trees[0]
            if about.dst_node_id != self._node.node_id or about.src_node_id != SUPERLINK_NODE_ID:
                raise WireError("The message is not from the provider to this site.", "Ask the provider.")
            if about.message_id != tree.object_id or about.reply_to_message_id:
                raise WireError("The message and its tree of objects do not belong together.", "Ask the provider.")
            ids = dict.fromkeys(letter.tree_ids(tree, letter.most_objects(self._limit)))
            contents = dict(self._each(lambda name: (name, self._pull(about.run_id, name)), iter(ids)))
        except _StatusError as error:
            raise error.translated() from None
        return Letter(letter.read(about.message_id, contents, self._limit), header)

    def reply(self, order: Letter, data: bytes) -> bool:
        """Send the answer to an order.

        Args:
            order: the letter that it answers.
            data: the answer's bytes.

        Returns:
            False when the provider no longer waits for it.

        Raises:
            NetworkError: the provider cannot be reached.
            EnrolmentError: it no longer knows this node.
        """
        with no_object_id_recompute():  # each object's digest is taken once
            message = Message(letter.content(data), reply_to=order.header)
            message.metadata.__dict__["_message_id"] = message.object_id
            objects, tree = get_all_nested_objects(message), get_object_tree(message)
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[tree],
            clientapp_runtime_list=[0.0],
        )
        about = order.header.metadata
        try:
            opened = self._open(request)

            def push(name: str) -> bool:
                return self._push(about.run_id, opened.session_id, name, objects[name].deflate())

            if not all(self._each(push, iter(opened.objects_to_push))):
                return False
        except _StatusError as error:
            if error.status in (403, 409):
                return False
            raise error.translated() from None
        return True

    def _open(self, request: PushMessagesRequest) -> PushMessagesResponse:
        """Announce a reply; a provider that is receiving others is asked again."""
        end = time.monotonic() + _BUSY
        while True:
            try:
                return _call(lambda: self._client.PushMessages(request))
            except _StatusError as error:
                if error.status != 503 or time.monotonic() > end or self._end.wait(1.0):
                    raise

    def _pull(self, run: int, object_id: str) -> bytes:
        request = PullObjectRequest(node=self._node, run_id=run, object_id=object_id)
        response = _call(lambda: self._client.PullObject(request))
        if not response.object_available:
            raise WireError("An object of the order is not there.", "It is sent again.")
        content: bytes = response.object_content
        return content

    def _push(self, run: int, session: str, object_id: str, content: bytes) -> bool:
        request = PushObjectRequest(
            node=self._node, run_id=run, session_id=session, object_id=object_id, object_content=content
        )
        return bool(_call(lambda: self._client.PushObject(request)).stored)

    def _each(self, call: Callable[[str], ResultT], names: Iterator[str]) -> Iterator[ResultT]:
        """Call for each name, a few at a time, holding no more results than that."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running = []
            for name in names:
                running.append(pool.submit(call, name))
                if len(running) == _AT_ONCE:
                    yield running.pop(0).result()
            for future in running:
                yield future.result()

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=self._heartbeat)
        while not self._end.wait(self._heartbeat / 2):
            try:
                self._client.SendNodeHeartbeat(request)
            except (httpx.HTTPError, ValueError, RuntimeError):
                continue  # the loop notices an absent provider by itself


class _StatusError(Exception):
    """The provider answered with an error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status

    def translated(self) -> EnrolmentError | NetworkError:
        if self.status == 401:
            return EnrolmentError("The provider does not let this site in.", _CLOCK)
        return NetworkError(f"The provider answered with HTTP status {self.status}.", "It is asked again.")


def _call(call: Callable[[], ResultT]) -> ResultT:
    """Make one call, and turn what httpx and protobuf raise into fedser's errors.

    Raises:
        NetworkError: there was no answer.
        WireError: the answer is not protobuf, or is too large.
        _StatusError: the provider answered with an error.
    """
    try:
        return call()
    except httpx.HTTPStatusError as error:
        raise _StatusError(error.response.status_code) from None
    except httpx.HTTPError as error:
        raise NetworkError(f"The provider cannot be reached: {error}.", "It is asked again.") from None
    except ValueError as error:
        raise WireError(f"The provider's answer cannot be read: {error}.", "Ask the provider.") from None


def _header(proto: MessageProto) -> Message:
    """A message's header, bare as the provider sends it.

    Raises:
        WireError: it holds anything else, or what no message holds.
    """
    try:
        if not proto.HasField("content") or proto.content.ByteSize() or proto.HasField("error"):
            raise ValueError("it is not bare")
        return message_from_proto(proto)
    except (ValueError, TypeError, AttributeError) as error:
        raise WireError(f"The message's header cannot be read: {error}.", "Ask the provider.") from None


def _bounded(response: httpx.Response) -> None:
    """Refuse an answer that is encoded, or longer than any object, before it is read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.DecodingError("the provider's answer is encoded")
    response.stream = _Bounded(response.stream, letter.CHUNK + _SLACK)


class _Bounded(httpx.SyncByteStream):
    """A stream that ends in an error after so many bytes."""

    def __init__(self, inner: httpx.SyncByteStream | httpx.AsyncByteStream, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        left = self._limit
        if not isinstance(self._inner, httpx.SyncByteStream):
            raise httpx.DecodingError("the provider's answer is no stream")
        for part in self._inner:
            left -= len(part)
            if left < 0:
                raise httpx.DecodingError("the provider's answer is too large")
            yield part

    def close(self) -> None:
        if isinstance(self._inner, httpx.SyncByteStream):
            self._inner.close()
