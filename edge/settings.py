"""The typed settings, read from one TOML file. Unknown keys are refused and the nearest known one is named."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from edge.errors import SettingsError, nearest

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Side = Annotated[int, Meta(ge=64, le=8192)]
Port = Annotated[int, Meta(ge=1, le=65535)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Camera(Section, frozen=True):
    """``[camera]``: where pictures come from."""

    source: str = "/dev/video0"
    """`demo`, a video file, a folder of pictures, a V4L2 device (`/dev/video0`), a Raspberry Pi camera (`picamera2`,
    `picamera2:1`), or the address of a stream (`http://`, `https://`, `rtsp://`)."""
    size: tuple[Side, Side] = (640, 480)
    """Width and height to ask a V4L2 or Raspberry Pi camera for, before rotation; it gives the nearest it can."""
    rotation: Literal[0, 90, 180, 270] = 0
    """Degrees to turn every picture clockwise, for faces to stand upright."""
    mirror: bool = False
    """Swap left and right, after the rotation."""
    stall_seconds: Positive = 5.0
    """A live camera that shows nothing new for so long ends the program (exit code 10)."""
    folder_fps: Positive = 15.0
    """Pictures per second that a folder of pictures stands for."""


class Detect(Section, frozen=True):
    """``[detect]``: finding faces."""

    width: Annotated[int, Meta(ge=80)] = 320
    """The cascade runs on the picture reduced to this width, in pixels."""
    min_face: Annotated[float, Meta(gt=0, le=1)] = 0.12
    """Smallest face, as a fraction of the picture's height."""
    neighbors: Count = 5
    """How many overlapping hits make a face; more means fewer false faces."""


class Track(Section, frozen=True):
    """``[track]``: following faces from frame to frame."""

    max_faces: Count = 5
    """At most this many faces at once, largest first."""
    min_hits: Count = 3
    """A new face must be found in this many frames in a row."""
    lost_after: Positive = 1.0
    """Seconds without a detection after which a face has left."""


class Model(Section, frozen=True):
    """``[model]``: which network classifies."""

    bundle: str = ""
    """Name of a bundled model, or the path of a bundle folder. Empty: what `fer-edge model` has put in use, or else
    student-small."""
    threads: Count = 1
    """CPU threads of one inference."""


class Events(Section, frozen=True):
    """``[events]``: what is worth telling."""

    smoothing: Positive = 0.4
    """Time constant in seconds of the averaging of scores."""
    dwell: Annotated[float, Meta(ge=0)] = 0.4
    """Seconds that a new face or a new expression must last before it is told."""


class Mqtt(Section, frozen=True):
    """``[mqtt]``: the broker that events go to. docs/mqtt.md describes every topic."""

    host: Annotated[str, Meta(min_length=1)] = "localhost"
    port: Port = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    """Version of MQTT. Only with 5 does a broker say that it refuses an event."""
    keepalive: Annotated[int, Meta(ge=2, le=3600)] = 30
    """A connection on which nothing comes for twice so many seconds is lost."""
    prefix: Annotated[str, Meta(pattern=r"^[^/+#\s][^+#\s]*$")] = "fer-edge"
    """Topics are PREFIX/DEVICE/availability, .../state, .../event and so on."""
    device: Annotated[str, Meta(pattern=r"^[^/+#\s]*$")] = ""
    """Unique name of this device; empty: the board's serial number, or else the host name."""
    username: str = ""
    password_file: str = ""
    """A file that holds the password; never the password itself. The service reads /etc/fer-edge/mqtt-password."""
    tls: bool = False
    """Encrypt, and trust the certificate authorities of the system."""
    ca_file: str = ""
    """Encrypt, and trust this certificate authority instead of the system's."""
    cert_file: str = ""
    """This device's own certificate, for brokers that want one; encrypts too."""
    key_file: str = ""
    """The key of cert_file, unless it is in that file. The service reads /etc/fer-edge/mqtt-key."""
    commands: bool = True
    """Obey .../command/pause, .../command/verify and .../command/reload."""
    statistics_seconds: Annotated[float, Meta(ge=1)] = 60.0
    """Seconds from one .../statistics to the next."""

    @property
    def encrypted(self) -> bool:
        """Whether these settings ask for TLS."""
        return bool(self.tls or self.ca_file or self.cert_file)


class Store(Section, frozen=True):
    """``[store]``: what must outlive a restart: events that the broker does not have yet, and whether it is paused."""

    folder: str = ""
    """Where; empty: /var/lib/fer-edge as a service, else ~/.local/state/fer-edge. A service can write nowhere else."""
    events: Count = 50_000
    """So many events are kept, some 20 MB; beyond that the oldest are dropped, and counted."""


class HomeAssistant(Section, frozen=True):
    """``[homeassistant]``: being found by Home Assistant through the same broker."""

    enabled: bool = False
    """Publish a device description; when this is turned off again, the description is taken back."""
    prefix: Annotated[str, Meta(pattern=r"^[^/+#\s][^+#\s]*$")] = "homeassistant"
    """Home Assistant's own discovery prefix."""
    name: str = ""
    """What Home Assistant calls this device; empty: fer-edge and its name in topics."""


class Metrics(Section, frozen=True):
    """``[metrics]``: figures for Prometheus, at http://ADDRESS:PORT/metrics; needs the extra fer-edge[metrics]."""

    enabled: bool = False
    address: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """Where to listen. Whoever can reach it can read it: there is no password."""
    port: Port = 9469


class Settings(Section, frozen=True):
    """The whole file; every table and key may be left out."""

    camera: Camera = Camera()
    detect: Detect = Detect()
    track: Track = Track()
    model: Model = Model()
    events: Events = Events()
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    homeassistant: HomeAssistant = HomeAssistant()
    metrics: Metrics = Metrics()


def load_settings(file: Path | None) -> Settings:
    """Read a settings file; None gives the defaults. Raises SettingsError naming the key and what it takes."""
    if file is None:
        return Settings()
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error
    _refuse_unknown(file, values, Settings, "")
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{file}: {str(error).replace('$.', '')}") from error


def _refuse_unknown(file: Path, values: dict[str, Any], section: type[Section], prefix: str) -> None:
    types = get_type_hints(section, include_extras=True)
    for key, value in values.items():
        if key not in types:
            hint = nearest(f"{prefix}{key}", [f"{prefix}{known}" for known in types])
            raise SettingsError(f"{file}: unknown key {prefix}{key}; {hint}")
        if isinstance(value, dict) and isinstance(types[key], type) and issubclass(types[key], Section):
            _refuse_unknown(file, value, types[key], f"{prefix}{key}.")
