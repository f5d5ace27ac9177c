"""Fetch files from the servers that the operator allows, and from no address inside the own network."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from fllm.errors import RequestError

FETCH_SECONDS = 10.0
"""Maximum time for one file, redirects included."""
MAX_IMAGE_BYTES = 32 * 1024 * 1024
"""Maximum size of the file of an image."""
MAX_PROMPT_BYTES = 64 * 1024 * 1024
"""Maximum size of the files of one request: they are sent to the engine at once."""
MAX_FETCHED_BYTES = 1 << 30
"""Maximum size of the files of all requests that are fetched at a time."""
MAX_REDIRECTS = 3
CHUNK_BYTES = 64 * 1024
_URL_CHARACTERS = "%/?:@!$&'()*+,;=~[]"
"""Characters that stay as they are in a URL, as letters and digits do; others are escaped."""
_REDIRECTS = (301, 302, 303, 307, 308)


class _Connection(http.client.HTTPConnection):
    """A connection to one address, which was checked. The name is only used for TLS and the Host header."""

    def __init__(self, url: SplitResult, address: str, timeout: float) -> None:
        super().__init__(_host(url), url.port or (443 if url.scheme == "https" else 80), timeout=timeout)
        self._address = address
        self._secure = url.scheme == "https"

    def connect(self) -> None:
        """Connect to the address, with TLS if the URL says so."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = _tls_context().wrap_socket(self.sock, server_hostname=self.host)

    def abort(self) -> None:
        """End what another thread does with the connection."""
        if (sock := self.sock) is not None:
            with suppress(OSError):  # it has just been closed
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def set_timeout(self, seconds: float) -> None:
        """Limit the next operation."""
        if self.sock is not None:
            self.sock.settimeout(seconds)


def fetch(url: str, *, domains: Collection[str], max_bytes: int, param: str) -> bytes:
    """Return the content of a URL. Raise `RequestError` if it may not or can't be fetched.

    ``domains`` are the host names that are allowed; ``*`` allows all that are outside the own network.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    try:
        for _ in range(1 + MAX_REDIRECTS):
            target = _checked(url, domains, param)
            result = _get(target, _public_address(target, param), deadline, max_bytes, param)
            if isinstance(result, bytes):
                return result
            url = urljoin(url, result)
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # a name that DNS can't have
        reason = (
            "it takes too long" if isinstance(error, TimeoutError) else f"{error}" or type(error).__name__
        )
        raise RequestError(
            f"the image can't be fetched from {_host(urlsplit(url))}: {reason}", param=param
        ) from None
    raise RequestError(f"the image is behind more than {MAX_REDIRECTS} redirects", param=param)


def _get(url: SplitResult, address: str, deadline: float, max_bytes: int, param: str) -> bytes | str:
    """Return the body, or the address of a redirect."""
    connection = _Connection(url, address, _left(deadline))
    # The timeout of a socket begins again with each byte that the server sends.
    timer = threading.Timer(_left(deadline), connection.abort)
    timer.daemon = True
    timer.start()
    try:
        target = quote((url.path or "/") + (f"?{url.query}" if url.query else ""), safe=_URL_CHARACTERS)
        connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "furiosa-llm"})
        with connection.getresponse() as response:
            if response.status in _REDIRECTS and (location := response.getheader("Location")):
                return location
            if response.status != 200:
                raise RequestError(
                    f"the image can't be fetched: {url.hostname} answers {response.status}", param=param
                )
            body = bytearray()
            while chunk := response.read1(CHUNK_BYTES):
                body += chunk
                if len(body) > max_bytes:
                    raise RequestError(f"the image has more than {max_bytes} bytes", param=param)
                connection.set_timeout(_left(deadline))
            _left(deadline)  # a connection that the timer ended looks like the end of the body
            return bytes(body)
    except (OSError, http.client.HTTPException):
        _left(deadline)  # the timer was the cause
        raise
    finally:
        timer.cancel()
        connection.close()


def _checked(url: str, domains: Collection[str], param: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = _host(parts), parts.port
    except ValueError:
        raise RequestError("the URL of the image is not valid", param=param) from None
    if parts.scheme not in ("http", "https") or not host:
        raise RequestError("the URL of an image must begin with data:, https:// or http://", param=param)
    if not domains:
        raise RequestError(
            "this server fetches no images: send the image as a data URL "
            "(--allowed-media-domains names the servers that images may come from)",
            param=param,
        )
    if "*" not in domains and host not in domains:
        raise RequestError(
            f"images from {host} are not allowed; allowed: {', '.join(sorted(domains))}", param=param
        )
    return parts


def _public_address(url: SplitResult, param: str) -> str:
    """Return an address of the host. Raise `RequestError` if any of them is inside the own network."""
    host = _host(url)
    addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    if not addresses or not all(_is_public(address) for address in addresses):
        raise RequestError(f"images from {host} are not allowed: its address is not public", param=param)
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is not None:
            return embedded.is_global
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF).is_global
        if ip not in _GLOBAL_UNICAST:  # such as ::127.0.0.1, or site-local addresses
            return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def _host(url: SplitResult) -> str:
    return (url.hostname or "").rstrip(".").lower()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()
