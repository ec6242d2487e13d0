"""The typed settings, read from one TOML file. Unknown keys are refused and the nearest known one is named."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

from edge.errors import SettingsError, nearest

EXPRESSIONS: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""As edge.model.preprocessing.LABELS, which is not imported: doctor reads settings where numpy or OpenCV is missing."""

_KINDS: Final = ("appeared", "changed", "uncertain", "preset", "left")  # as edge.records.EventKind, likewise

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Side = Annotated[int, Meta(ge=64, le=8192)]
Share = Annotated[float, Meta(ge=0, lt=1)]
FromCard = Literal["card"]
Port = Annotated[int, Meta(ge=1, le=65535)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class CameraSettings(Section, frozen=True):
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


class DetectSettings(Section, frozen=True):
    """``[detect]``: finding faces."""

    width: Annotated[int, Meta(ge=80)] = 320
    """New faces are searched for in the picture reduced to at most this width, in pixels."""
    min_face: Annotated[float, Meta(gt=0, le=1)] = 0.12
    """Smallest face, as a fraction of the picture's height."""
    neighbors: Count = 5
    """How many overlapping hits make a face in one scan of a picture. For faces that are followed, 4.4 times as many
    windows must agree, of another cascade in the picture and its mirror image, and of those for eyes and mouth. More
    means fewer false faces."""
    budget_ms: Positive = 20.0
    """Milliseconds a frame for the search for new faces, as a Raspberry Pi 4 would take them. They are estimated, not
    measured, so that the same pictures always give the same faces. Searching everything takes some 30 and is done
    every two seconds in any case; the rest goes where something moves."""
    cascade: str = ""
    """File of another cascade for OpenCV; empty: two of its own for upright frontal faces, which must agree, and two
    for eyes and mouth. One that is given here has to agree with itself on the mirror image, with 2.4 times
    `neighbors`."""


class TrackSettings(Section, frozen=True):
    """``[track]``: following faces from frame to frame."""

    max_faces: Count = 5
    """At most this many faces at once, largest first."""
    min_hits: Count = 3
    """A new face that is found clearly is believed at once; a doubtful one when it was found so many times."""
    lost_after: Positive = 1.0
    """Seconds without a detection after which a face has left. One that is back earlier is still the same."""


class ModelSettings(Section, frozen=True):
    """``[model]``: which network classifies."""

    bundle: str = ""
    """Name of a bundled model (`student`, or `student-small` for half the time at less accuracy), or the path of a
    bundle folder. Empty: what `fer-edge model` has put in use, or else `student`."""
    threads: Annotated[int, Meta(ge=0, le=64)] = 0
    """CPU threads of one inference; 0: as many as `fer-edge bench --autotune` has found best on this device, else 1."""
    accelerator: Literal["auto", "cpu", "edgetpu"] = "auto"
    """`auto`: a Coral Edge TPU, if the bundle has a file compiled for it and it works here, else the CPU. `cpu`: never
    the Edge TPU. `edgetpu`: as `auto`, but its absence too is a fault (code 21), and it is tried again."""
    edgetpu_library: Annotated[str, Meta(min_length=1)] = "libedgetpu.so.1"
    """The library that drives the Edge TPU: its name, or its path."""
    rate: Positive = 15.0
    """Each face is classified so many times a second at most; faces take turns."""


class QualitySettings(Section, frozen=True):
    """``[quality]``: which faces are worth classifying. The others are followed all the same."""

    min_size: Annotated[int, Meta(ge=0)] = 32
    """Side of the face's box in pixels of the camera's picture. Reduced to 32 pixels, one FER2013 face in five gets
    another label."""
    min_sharpness: Annotated[float, Meta(ge=0)] = 0.3
    """Variance of the Laplacian of the 24x24 pixels that the face's crop is reduced to, divided by their variance.
    FER2013's own faces have 0.6 to 3.5; half of those blurred so much that every second gets another label have 0.3."""
    min_contrast: Annotated[float, Meta(ge=0)] = 8.0
    """Standard deviation of the crop's grey values, 0 to 127. FER2013's faces have 27 to 80; at 8 most get another
    label."""


class EventSettings(Section, frozen=True):
    """``[events]``: what is worth telling. `"card"` means what was tuned for the model, and stands in its card."""

    smoothing: Positive | FromCard = "card"
    """Time constant in seconds of the averaging of scores."""
    dwell: Annotated[float, Meta(ge=0)] | FromCard = "card"
    """Seconds that a new face or a new expression must last before it is told."""
    hysteresis: Share | FromCard = "card"
    """A new expression must be so much more probable than the one told before, 0..1."""
    threshold: Share | FromCard = "card"
    """Below this probability it is uncertain what a face shows, 0..1; 0 always guesses."""
    uncertain_after: Positive = 1.0
    """Seconds without anything certain before that is told."""


class Preset(Section, frozen=True):
    """``[[preset]]``: an event with a name of its own, when a face shows one expression long enough; any number."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}$")]
    """What the event is called: small letters, digits, - and _."""
    expression: str
    """angry, disgust, fear, happy, sad, surprise or neutral."""
    for_seconds: Annotated[float, Meta(ge=0)] = 1.0
    """So long without interruption; it comes once each time."""
    min_confidence: Share = 0.0
    """With at least this probability all the time, 0..1."""


class PrivacySettings(Section, frozen=True):
    """``[privacy]``: what the device is for, and whether it tells of single visitors at all."""

    declared_use: Annotated[str, Meta(max_length=500)] = ""
    """One sentence: what you use this device for, as you told the visitors. It is published with the statistics."""
    aggregate_only: bool = False
    """Publish only counts of people over intervals; no event, no state, nothing about a single face."""
    interval_seconds: Annotated[float, Meta(ge=10)] = 300.0
    """Length of such an interval."""
    minimum_people: Annotated[int, Meta(ge=2)] = 5
    """No count below this number is published."""


class MqttSettings(Section, frozen=True):
    """``[mqtt]``: the broker that events go to. docs/mqtt.md describes every topic."""

    host: Annotated[str, Meta(min_length=1)] = "localhost"
    """The broker's name or address."""
    port: Port = 1883
    """Its port; with TLS usually 8883."""
    protocol: Literal["5", "3.1.1"] = "5"
    """Version of MQTT. Only with 5 does a broker say that it refuses an event."""
    keepalive: Annotated[int, Meta(ge=2, le=3600)] = 30
    """A connection on which nothing comes for twice so many seconds is lost."""
    prefix: Annotated[str, Meta(pattern=r"^[^/+#\s][^+#\s]*$")] = "fer-edge"
    """Topics are PREFIX/DEVICE/availability, .../state, .../event and so on."""
    device: Annotated[str, Meta(pattern=r"^[^/+#\s]*$")] = ""
    """Unique name of this device; empty: the board's serial number, or else the host name."""
    username: str = ""
    """What the broker knows this device as; empty: no user name and no password."""
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


class StoreSettings(Section, frozen=True):
    """``[store]``: what must outlive a restart: events that the broker does not have yet, and whether it is paused."""

    folder: str = ""
    """Where; empty: /var/lib/fer-edge as a service, else ~/.local/state/fer-edge. A service can write nowhere else."""
    events: Count = 50_000
    """So many events are kept, some 20 MB; beyond that the oldest are dropped, and counted."""


class HomeAssistantSettings(Section, frozen=True):
    """``[homeassistant]``: being found by Home Assistant through the same broker."""

    enabled: bool = False
    """Publish a device description; when this is turned off again, the description is taken back."""
    prefix: Annotated[str, Meta(pattern=r"^[^/+#\s][^+#\s]*$")] = "homeassistant"
    """Home Assistant's own discovery prefix."""
    name: str = ""
    """What Home Assistant calls this device; empty: fer-edge and its name in topics."""


class MetricsSettings(Section, frozen=True):
    """``[metrics]``: figures for Prometheus, at http://ADDRESS:PORT/metrics; needs the extra fer-edge[metrics]."""

    enabled: bool = False
    """Serve them."""
    address: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """Where to listen. Whoever can reach it can read it: there is no password."""
    port: Port = 9469
    """Where to listen, too."""


class Settings(Section, frozen=True):
    """The whole file; every table and key may be left out."""

    camera: CameraSettings = CameraSettings()
    detect: DetectSettings = DetectSettings()
    track: TrackSettings = TrackSettings()
    model: ModelSettings = ModelSettings()
    quality: QualitySettings = QualitySettings()
    events: EventSettings = EventSettings()
    preset: tuple[Preset, ...] = ()
    privacy: PrivacySettings = PrivacySettings()
    mqtt: MqttSettings = MqttSettings()
    store: StoreSettings = StoreSettings()
    homeassistant: HomeAssistantSettings = HomeAssistantSettings()
    metrics: MetricsSettings = MetricsSettings()


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
    _check_presets(file, values.get("preset"))
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


def _check_presets(file: Path, presets: Any) -> None:
    """What the types alone would say less helpfully; they say the rest."""
    if not isinstance(presets, list):
        return
    names = []
    for number, preset in enumerate(presets):
        if not isinstance(preset, dict):
            continue
        _refuse_unknown(file, preset, Preset, f"preset[{number}].")
        shown = preset.get("expression")
        if isinstance(shown, str) and shown not in EXPRESSIONS:
            raise SettingsError(
                f"{file}: preset[{number}].expression: unknown {shown!r}; {nearest(shown, EXPRESSIONS)}"
            )
        if preset.get("name") in _KINDS:
            raise SettingsError(f"{file}: preset[{number}].name: {preset['name']} is an event already")
        names.append(preset.get("name"))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"{file}: two presets have the name {twice!r}")
