"""Who may see the page: one browser, which gives the code that stands at the terminal, under a name of this machine."""

import hmac
import ipaddress
import secrets
import threading
from collections.abc import Collection
from http import HTTPStatus
from typing import Final

_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike; people type it on a telephone
_LENGTH: Final = 10  # 49 bits: at a thousand guesses a second, one in a billion is right within ten minutes


def new_code() -> str:
    """A code that nobody can guess, in two halves: ``abcde-fghjk``."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    return f"{letters[: _LENGTH // 2]}-{letters[_LENGTH // 2 :]}"


class Access:
    """Exchanges the ``code`` for a session, once. Comparing takes the same time for every wrong code."""

    def __init__(self, code: str) -> None:
        self._code = _plain(code)
        self._session = secrets.token_urlsafe(32)
        self.used = False
        """Whether somebody has given the code."""
        self._lock = threading.Lock()

    def exchange(self, code: str) -> tuple[HTTPStatus, str]:
        """OK and the session; FORBIDDEN for a wrong code and GONE for a used one, with a sentence."""
        with self._lock:
            if not hmac.compare_digest(_plain(code), self._code):
                return HTTPStatus.FORBIDDEN, "This is not the code that stands at the terminal."
            if self.used:
                return HTTPStatus.GONE, "This code has been used. Start fer-edge preview again for a new one."
            self.used = True
            return HTTPStatus.OK, self._session

    def admits(self, session: str) -> bool:
        """Whether this is the session that the code was exchanged for."""
        return hmac.compare_digest(session.encode(errors="replace"), self._session.encode()) and self.used


def is_own_host(host: str, names: Collection[str]) -> bool:
    """Whether a request's ``Host`` is an IP address, or one of this machine's ``names`` in lower case.

    An attacker's web page can reach this machine by a name of the attacker's, whose address changes (DNS rebinding),
    but not by an address.
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in names
    return True


def _plain(code: str) -> bytes:
    return code.strip().replace("-", "").replace(" ", "").lower().encode(errors="replace")
