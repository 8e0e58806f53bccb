"""The provider's own routes, called over TLS 1.3 that leads to the pinned certificate authority.

Redirects are not followed, encoded or endless bodies are refused, and nothing that the provider writes is shown
to a person: errors are told in this program's own words.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import httpx

from fedser.errors import ConfigError, NetworkError
from fedser_client.patience import Patience

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_WHOLE = 60.0  # seconds for a whole small answer, however slowly it drips
_CLOCK = "Look at this machine's clock first: a wrong date makes a good certificate look bad."
_PINNED = "Ask the provider whether its certificates changed, and for a new invitation if so."
_CODES = {  # of OpenSSL's verification
    9: ("is not valid yet", _CLOCK),
    10: ("has expired", _CLOCK),
    62: ("is for another host name", "Ask the provider for an invitation that names this address."),
    64: ("is for another address", "Ask the provider for an invitation that names this address."),
}

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Answer:
    """A whole small answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def tls(authorities: Sequence[str]) -> ssl.SSLContext:
    """A context that trusts these certificate authorities (PEM) and no others.

    Raises:
        ConfigError: they are no certificates.
    """
    try:
        context = ssl.create_default_context(cadata="\n".join(authorities))
    except (ssl.SSLError, ValueError):
        raise ConfigError("The pinned certificate is damaged.", "Ask the provider for a new invitation.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class Routes:
    """A connection to the provider's own routes; a context manager.

    Args:
        address: ``host:port``.
        authorities: PEM of the pinned certificate authorities.
        proxy: URL of an HTTP proxy; the environment's (HTTPS_PROXY, NO_PROXY) when None.
        patience: how long to wait for a provider that is away.

    Raises:
        ConfigError: the proxy's address or a certificate does not fit.
    """

    def __init__(self, address: str, authorities: Sequence[str], proxy: str | None, patience: Patience) -> None:
        self.address = address
        self._patience = patience
        try:
            if proxy is not None and not httpx.URL(proxy).host:
                raise ValueError("it names no host")
            self._client = httpx.Client(
                base_url=f"https://{address}",
                verify=tls(authorities),
                proxy=proxy,
                timeout=_TIMEOUT,
                follow_redirects=False,
                headers={"accept-encoding": "identity", "user-agent": "fedser"},
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise ConfigError(f"The proxy cannot be used: {error}", "Write http://HOST:PORT.") from None

    def __enter__(self) -> Routes:
        """Nothing is opened before the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, limit: int) -> Answer:
        """A whole answer to a GET; waits for a provider that is away.

        Raises:
            NetworkError: the provider is not the pinned one, answers out of bounds, or the patience is used up.
        """
        return self.patiently(lambda: self._whole("GET", path, limit, None))

    def post(self, path: str, body: bytes, limit: int) -> Answer:
        """A whole answer to a POST of JSON; waits like :meth:`get`."""
        return self.patiently(lambda: self._whole("POST", path, limit, body))

    def patiently(self, call: Callable[[], ResultT]) -> ResultT:
        """Make a call again and again until the provider answers.

        Raises:
            NetworkError: see :meth:`get`.
        """
        while True:
            try:
                result = call()
            except httpx.HTTPError as error:
                self._patience.wait(network_error(error, self.address))
            else:
                self._patience.reset()
                return result

    @contextmanager
    def stream(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Iterator[httpx.Response]:
        """One answer, its body not yet read. A busy or failing provider (408, 429, 5xx) counts as away.

        Raises:
            httpx.HTTPError: no answer.
            NetworkError: an answer that no provider of fedser gives.
        """
        given = {**(headers or {}), **({"content-type": "application/json"} if body is not None else {})}
        with self._client.stream(method, path, headers=given, content=body) as response:
            if response.status_code in (408, 429) or response.status_code >= 500:
                response.raise_for_status()
            if response.is_redirect and response.status_code != 304:
                raise self.strange("it sends this site elsewhere, and a pinned provider never does")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise self.strange("its answer is compressed, though that was not asked for")
            yield response

    def strange(self, reason: str) -> NetworkError:
        """The error for an answer that no provider gives."""
        return NetworkError(f"{self.address} does not answer like a provider: {reason}.", _PINNED)

    def _whole(self, method: str, path: str, limit: int, body: bytes | None) -> Answer:
        end, data = time.monotonic() + _WHOLE, bytearray()
        with self.stream(method, path, body=body) as response:
            for part in response.iter_raw():
                data += part
                if len(data) > limit:
                    raise self.strange(f"its answer is larger than {limit} bytes")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the answer takes too long")
            return Answer(response.status_code, dict(response.headers), bytes(data))


def network_error(error: httpx.HTTPError, address: str) -> NetworkError:
    """What went wrong, in this program's words.

    Raises:
        NetworkError: what no waiting mends, such as a certificate that is not the pinned one.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return NetworkError(f"The provider {address} answers with status {error.response.status_code}.", "Wait.")
    found = _ssl_error(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        what, hint = _CODES.get(found.verify_code, ("does not lead to the pinned authority", _PINNED))
        raise NetworkError(f"The certificate of {address} {what}.", hint) from None
    if found is not None and found.reason in ("WRONG_VERSION_NUMBER", "TLSV1_ALERT_PROTOCOL_VERSION"):
        raise NetworkError(f"{address} does not speak TLS 1.3.", _PINNED) from None
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ProxyError):
        return NetworkError(f"The proxy does not let this site through to {address}: {reason}.", "Check --proxy.")
    return NetworkError(
        f"The provider {address} cannot be reached: {reason}.", "Check the network, and whether the provider runs."
    )


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error behind an error of httpx."""
    for _ in range(10):
        if error is None or isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None
