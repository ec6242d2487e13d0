"""``fer-edge preview``: show the live picture on a page, to mount a camera by looking. By hand, and for ten minutes."""

import os
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Final

from edge.app.frame_loop import FrameLoop, LoopControl
from edge.camera.sources import is_live, with_source
from edge.errors import CameraStalled, SourceError, SystemCommandError, UsageError
from edge.model.loader import open_deployed
from edge.model.registry import folder_in_use
from edge.pipeline import Pipeline, make_pipeline
from edge.preview.access import Access, new_code
from edge.preview.newest_frame import NewestFrame
from edge.preview.page import PreviewPage
from edge.preview.server import is_loopback, own_names, serving
from edge.preview.view import Viewer
from edge.settings import Settings, load_settings
from edge.system.installer import Run, run_command
from edge.system.instance import service_environ
from edge.system.owner_rights import user_to_become
from edge.system.secret_files import with_secret_files
from edge.system.systemd import Service

_SECONDS: Final = 600.0
_AGAIN_SECONDS: Final = 0.5  # between the end of a file and its next beginning
_ACTIVE_UNITS: Final = ("systemctl", "list-units", "--state=active", "--plain", "--no-legend", "fer-edge*.service")


def preview(arguments: Namespace, seconds: float = _SECONDS) -> int:
    """Carry out ``fer-edge preview`` for so many seconds. Its end, and Ctrl-C, are no errors.

    Raises UsageError when no person at a terminal has started it.
    """
    require_by_hand(os.environ, os.getpid(), terminal=sys.stdin is not None and sys.stdin.isatty())
    settings = with_secret_files(load_settings(arguments.config), arguments.config)
    settings = with_source(settings, arguments.source)
    environ = service_environ(arguments.config, os.environ)
    user = user_to_become(folder_in_use(settings, environ))
    classifier, bundle = open_deployed(settings, environ)
    pipeline = make_pipeline(settings, classifier)
    newest, code, ends = NewestFrame(), new_code(), time.monotonic() + seconds
    viewer = Viewer(settings, bundle.card)
    names = own_names(arguments.listen)
    page = PreviewPage(newest, viewer, Access(code), names, lambda: ends - time.monotonic())
    with Service(os.environ) as process, serving(page, arguments.listen, arguments.port) as address:
        print(_invitation(address, code, arguments.listen, seconds), flush=True)
        timer = threading.Timer(seconds, process.stopping.set)
        timer.daemon = True
        timer.start()
        try:
            _show(settings, pipeline, newest, process.stopping)
        except KeyboardInterrupt:
            pass
        except (SourceError, CameraStalled) as error:
            of_user = f" Root runs this as {user}, whose model it is." if user else ""
            by_service = of_the_service() if is_live(settings.camera) else ""
            raise type(error)(f"{error}{of_user}{by_service}") from error
        finally:
            timer.cancel()
            page.end()
    print("The preview has ended. If you stopped the service: sudo systemctl start fer-edge", flush=True)
    return 0


def require_by_hand(environ: Mapping[str, str], process: int, *, terminal: bool) -> None:
    """Raise UsageError unless a person can end this: it needs a ``terminal``, and is not systemd's own child.

    Shells at a terminal may inherit ``INVOCATION_ID``. Only the process that systemd has started finds its own id in
    ``SYSTEMD_EXEC_PID`` (systemd.exec(5)).
    """
    if environ.get("SYSTEMD_EXEC_PID") == str(process) or "NOTIFY_SOCKET" in environ:
        raise UsageError("preview is never a service: start it by hand, in a terminal")
    if not terminal:
        raise UsageError("preview is started by hand only: start it in a terminal (by ssh: ssh -t)")


def _show(settings: Settings, pipeline: Pipeline, newest: NewestFrame, stopping: threading.Event) -> None:
    """Run the frame loop until it is stopped. A file is played again and again."""
    control = LoopControl(stopping, lambda: False)
    while not stopping.is_set():
        FrameLoop(settings, pipeline, [], lambda _: newest, control, realtime=True).run()
        pipeline = pipeline.for_new_source(settings)
        if not is_live(settings.camera):
            stopping.wait(_AGAIN_SECONDS)


def _invitation(address: str, code: str, listen: str, seconds: float) -> str:
    minutes = round(seconds / 60)
    lines = [f"Open this page:  {address}#{code}", f"                 or {address} with the code {code}"]
    if is_loopback(listen):
        lines.append("Only a browser on this machine can open it. For one on another computer, type there first:")
        port = address.rstrip("/").rpartition(":")[2]
        lines.append(f"  ssh -L {port}:{address.removeprefix('http://').rstrip('/')} {socket.gethostname()}")
    else:
        lines.append("Pictures of people then cross the network without encryption.")
    lines.append("One browser can use the code, once. Nothing is stored.")
    lines.append(f"This ends by itself after {minutes} minutes; Ctrl-C ends it earlier.")
    return "\n".join(lines)


def of_the_service(run: Run = run_command) -> str:
    """What to add to a camera's error while services of fer-edge run, which may be using it; empty without them."""
    try:
        listed = run(_ACTIVE_UNITS)
    except SystemCommandError:  # there is no systemd here
        return ""
    units = " ".join(line.split()[0].removesuffix(".service") for line in listed.splitlines() if line.strip())
    return f" The service runs and may be using it: sudo systemctl stop {units}" if units else ""
