"""How each command of the pages is tested. The first rule that matches the whole command counts.

``run``: it is run as written, in a folder that has the files the pages name. ``elsewhere``: another test runs it and
must contain the given words. ``parsed``: only its program's real parser checks it, for the given reason; if that names
a test, the test runs the same action on less data. ``system``: a program of the operating system that cannot run here,
for the given reason.
"""

import re
from dataclasses import dataclass
from typing import Literal

PROGRAMS = ("fer-edge", "fer-train", "fer-export")
"""Ours: whatever rule holds, their parsers must take the command."""

_PACKAGES = "git|make|mosquitto|mosquitto-clients|python3-picamera2|python3-prometheus-client|python3-venv"
_ROOT = "needs root and a device that is set up"


@dataclass(frozen=True)
class Rule:
    """``why`` is the reason. With ``elsewhere`` it is the file and, after ``: ``, the words that the file contains.

    ``code`` is the expected exit code of a ``run`` command. ``less`` is appended to it to shorten the run. ``needs``
    names a package without which it cannot run.
    """

    how: Literal["run", "elsewhere", "parsed", "system"]
    pattern: str
    why: str = ""
    code: int = 0
    less: str = ""
    needs: str = ""


RULES = (
    # What runs here.
    Rule("run", r"fer-edge --help"),
    Rule("run", r"fer-edge classify portrait\.jpg"),
    Rule("run", r"fer-edge run --source visit\.mp4( --realtime| --sheet seen\.png)?"),
    Rule("run", r"fer-edge run --config my\.toml --record visits\.jsonl"),
    Rule("run", r"fer-edge replay visits\.jsonl( --config other\.toml)?"),
    Rule("run", r"fer-edge verify --data fer2013\.csv( --split PublicTest)?", "the faces are noise here", code=23),
    Rule("run", r"fer-train recipes"),
    Rule("run", r"fer-export check (my-bundle|student-small)"),
    Rule("run", r"fer-export episodes student(-small(-72)?)? --data fer2013\.csv --faces 240", less="--faces 1"),
    Rule("run", r"fer-export clips --out clips --data fer2013\.csv --seed 1", less="--scene still --seconds 0.2"),
    Rule("run", r"fer-export compare student-small my-bundle --data fer2013\.csv --out .*", needs="matplotlib"),
    # What other tests run.
    Rule("elsewhere", r"make demo", 'tests/edge/cli/test_main.py: "run", "--source", "demo", "--sheet", "demo.png"'),
    Rule(
        "elsewhere",
        r"fer-edge run --config my\.toml --source demo --events mqtt|mosquitto_sub -v -t 'fer-edge/desk/#'",
        "tests/docs/test_commands.py: def test_the_quick_start_publishes_the_events_that_it_names",
    ),
    Rule("elsewhere", r"sudo fer-edge model install .*", 'tests/platform/test_systemd.py: "model", "install"'),
    Rule(
        "elsewhere",
        r"sudo sh -c 'rm /var/lib/fer-edge/\*\.state\.json'",
        'tests/edge/system/test_state.py: glob("*.state.json")',
    ),
    Rule("elsewhere", r"sudo fer-edge verify", 'tests/platform/test_systemd.py: fer_edge("verify")'),
    Rule("elsewhere", r"sudo fer-edge model list", 'tests/platform/test_systemd.py: "model", "list"'),
    Rule("elsewhere", r"sudo fer-edge model rollback", 'tests/platform/test_systemd.py: "model", "rollback"'),
    Rule("elsewhere", r"sudo fer-edge model use .*", 'tests/edge/cli/test_model.py: "model", "use"'),
    Rule("elsewhere", r"(sudo )?fer-edge model show .*", 'tests/edge/cli/test_model.py: "model", "show"'),
    Rule(
        "elsewhere",
        r"sudo fer-edge service install --instance door|sudo(edit /etc/fer-edge/door/\S+| systemctl \S+ fer-edge@door)",
        'tests/platform/test_debian_package.py: "service", "install", "--instance", "door"',
    ),
    Rule(
        "elsewhere",
        r"sudo apt (install \./fer-edge_.*\.deb|remove fer-edge)",
        'tests/platform/test_debian_package.py: "apt-get", "install"',
    ),
    Rule(
        "elsewhere",
        r"sudo -u fer-edge fer-edge preview --config .* --listen 0\.0\.0\.0",
        "tests/edge/cli/test_preview.py: previewing(*DEMO)",
    ),
    Rule("elsewhere", r"make deb .*", "tests/platform/test_debian_package.py: build_package"),
    Rule("elsewhere", r"sudo \S*fer-edge service install", 'tests/platform/test_service.py: "service", "install"'),
    Rule("elsewhere", r"sudo fer-edge service uninstall", 'tests/platform/test_service.py: "service", "uninstall"'),
    Rule("elsewhere", r"fer-edge service status", 'tests/platform/container.py: "service", "status"'),
    Rule(
        "elsewhere",
        r"sudo python3 -m venv --system-site-packages /opt/fer-edge",
        'tests/platform/conftest.py: "-m", "venv", "--system-site-packages", "/opt/fer-edge"',
    ),
    Rule(
        "elsewhere",
        r"sudo /opt/fer-edge/bin/pip install --no-index --find-links wheelhouse 'fer-edge\[litert\]'",
        'tests/platform/conftest.py: "--no-index", "--find-links"',
    ),
    Rule("elsewhere", r"make wheelhouse .*", 'tests/platform/test_aarch64.py: "make", "wheelhouse", "ARCH=aarch64"'),
    Rule("elsewhere", r"npm pack @vladmandic/human@3\.3\.6", ".ci/run: @vladmandic/human@3.3.6"),
    Rule("elsewhere", r"tar xf vladmandic-human-3\.3\.6\.tgz", ".ci/run: tar xf vladmandic-human-3.3.6.tgz"),
    Rule(
        "elsewhere",
        r"fer-export import (mine\.keras|three\.h5) .*",
        "tests/export/test_import.py: def test_the_commands_of_the_page_work_as_written",
    ),
    # What is only parsed.
    Rule(
        "parsed",
        r"fer-export compare .* --fer .*",
        "needs fer's wheel; tests/export/studies/test_comparison.py has one made up",
    ),
    Rule("parsed", r"fer-edge run --source /dev/video0.*", "needs a camera"),
    Rule(
        "parsed", r"sudo \S*fer-edge doctor --config /etc/.*", f"{_ROOT}; tests/edge/diagnostics/test_doctor.py runs it"
    ),
    Rule("parsed", r"sudo \S*fer-edge bench --autotune", f"{_ROOT}; tests/edge/cli/test_autotune.py"),
    Rule(
        "parsed", r"fer-edge bench .*", "takes minutes; tests/edge/bench/test_compare.py runs it on a second of a clip"
    ),
    Rule("parsed", r"fer-train run .*", "trains for hours; tests/train/test_run.py trains on a little noise"),
    Rule(
        "parsed",
        r"fer-train (bank|classify|evaluate|predict) .*",
        "needs TensorFlow, a run; tests/train/evaluation/test_evaluate.py has both",
    ),
    Rule("parsed", r"fer-train watch .*", "needs a camera; tests/train/evaluation/test_watching.py watches a folder"),
    Rule("parsed", r"fer-train twins .*", "takes many minutes; tests/train/data/test_twins.py searches some pictures"),
    Rule("parsed", r"fer-train judge .*", "trains for an hour; tests/train/test_judge.py trains on a little noise"),
    Rule("parsed", r"fer-train build .*", "trains for hours; tests/train/test_build.py carries out a tiny plan"),
    Rule("parsed", r"fer-train average .*", "needs trained runs; tests/train/test_average.py makes two"),
    Rule("parsed", r"fer-export bundle .*", "needs a trained run; tests/export/test_build.py makes a small one"),
    Rule(
        "parsed",
        r"fer-export robustness .*",
        "takes minutes; tests/export/studies/test_robustness.py measures a few faces",
    ),
    Rule(
        "parsed",
        r"fer-export class-recall .*",
        "needs FERPlus's votes; tests/export/studies/test_class_recall.py measures a few faces",
    ),
    Rule(
        "parsed",
        r"fer-export margin .*",
        "takes minutes; tests/export/studies/test_crop_margin.py measures forty faces",
    ),
    Rule(
        "parsed",
        r"fer-export episodes .* --tune",
        "takes minutes, and tests/export/studies/test_event_tuning.py calls what it does",
    ),
    Rule("parsed", r"fer-export clips .*", "the same as above, and longer"),
    Rule(
        "parsed",
        r"fer-export (compile|add-tpu) .*",
        "no compiler is here; tests/export/edgetpu/test_compiler.py plays it",
    ),
    Rule("parsed", r"make [a-z]+( [A-Z]+=\S+)*", "runs these tests, or downloads"),
    Rule("parsed", r"python -m tests\.\w+( .*)?", "takes minutes on an idle machine"),
    Rule("parsed", r"(\S+=\S+ )?pytest tests/.*", "is among the tests already"),
    # What belongs to the operating system.
    Rule("system", r"python3 -m http\.server .*", "serves until it is stopped"),
    Rule("system", r"git tag -a vX\.Y\.Z .*|git push origin vX\.Y\.Z", "releases this project"),
    Rule("system", r"sudo apt update", "changes this system"),
    Rule("system", rf"sudo apt install --no-install-recommends( ({_PACKAGES}))+", "changes this system"),
    Rule("system", r"sudo /opt/fer-edge/bin/pip install .*", "downloads, into a folder of this system"),
    Rule(
        "system",
        r"python3 -m venv \.venv/ml|\.venv/ml/bin/pip install --editable '\.\[export\]'",
        "downloads TensorFlow",
    ),
    Rule("system", r'export PATH="\$PWD/\.venv/(device|ml)/bin:\$PATH"', "is how the commands that run here are found"),
    Rule("system", r"sudo systemctl (start|stop|restart) fer-edge", "tests/platform does it inside a container"),
    Rule("system", r"journalctl -u fer-edge( -f| -n 50)", "there is no journal of it here"),
    Rule("system", r"sudoedit /etc/fer-edge/(config\.toml|mqtt-password|camera-password)", "opens an editor"),
    Rule("system", r"sudo ln -s /opt/fer-edge/bin/fer-edge /usr/local/bin/fer-edge", "changes this system"),
    Rule(
        "system", r"mosquitto_sub -h broker\.local -u kiosk -P PASSWORD -v -t 'fer-edge/#'", "asks a broker elsewhere"
    ),
    Rule("system", r"ssh -L 9470:127\.0\.0\.1:9470 kiosk", "logs in elsewhere"),
    Rule("system", r"openssl s_client -connect 10\.0\.0\.9:443 .*", "asks a camera elsewhere"),
    Rule("system", r"edgetpu_compiler -s model\.tflite", "Coral's program, which is not here"),
)


def rule_for(command: str) -> Rule | None:
    """The rule of a command; None when nobody has thought of it."""
    return next((rule for rule in RULES if re.fullmatch(rule.pattern, command)), None)
