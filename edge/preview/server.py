"""Where the page is: opening the port, what may go wrong with that, and the address for people."""

import contextlib
import errno
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from edge.errors import UsageError
from edge.monitoring.page_server import PageServer

LOOPBACK: Final = "127.0.0.1"

App: TypeAlias = Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]

_ELSEWHERE: Final = ("192.0.2.1", 9)  # for documentation only (RFC 5737); nothing is sent there


@contextlib.contextmanager
def serving(app: App, address: str, port: int) -> Iterator[str]:
    """Serve a WSGI application while this lasts, with bounded connections; gives the page's address, ``http://…/``.

    Raises UsageError, which says what to do, when it cannot listen there.
    """
    try:
        server = PageServer(address, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        raise UsageError(_why_not(error, address, port)) from error
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="preview", daemon=True)
    thread.start()
    try:
        yield f"http://{_shown_host(address)}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def own_names(listen: str) -> frozenset[str]:
    """The names under which this machine's page may be opened, in lower case; ``listen`` is where it listens."""
    name = socket.gethostname().lower()
    return frozenset((name, f"{name.partition('.')[0]}.local", "localhost", listen.lower()))


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _why_not(error: Exception, address: str, port: int) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return f"port {port} is in use, maybe by another preview: give another one with --port"
    if code == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine: `hostname -I` shows them; --listen 0.0.0.0 takes all"
    if code == errno.EACCES:
        return f"port {port} is reserved for root: give one from 1024 on with --port"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"{address!r} is neither an address nor a known host name: `hostname -I` shows this machine's addresses"
    return f"cannot listen at {address}, port {port}: {error}"


def _shown_host(address: str) -> str:
    """The address for a browser: for all addresses of the machine, the one by which it reaches others."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.is_unspecified:
        return _outward_address() or socket.gethostname()
    return f"[{address}]" if ip.version == 6 else address


def _outward_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:  # there is no network
            return None
        return str(probe.getsockname()[0])
