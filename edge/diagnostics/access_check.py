"""Check of the files that a service's settings name. Root, as whom doctor runs, may read what the service may not."""

import contextlib
import os
import pwd
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.camera.address import is_stream
from edge.diagnostics.finding import Finding
from edge.settings import Settings
from edge.system.installer import HIDDEN_FOLDERS
from edge.system.secret_files import SECRET_FILES
from edge.untrusted_file import is_file, is_folder, is_forbidden

_NO_FILES: Final = ("demo", "picamera2", "/dev/")  # how sources begin that are no files


def check_files(settings: Settings, config: Path, user: str, hidden: tuple[str, ...] = HIDDEN_FOLDERS) -> Finding:
    """Whether a service, which runs as ``user`` and sees no home, may read its settings and the files they name.

    ``settings`` have the secrets that lie beside them. What is not there at all, other checks tell. ``hidden`` are the
    folders that it does not see.
    """
    if not may_access(config, "-r", user):
        return Finding("files", "fail", f"{user} may not read {config}", "sudo fer-edge service install")
    handed_over = [config.with_name(secret.name) for secret in SECRET_FILES]  # by systemd, which may read them
    for key, named in _named_files(settings):
        if named in handed_over:
            continue
        if f"{os.path.realpath(named)}/".startswith(hidden):
            sentence = f"{key}: {named} is hidden from the service, which sees no home and no temporary folder"
            return Finding("files", "fail", sentence, "move it into /etc/fer-edge, and change the settings")
        for file in (named, *(named.glob("*") if key == "model.bundle" else ())):
            there = is_file(file) or is_folder(file) or is_forbidden(file)
            if there and not may_access(file, "-r", user):
                word = shlex.quote(str(file))
                remedy = f"see who may with namei -l {word}; for the file itself: sudo chgrp {user} {word}; "
                return Finding("files", "fail", f"{key}: {user} may not read {file}", f"{remedy}sudo chmod g+r {word}")
    return Finding("files", "ok", f"{user} may read what the settings name")


def _named_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The files and folders that settings name, each with its key. Names without a folder are the program's own."""
    camera, detect, mqtt = settings.camera, settings.detect, settings.mqtt
    source = "" if is_stream(camera.source) or camera.source.startswith(_NO_FILES) else camera.source
    named = {
        "camera.source": source,
        "camera.password_file": camera.password_file,
        "camera.ca_file": camera.ca_file,
        "detect.model": detect.model,
        "detect.cascade": detect.cascade,
        "model.bundle": settings.model.bundle,
        "model.edgetpu_library": settings.model.edgetpu_library,
        "mqtt.password_file": mqtt.password_file,
        "mqtt.ca_file": mqtt.ca_file,
        "mqtt.cert_file": mqtt.cert_file,
        "mqtt.key_file": mqtt.key_file,
    }
    return ((key, Path("/", file)) for key, file in named.items() if "/" in file)


def may_access(file: Path, access: str, user: str) -> bool:
    """Whether ``user`` may read (``-r``) or write (``-w``) a file, with all folders that lead to it.

    True where this user cannot find out: only root can for others. Who has no account can only be this user.
    """
    account: pwd.struct_passwd | None = None
    with contextlib.suppress(KeyError):
        account = pwd.getpwnam(user)
    if account is None or account.pw_uid == os.geteuid():
        return os.access(file, {"-r": os.R_OK, "-w": os.W_OK}[access], effective_ids=True)
    if os.geteuid() != 0:
        return True
    groups = os.getgrouplist(user, account.pw_gid)
    command = ("test", access, str(file))
    asked = subprocess.run(command, check=False, user=account.pw_uid, group=account.pw_gid, extra_groups=groups)
    return asked.returncode == 0
