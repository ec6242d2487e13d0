"""Root in a folder of another user: it works there with that user's rights.

Whoever owns a folder can replace anything in it by a link, at any time. Root that writes through the link would write
into files of root.
"""

import codecs
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.errors import UsageError
from edge.system.memory_dump import forbid_memory_dumps

_ROOT: Final = 0
_NO_GROUP: Final = 65534
_LATE_ENCODINGS: Final = ("cp437", "idna")
"""Of zip archives and host names. Python reads them from its own files at first use, and these may be root's only."""


@contextmanager
def rights_of_owner(folder: Path) -> Iterator[None]:
    """Let root have the rights of the user who may change ``folder`` or what leads to it; other users keep theirs.

    All threads of the process change, and nothing but the effective ids. So this is no protection from code that runs
    in this process; :func:`become_owner` is. When root alone can change the folder, nothing changes.
    """
    user = _user_to_become(folder)
    if user is None:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        own_group, own_groups = _groups_of(user)
        os.setgroups(own_groups)
        os.setegid(own_group)
        os.seteuid(user)
        forbid_memory_dumps()
        yield
    finally:
        os.seteuid(_ROOT)
        os.setegid(group)
        os.setgroups(groups)
        forbid_memory_dumps()


def become_owner(folder: Path) -> None:
    """Let root be the user who may change ``folder`` or what leads to it, for good; other users stay who they are.

    For what runs content of the folder, such as a network. Import before what is needed after: files of the program
    may be readable for root only. When root alone can change the folder, nothing changes.
    """
    user = _user_to_become(folder)
    if user is None:
        return
    group, groups = _groups_of(user)
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    forbid_memory_dumps()


def require_own_folder(folder: Path) -> None:
    """Raise UsageError when this is root and another user may change ``folder``; for programs that use it for long."""
    if name := user_to_become(folder):
        raise UsageError(
            f"{folder} belongs to {name}, and root does not write there: run this as that user (sudo -u {name}), or "
            "name another store.folder"
        )


def user_to_become(folder: Path) -> str:
    """The name of the user that :func:`become_owner` makes of this process; empty when it changes nothing."""
    return "" if _user_to_become(folder) is None else owner_name(folder)


def owner_name(folder: Path) -> str:
    """The name of the user whose rights root takes in ``folder``; ``root`` when nobody else may change it."""
    user = _first_other_user(folder) or _ROOT
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _user_to_become(folder: Path) -> int | None:
    """Who may change ``folder`` beside root, if this is root; else None."""
    if os.geteuid() != _ROOT:
        return None
    for encoding in _LATE_ENCODINGS:
        codecs.lookup(encoding)
    return _first_other_user(folder)


def _first_other_user(folder: Path) -> int | None:
    """The owner of the first folder or link on the way to ``folder`` that is not root's; None when all are root's."""
    absolute = folder.absolute()
    # Links of root may be followed: they lead to what is checked next.
    for path in (absolute, Path(os.path.realpath(absolute))):
        for place in (*reversed(path.parents), path):
            try:
                user = place.lstat().st_uid
            except OSError:  # it is made by whose folder it is in, or cannot be reached
                break
            if user != _ROOT:
                return user
    return None


def _groups_of(user: int) -> tuple[int, list[int]]:
    """The group of a user, and all groups that the user belongs to."""
    try:
        account = pwd.getpwuid(user)
    except KeyError:
        return _NO_GROUP, []
    return account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)
