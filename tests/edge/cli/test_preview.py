"""``fer-edge preview`` as a technician uses it: at a terminal, with a browser that gives the code."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.cli.preview import of_the_service, require_by_hand
from edge.errors import SystemCommandError, UsageError
from edge.preview.access import is_own_host
from edge.preview.server import LOOPBACK, own_names, serving
from tests.conftest import ROOT, free_port, wait_until
from tests.edge.preview.running import PROGRAM, Visitor, previewing
from tests.edge.trace import strace, written

DEMO = ("--source", "demo", "--port", "0")


@pytest.mark.slow
def test_a_technician_sees_the_demo_until_ctrl_c() -> None:
    with previewing(*DEMO) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        assert "after 10 minutes" in preview.printed
        stranger = Visitor(preview.invitation.partition("#")[0])
        assert stranger.get("session", "aaaaa-aaaaa")[0] == 403
        assert stranger.get("live?0")[0] == 403
        assert stranger.get("", Host="evil.example")[0] == 403
        visitor = preview.visitor()
        assert stranger.get("session", preview.invitation.partition("#")[2])[0] == 410
        labels: set[str] = set()

        def shows_a_face() -> bool:
            if frame := visitor.frame():
                labels.update(face["label"] for face in frame["faces"])
            return "happy" in labels

        wait_until(shows_a_face, 30)
        assert preview.interrupt() == 0
        preview.read_to("The preview has ended.")
        assert "Traceback" not in preview.printed


SHORT = """
import sys
from argparse import Namespace
from edge.cli.preview import preview
sys.exit(preview(Namespace(config=None, source="demo", listen="127.0.0.1", port=0), seconds=1.5))
"""


def test_it_ends_by_itself_though_somebody_looks() -> None:
    with previewing(command=(sys.executable, "-c", SHORT)) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        visitor = preview.visitor()
        assert visitor.get("live?0")[0] == 200
        while (answer := visitor.get("live?0"))[0] == 200:
            pass
        assert (answer[0], b"To go on, start fer-edge preview again" in answer[1]) == (410, True)
        assert preview.process.wait(20) == 0
        preview.read_to("The preview has ended.")


@pytest.mark.slow
def test_nothing_is_written_while_somebody_looks(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with previewing(*DEMO, command=("env", "PYTHONDONTWRITEBYTECODE=1", *strace(trace), *PROGRAM)) as preview:
        preview.read_to("Ctrl-C ends it earlier", 60)
        visitor = preview.visitor()
        last = 0
        for _ in range(20):
            frame = visitor.frame(last)
            last = frame["number"] if frame else last
        assert preview.interrupt() == 0
    found = written(trace)
    assert last > 3
    assert found.files <= {"/dev/null"}
    assert found.others == []
    assert {where.partition(":")[0] for where in found.sockets} <= {"TCP", "UNIX", "UNIX-STREAM"}


def test_only_a_person_at_a_terminal_starts_it() -> None:
    require_by_hand({"INVOCATION_ID": "of the login"}, 7, terminal=True)
    for environ in ({"SYSTEMD_EXEC_PID": "7"}, {"NOTIFY_SOCKET": "/run/systemd/notify"}):
        with pytest.raises(UsageError, match="never a service"):
            require_by_hand(environ, 7, terminal=True)
    done = subprocess.run([*PROGRAM, *DEMO], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "start it in a terminal (by ssh: ssh -t)" in done.stderr


RUN = """
import sys
from edge.cli.main import main
sys.argv = ["fer-edge", "run", "--source", sys.argv[1]]
code = main()
preview = [name for name in sys.modules if name.startswith("edge.") and "preview" in name]
sys.exit(code or bool(preview) or "edge.app.run" not in sys.modules)
"""


def test_the_service_has_no_preview_in_it(tmp_path: Path) -> None:
    """import-linter proves that no room below the command line imports it; here a whole run has not."""
    (tmp_path / "portrait.jpg").write_bytes((ROOT / "edge/demo/portrait.jpg").read_bytes())
    subprocess.run([sys.executable, "-c", RUN, tmp_path], check=True, capture_output=True)
    units = [file.read_text() for file in (ROOT / "systemd").iterdir()]
    assert not any("preview" in unit for unit in units)


def _no_app(*_: object) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("192.0.2.9", "192.0.2.9 is no address of this machine: `hostname -I`"),
        ("host.invalid", "'host.invalid' is neither an address nor a known host name"),
        ("", "'' is neither an address nor"),
        ("a..b", "'a..b' is neither an address nor"),
        ("x" * 70, "is neither an address nor"),
    ],
)
def test_an_address_where_it_cannot_listen_is_named(address: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence), serving(_no_app, address, free_port()):
        pass


def test_a_port_in_use_is_named() -> None:
    port = free_port()
    with serving(_no_app, LOOPBACK, port), pytest.raises(UsageError, match=f"port {port} is in use"):
        serving(_no_app, LOOPBACK, port).__enter__()


def test_the_page_has_an_address_that_another_computer_can_open() -> None:
    with serving(_no_app, "0.0.0.0", 0) as everywhere, serving(_no_app, "::1", 0) as six:
        assert "0.0.0.0" not in everywhere
        assert six.startswith("http://[::1]:")
    assert "localhost" in own_names(LOOPBACK)


def test_the_page_opens_under_the_name_at_which_it_listens() -> None:
    """The address that is printed must be one that the page accepts."""
    assert is_own_host("kiosk.lan:9470", own_names("Kiosk.lan"))
    name = "127.1"  # resolves everywhere, and is no address to the page
    with previewing(*DEMO, "--listen", name) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        assert f"http://{name}:" in preview.invitation
        assert preview.visitor().get("live?0")[0] == 200


def test_a_camera_that_the_service_may_be_using_is_said_so() -> None:
    def lists(words: Sequence[str]) -> str:
        assert "--state=active" in words
        return "fer-edge.service loaded active running x\nfer-edge@door.service loaded active running y\n"

    def fails(words: Sequence[str]) -> str:
        raise SystemCommandError("systemctl cannot be run")

    assert of_the_service(lists).endswith("may be using it: sudo systemctl stop fer-edge fer-edge@door")
    assert of_the_service(lambda _: "") == of_the_service(fails) == ""


def test_a_camera_that_is_not_there_ends_it() -> None:
    with previewing("--source", "/dev/video77", "--port", "0") as preview:
        preview.read_to("/dev/video77: no such camera")
        assert preview.process.wait(20) == 5
        assert "has ended" not in preview.printed
