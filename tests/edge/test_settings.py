from pathlib import Path
from typing import get_args

import pytest

from edge.errors import SettingsError, nearest
from edge.labels import FER2013_LABELS
from edge.records import EventKind
from edge.settings import Settings, load_settings, require_expressions


def load(folder: Path, text: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    return load_settings(file)


def test_a_shortened_key_is_answered_by_its_full_name() -> None:
    assert nearest("mqtt.user", ["mqtt.url", "mqtt.username"]) == "did you mean mqtt.username?"
    assert nearest("mqtt.uri", ["mqtt.url", "mqtt.username"]) == "did you mean mqtt.url?"
    assert nearest("", ["a", "b"]) == "known here: a, b"


def test_without_a_file_there_are_defaults() -> None:
    assert load_settings(None) == Settings()


def test_a_file_changes_the_keys_that_it_has(tmp_path: Path) -> None:
    settings = load(tmp_path, '[mqtt]\nhost = "broker.local"\nport = 8883\n[events]\ndwell = 1\n')
    assert (settings.mqtt.host, settings.mqtt.port, settings.events.dwell) == ("broker.local", 8883, 1.0)
    assert settings.detect == Settings().detect


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[mqtt]\nhots = "x"\n', r"unknown key mqtt\.hots; did you mean mqtt\.host\?"),
        ("[cameras]\n", r"unknown key cameras; did you mean camera\?"),
        ("zzz = 1\n", "unknown key zzz; known here: camera"),
        ('[mqtt]\nport = "1883"\n', r"mqtt\.port"),
        ("[mqtt]\nport = 0\n", r"mqtt\.port"),
        ('[mqtt]\nprefix = "a/#"\n', r"mqtt\.prefix"),
        ("[events]\nsmoothing = -1\n", r"events\.smoothing"),
        ('[events]\ndwell = "fast"\n', r"events\.dwell"),
        ("mqtt = 3\n", "mqtt"),
        *((f"[detect]\nmin_face = {value}\n", r"detect\.min_face") for value in ("0", "0.0", "1", "nan", "inf", "-1")),
        ("[detect]\nwidth = 640\n", r"unknown key detect\.width; remove it: detect\.min_face alone says how small"),
        ("[track]\nstill_seconds = -1\n", r"track\.still_seconds"),
        ("[[detect.ignore]]\nleft = 0.5\ntop = 0\nwidth = 0.6\nheight = 0.1\n", "it leaves the picture"),
        ("[[detect.ignore]]\nleft = 0.5\ntop = 0\nwidth = 0.0\nheight = 0.1\n", "width"),
        ("[[detect.ignore]]\nleft = 0.5\ntop = 0\nwidth = nan\nheight = 0.1\n", "width"),
        ("[[detect.ignore]]\nleft = 0.5\ntop = 0\nwidth = 0.1\n", "height"),
        ("[[detect.ignore]]\nlef = 0.5\n", r"unknown key detect\.ignore\[0\]\.lef; did you mean"),
        ("[detect]\nignore = 3\n", r"detect\.ignore"),
        (
            '[[preset]]\nname = "smile"\nexpression = "Happy"\n',
            r"1 to 32 lower-case letters, .* - at `preset\[0\]\.expression`",
        ),
        ('[[preset]]\nname = "smile"\nexpresion = "happy"\n', r"unknown key preset\[0\]\.expresion; did you mean"),
        ('[[preset]]\nname = "Smile!"\nexpression = "happy"\n', r"preset\[0\]\.name"),
        ('[preset]\nname = "smile"\nexpression = "happy"\n', r"\[preset\]: write \[\[preset\]\], with two brackets"),
        ("[detect.ignore]\nleft = 0\n", r"\[detect\.ignore\]: write \[\[detect\.ignore\]\], with two brackets"),
        ("[mqtt]\npassword_file = 1234\n", r": mqtt\.password_file takes text in quotation marks$"),
        ("[[preset]]\nname = 1\n", r": preset\[0\]\.name takes text in quotation marks$"),
        ('source = "demo"\n', r"unknown key source; it belongs below \[camera\]$"),
        ('username = "kiosk"\n', r"unknown key username; it belongs below \[camera\] or \[mqtt\]$"),
        ('[[preset]]\nname = "a"\nexpression = "sad"\n' * 2, "two presets have the name 'a'"),
        ('[mqtt]\ndevice = "front door"\n', r"Expected a name without spaces, .*/, \+ and # - at `mqtt\.device`"),
        ('[mqtt]\ndevice = "a\\u0000b"\n', r"control characters.*mqtt\.device"),
        ('[mqtt]\nprefix = "$SYS/x"\n', r"not beginning with \$ - at `mqtt\.prefix`"),
        ('[mqtt]\nprefix = "a//b"\n', r"names with / between them.*mqtt\.prefix"),
        ('[homeassistant]\nprefix = "homeassistant/"\n', r"names with / between them.*homeassistant\.prefix"),
        (f'[mqtt]\ndevice = "{"x" * 240}"\n', "mqtt.prefix and mqtt.device are longer than 180 bytes"),
        (f'[mqtt]\ndevice = "{"入" * 60}"\n', "longer than 180 bytes"),
        ('[mqtt]\nkey_file = "/k"\n', r"mqtt\.key_file belongs to mqtt\.cert_file: give that too, or remove the line$"),
        ('[mqtt]\npassword_file = "/p"\n', r"mqtt\.password_file belongs to mqtt\.username: give that too, or remove"),
        ('[camera]\npassword_file = "/p"\n', r"camera\.password_file belongs to camera\.username: give that too, or"),
        ('[camera]\nsource = ""\n', r": camera\.source is empty: give a value, or remove the line$"),
        ("[privacy]\nminimum_people = 1\n", r"privacy\.minimum_people"),
        ("[mqtt\n", "not valid TOML"),
        (f"[mqtt]\nport = 0x1{'0' * 20_000}\n", r"at `mqtt\.port`"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '[camera]\nsize = "1280x720"\n',
            'camera.size takes a list of 2, each a whole number from 64 to 8,192, or `"auto"`, not "1280x720"',
        ),
        (
            "[camera]\nsize = [1280, 72000]\n",
            'camera.size takes a list of 2, each a whole number from 64 to 8,192, or `"auto"`, not [1280, 72000]',
        ),
        ('[camera]\nformat = "MJPEG"\n', 'camera.format takes `"MJPG"` or `"YUYV"` or `"auto"`, not "MJPEG"'),
        ("[camera]\nrotation = 45\n", "camera.rotation takes `0` or `90` or `180` or `270`, not 45"),
        (
            '[camera]\nexposure_ms = "10"\n',
            'camera.exposure_ms takes a number from 0.01 to 1,000, or `"auto"` or `"keep"`, not "10"',
        ),
        ('[detect]\ndetector = "YuNet"\n', 'detect.detector takes `"haar"` or `"yunet"`, not "YuNet"'),
        ('[model]\naccelerator = "tpu"\n', 'model.accelerator takes `"auto"` or `"cpu"` or `"edgetpu"`, not "tpu"'),
        ('[mqtt]\nprotocol = "3.1"\n', 'mqtt.protocol takes `"3.1.1"` or `"5"`, not "3.1"'),
        ('[events]\nthreshold = "0.5"\n', 'events.threshold takes a number from 0 below 1, or `"card"`, not "0.5"'),
        (
            '[camera]\nformat = "\U0001f600 é\\u007f\\U000e0001"\n',
            'camera.format takes `"MJPG"` or `"YUYV"` or `"auto"`, not "\U0001f600 é\\u007f\\U000e0001"',
        ),
        ("[mqtt]\ntls = 1\n", "mqtt.tls takes `true` or `false`, not 1"),
        ("[mqtt]\nport = 2026-11-30\n", 'mqtt.port takes a whole number from 1 to 65,535, not "2026-11-30"'),
        (
            "[[detect.ignore]]\nleft = 2\ntop = 0\nwidth = 0.5\nheight = 0.1\n",
            "detect.ignore[0].left takes a number from 0 below 1, not 2",
        ),
    ],
)
def test_a_wrong_value_is_answered_by_what_the_key_takes(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text)
    assert str(raised.value) == f"{tmp_path / 'config.toml'}: {sentence}"


@pytest.mark.parametrize(
    ("table", "key"),
    [
        *(("camera", key) for key in ("source", "password_file", "ca_file")),
        *(("detect", key) for key in ("model", "cascade")),
        *(("model", key) for key in ("bundle", "edgetpu_library")),
        *(("mqtt", key) for key in ("password_file", "ca_file", "cert_file", "key_file")),
        ("store", "folder"),
    ],
)
def test_a_home_folder_is_to_be_written_in_full(tmp_path: Path, table: str, key: str) -> None:
    with pytest.raises(SettingsError, match=rf": {table}\.{key}: give the whole path in place of ~"):
        load(tmp_path, f'[{table}]\n{key} = "~/file"\n')
    beside = {"key_file": 'cert_file = "/home/kiosk/certificate"\n', "password_file": 'username = "kiosk"\n'}.get(
        key, ""
    )
    load(tmp_path, f'[{table}]\n{key} = "/home/kiosk/file~"\n{beside}')


def test_a_wrong_text_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"text without control characters, .* - at `camera\.source`") as raised:
        load(tmp_path, '[camera]\nsource = "rtsp://admin:SECRET\\u0000@cam/"\n')
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[mqtt]\nbroker = 1\n", "unknown key mqtt.broker; known here: url, host, port"),
        ("[store]\npath = 1\n", "unknown key store.path; known here: folder, events"),
        ("[camera]\ndevice = 1\n", "unknown key camera.device; known here: source, username"),
        ("[camera]\nsise = 1\n", "unknown key camera.sise; did you mean camera.size?"),
        (
            "[events]\nexpression = 1\n",
            "did you mean events.hysteresis? ([[preset]] has a key of this name)",
        ),
        ("[camera]\nmin_face = 1\n", " ([detect] has a key of this name)"),
    ],
)
def test_the_table_of_an_unknown_key_makes_no_key_more_like_it(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text)
    assert words in str(raised.value)


def test_a_file_from_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b'\xef\xbb\xbf[mqtt]\r\nhost = "broker.local"\r\n')
    assert load_settings(tmp_path / "config.toml").mqtt.host == "broker.local"


def test_ignored_parts_are_read_in_order(tmp_path: Path) -> None:
    part = "[[detect.ignore]]\nleft = {}\ntop = 0\nwidth = 0.5\nheight = 1\n"
    ignore = load(tmp_path, part.format(0) + part.format(0.5)).detect.ignore
    assert [(area.left, area.width, area.height) for area in ignore] == [(0, 0.5, 1), (0.5, 0.5, 1)]


def test_an_expression_that_the_model_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    presets = load(tmp_path, '[[preset]]\nname = "smile"\nexpression = "hapy"\n').preset
    with pytest.raises(SettingsError, match="'smile': the model student has no expression 'hapy'; did you mean happy"):
        require_expressions(presets, FER2013_LABELS, "student")
    require_expressions(presets, ("sad", "hapy"), "another")


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_a_preset_cannot_have_the_name_of_an_event_kind(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SettingsError, match="is an event already"):
        load(tmp_path, f'[[preset]]\nname = "{kind}"\nexpression = "happy"\n')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_settings(tmp_path / "absent.toml")
