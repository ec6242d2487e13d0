from pathlib import Path

import pytest

from edge.errors import SettingsError
from edge.settings import Settings, load_settings


def load(folder: Path, text: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    return load_settings(file)


def test_without_a_file_there_are_defaults() -> None:
    assert load_settings(None) == Settings()


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
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
        ("mqtt = 3\n", "mqtt"),
        ("[mqtt\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read"):
        load_settings(tmp_path / "absent.toml")
