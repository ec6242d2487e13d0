"""The typed settings, read from one TOML file. An unknown key is an error that names the nearest known one."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge.broker_url import parse_broker_url
from edge.errors import SettingsError, nearest
from edge.labels import LabelName, Labels
from edge.setting_checks import check_ignored, check_presets, reject_unknown_keys, settings_error
from edge.setting_types import (
    PRINTABLE,
    Address,
    Count,
    DeviceName,
    FileName,
    FromCard,
    Host,
    Part,
    Port,
    PresetName,
    Seconds,
    Share,
    Side,
    Text,
    TopicPrefix,
    UserName,
)
from edge.setting_words import wrong_value
from edge.untrusted_file import read_regular

_LARGEST_FILE: Final = 100_000  # bytes; the sample has eight thousand
_MAX_DOTS: Final = 200
BELONGS_TO: Final = (
    ("camera", "password_file", "username"),
    ("mqtt", "password_file", "username"),
    ("mqtt", "key_file", "cert_file"),
)
"""Keys that mean nothing without another one: the table, the key, and the one that it needs."""
_LONGEST_BASE: Final = 180  # bytes of PREFIX/DEVICE, which begins the names of files; Linux allows them 255


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class CameraSettings(Section, frozen=True):
    """``[camera]``: the source of the pictures."""

    source: Annotated[FileName, Meta(min_length=1)] = "/dev/video0"
    """`demo`, a video file, a folder of pictures, or a V4L2 device (`/dev/video0`, or a link to it such as
    `/dev/v4l/by-id/NAME`). Or a Raspberry Pi camera (`picamera2`, `picamera2:1`), or the address of a stream
    (`http://`, `https://`, `rtsp://`, `rtsps://`, `rtmp://`, `tcp://`, `udp://`)."""
    username: UserName = ""
    """User name for a stream; empty: no user name and no password, or those in the address."""
    password_file: FileName = ""
    """File with the stream's password, never the password itself. The service reads /etc/fer-edge/camera-password."""
    ca_file: FileName = ""
    """File of a certificate authority to trust for `https://` and `rtsps://` instead of the system's."""
    accept_any_certificate: bool = False
    """Connect to an `https://` or `rtsps://` camera whatever its certificate is. Whoever controls the network can then
    read user name and password, and can show other pictures."""
    size: tuple[Side, Side] | Literal["auto"] = "auto"
    """Width and height to request from a V4L2 or Raspberry Pi camera, before rotation. The camera chooses the nearest
    size that it has. `auto`: 640x480 from a V4L2 camera, 1280x960 from a Raspberry Pi camera, which itself makes the
    smaller pictures that are searched."""
    format: Literal["auto", "MJPG", "YUYV"] = "auto"
    """Format in which a V4L2 camera sends its pictures. `auto`: MJPG for more than 640x480 pixels, because USB 2
    carries few uncompressed pictures of that size; else the camera's own."""
    fps: Annotated[float, Meta(ge=0, le=240)] = 0.0
    """Frame rate to request from a V4L2 camera. 0: the camera's own."""
    exposure_ms: Annotated[float, Meta(ge=0.01, le=1000)] | Literal["auto", "keep"] = "keep"
    """Exposure time to lock a V4L2 camera to, in milliseconds; or `auto`. `keep`: what the camera is set to, which is
    automatic after it was plugged in."""
    white_balance: Annotated[int, Meta(ge=1000, le=20_000)] | Literal["auto", "keep"] = "keep"
    """Colour temperature to lock a V4L2 camera's white balance to, in kelvin; or `auto`, or `keep` as above."""
    rotation: Literal[0, 90, 180, 270] = 0
    """Degrees to rotate every picture clockwise, so that faces are upright."""
    mirror: bool = False
    """Swap left and right after the rotation."""
    stall_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 5.0
    """Seconds without a new picture from a live camera after which the program ends (exit code 10)."""
    folder_fps: Annotated[float, Meta(ge=0.001, le=1000)] = 15.0
    """Frame rate at which a folder of pictures is played."""


class Ignore(Section, frozen=True):
    """``[[detect.ignore]]``: a part of the picture in which no face begins. There may be any number."""

    left: Share
    """Left edge, as a share of the picture's width, 0..1, after rotation and mirroring."""
    top: Share
    """Top edge, as a share of the picture's height, 0..1."""
    width: Part
    """Width, as a share of the picture's width."""
    height: Part
    """Height, as a share of the picture's height."""


class DetectSettings(Section, frozen=True):
    """``[detect]``: detecting faces."""

    detector: Literal["haar", "yunet"] = "haar"
    """`haar`: OpenCV's cascades for upright frontal faces. `yunet`: a network that also finds small, tilted and turned
    faces. It needs `model`."""
    model: FileName = ""
    """File of the network YuNet, for `yunet` only. [Detectors](detectors.md) says where to get it."""
    min_face: Annotated[float, Meta(ge=0.001, lt=1)] = 0.05
    """Smallest face, as a share of the picture's shorter side: 0.05 is 24 of 480 pixels. `haar` needs faces of 24
    pixels, `yunet` of 10. Where the picture has too few, a message at the start names the smallest share that can be
    found. `haar` searches faces below 0.12 where something moves, and elsewhere every twenty seconds."""
    neighbors: Count = 5
    """How many overlapping detections make a face when one picture is scanned. In a video, so many detections by the
    second cascade count as much as one more point of the judge's score. A higher number gives fewer false faces."""
    budget_ms: Annotated[float, Meta(ge=0.1, le=10_000)] = 15.5
    """Milliseconds per frame for the search for new faces, in the time of a Raspberry Pi 4. The time is estimated, not
    measured, so that the same pictures always give the same faces. A full scan for faces of 0.12 or more takes about
    30 and is spread over two seconds. One for faces from 0.05 to 0.12 takes about 200 and is spread over twenty. The
    rest of the budget is spent where something moves."""
    cascade: FileName = ""
    """File of another OpenCV cascade for upright faces. Empty: two of OpenCV's own, one that proposes faces and one
    that confirms them. A cascade given here does both. A small network, the judge, must agree in either case."""
    ignore: Annotated[tuple[Ignore, ...], Meta(max_length=100)] = ()
    """Parts of the picture in which no face begins, each a table `[[detect.ignore]]`: for posters and screens."""


class TrackSettings(Section, frozen=True):
    """``[track]``: tracking faces from frame to frame."""

    max_faces: Count = 10
    """How many faces are tracked at once; the largest come first."""
    min_hits: Count = 3
    """How many detections a doubtful new face needs before it is tracked; a clear one needs one. What overlaps the
    picture's lower edge needs twice as many. With `haar`, a face below 0.12 of the shorter side is never clear."""
    lost_after: Seconds = 1.0
    """Seconds without a detection after which a face has left. A face that is found again earlier keeps its track."""
    still_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """A face that has not moved for so many seconds is a picture of one, and is not classified: the event `uncertain`
    says `still`. A living face moves by a fiftieth of its size. 0: every face is classified."""


class ModelSettings(Section, frozen=True):
    """``[model]``: the network that classifies faces."""

    bundle: FileName = ""
    """Name of a bundled model, or the path of a bundle folder. `student` takes as long as `student-small-72`.
    `student-small` takes half the time and is less accurate. Empty: the model that `fer-edge model` has put in use, or
    else `student-small-72`."""
    threads: Annotated[int, Meta(ge=0, le=64)] = 0
    """CPU threads of one inference. 0: as many as `fer-edge bench --autotune` has chosen on this device, else 1."""
    accelerator: Literal["auto", "cpu", "edgetpu"] = "auto"
    """`auto`: a Coral Edge TPU, if the bundle has a file compiled for it and it works here, else the CPU. `cpu`: never
    the Edge TPU. `edgetpu`: like `auto`, but a missing Edge TPU is a fault (code 21) too, and it is tried again."""
    edgetpu_library: Annotated[FileName, Meta(min_length=1)] = "libedgetpu.so.1"
    """Name or path of the Edge TPU's library."""
    rate: Annotated[float, Meta(ge=0.001, le=1000)] = 15.0
    """How many times per second each face is classified at most; several faces take turns. From four faces on, all
    together are classified as often as three: six faces half as often each."""


class QualitySettings(Section, frozen=True):
    """``[quality]``: which faces are good enough to classify. The others are tracked but not classified."""

    min_size: Annotated[int, Meta(ge=0, le=8192)] = 32
    """Smallest side of the face's box, in pixels of the camera's picture. Reduced to 32 pixels, one FER2013 face in
    five gets another label."""
    max_yaw: Annotated[float, Meta(ge=0, le=90)] = 50.0
    """Degrees that a head may be turned to a side. Only `yunet` tells them, and roughly. In some real videos, frontal
    faces mostly had less than 30, half-turned ones less than 40, profiles 25 to 75. 90: all are classified."""
    min_sharpness: Annotated[float, Meta(ge=0, le=100)] = 0.3
    """Smallest sharpness. It is the variance of the Laplacian of the crop, reduced to 24x24 pixels, divided by the
    variance of these pixels. FER2013's faces have 0.6 to 3.5. Blurred until every second one gets another label, half
    of them are below 0.3."""
    min_contrast: Annotated[float, Meta(ge=0, le=127)] = 8.0
    """Smallest standard deviation of the crop's grey values, 0 to 127. FER2013's faces have 27 to 80; at 8 most get
    another label."""


class EventSettings(Section, frozen=True):
    """``[events]``: when an event is published. `"card"` means the value in the model's card, tuned for this model."""

    smoothing: Seconds | FromCard = "card"
    """Time constant of the smoothing of scores, in seconds."""
    dwell: Annotated[float, Meta(ge=0, le=86_400)] | FromCard = "card"
    """Seconds that a new face or a new expression must last before its event."""
    hysteresis: Share | FromCard = "card"
    """How much more probable a new expression must be than the last one published, 0..1."""
    threshold: Share | FromCard = "card"
    """Below this probability the expression is uncertain, 0..1; with 0 it never is."""
    uncertain_after: Seconds = 1.0
    """Seconds of uncertainty before the event `uncertain`."""


class Preset(Section, frozen=True):
    """``[[preset]]``: a named event for a face that shows one expression long enough. There may be any number."""

    name: PresetName
    """Name of the event: lower-case letters, digits, - and _."""
    expression: LabelName
    """A label of the model: of a bundled one angry, disgust, fear, happy, sad, surprise or neutral."""
    for_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    """Seconds of this expression without interruption; the event comes once per episode."""
    min_confidence: Share = 0.0
    """Probability that the expression must keep all that time, 0..1."""


class PrivacySettings(Section, frozen=True):
    """``[privacy]``: what the device is used for, and whether it publishes events of single visitors."""

    declared_use: Annotated[str, Meta(max_length=500, pattern=PRINTABLE)] = ""
    """One sentence: what you use this device for, as you told the visitors. It is published with the statistics."""
    aggregate_only: bool = False
    """Publish only counts of people over intervals; no event, no state, nothing about a single face."""
    interval_seconds: Annotated[float, Meta(ge=10, le=86_400)] = 300.0
    """Length of an interval, in seconds."""
    minimum_people: Annotated[int, Meta(ge=2, le=1_000_000)] = 5
    """No count below this number is published."""


class MqttSettings(Section, frozen=True):
    """``[mqtt]``: the broker that receives the events. docs/mqtt.md describes every topic."""

    url: Address = ""
    """Address of the broker, in place of `host`, `port` and `tls`: `mqtt://HOST`, `mqtts://HOST` with TLS, or
    `ws://HOST/PATH` and `wss://HOST/PATH` for websockets. `:PORT` may follow the host. It holds no user."""
    host: Host = "localhost"
    """Host name or address of the broker."""
    port: Port = 1883
    """Port of the broker; with TLS usually 8883."""
    protocol: Literal["5", "3.1.1"] = "5"
    """Version of MQTT. Only with version 5 does a broker report that it refuses an event."""
    keepalive: Annotated[int, Meta(ge=2, le=3600)] = 30
    """Keep-alive interval in seconds. A connection that is silent for twice as long is lost."""
    prefix: TopicPrefix = "fer-edge"
    """Topics are PREFIX/DEVICE/availability, .../state, .../event and so on."""
    device: DeviceName = ""
    """Unique name of this device; empty: the board's serial number. A computer without one keeps the
    host name of its first start. `{board}` in it stands for that too."""
    username: Text = ""
    """User name for the broker; empty: no user name and no password."""
    password_file: FileName = ""
    """File with the password, never the password itself. The service reads /etc/fer-edge/mqtt-password."""
    tls: bool = False
    """Encrypt with TLS, and trust the certificate authorities of the system."""
    ca_file: FileName = ""
    """File of a certificate authority to trust instead of the system's; turns on TLS."""
    cert_file: FileName = ""
    """File of this device's certificate, for brokers that require one; turns on TLS."""
    key_file: FileName = ""
    """File of the key of `cert_file`, unless that file has it. The service reads /etc/fer-edge/mqtt-key."""
    commands: bool = True
    """Accept the commands .../command/pause, .../command/verify and .../command/reload."""
    statistics_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    """Seconds between two messages on .../statistics."""

    @property
    def websocket_path(self) -> str | None:
        """The path, and the query, with which a websocket is opened; None without websockets."""
        return parse_broker_url(self.url).websocket_path if self.url else None

    @property
    def encrypted(self) -> bool:
        """Whether these settings ask for TLS."""
        return bool(self.tls or self.ca_file or self.cert_file)


class StoreSettings(Section, frozen=True):
    """``[store]``: what outlives a restart: events that the broker has not acknowledged, and whether it is paused."""

    folder: FileName = ""
    """The folder. Empty: /var/lib/fer-edge for the service, else ~/.local/state/fer-edge. The service can write nowhere
    else."""
    events: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000
    """How many events are kept, about 20 MB; beyond that the oldest are dropped and counted."""


class HomeAssistantSettings(Section, frozen=True):
    """``[homeassistant]``: discovery by Home Assistant through the same broker."""

    enabled: bool = False
    """Publish the discovery message of this device. When this is turned off again, the message is removed."""
    prefix: TopicPrefix = "homeassistant"
    """The discovery prefix that Home Assistant is configured with."""
    name: Text = ""
    """Name of this device in Home Assistant; empty: fer-edge and its name in topics."""
    event_max_age: Seconds = 10.0
    """Seconds after which an event is too old for Home Assistant, because automations take it for one of now. Older
    ones still reach .../event."""


class MetricsSettings(Section, frozen=True):
    """``[metrics]``: metrics for Prometheus at http://ADDRESS:PORT/metrics. They need a package: docs/metrics.md."""

    enabled: bool = False
    """Serve the metrics."""
    address: Host = "127.0.0.1"
    """Address to listen on. Whoever can reach it can read the metrics: there is no password."""
    port: Port = 9469
    """Port to listen on."""


class Settings(Section, frozen=True):
    """All settings; every table and key may be left out."""

    camera: CameraSettings = CameraSettings()
    detect: DetectSettings = DetectSettings()
    track: TrackSettings = TrackSettings()
    model: ModelSettings = ModelSettings()
    quality: QualitySettings = QualitySettings()
    events: EventSettings = EventSettings()
    preset: Annotated[tuple[Preset, ...], Meta(max_length=100)] = ()
    privacy: PrivacySettings = PrivacySettings()
    mqtt: MqttSettings = MqttSettings()
    store: StoreSettings = StoreSettings()
    homeassistant: HomeAssistantSettings = HomeAssistantSettings()
    metrics: MetricsSettings = MetricsSettings()


def load_settings(file: Path | None) -> Settings:
    """Read a settings file; what it leaves out has its default, and without a file everything has.

    Raises SettingsError, which names the key and what it takes.
    """
    if file is None:
        return Settings()
    try:
        text = read_regular(file, _LARGEST_FILE).decode("utf-8-sig")  # Windows may write a mark at the beginning
        if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {_MAX_DOTS} dots")  # tomllib takes 30 s for a key of 40,000 parts
        values = tomllib.loads(text)
    except OSError as error:
        raise settings_error(file, f"cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise settings_error(file, "not valid TOML: its brackets are nested too deep") from error
    except ValueError as error:  # TOMLDecodeError, text that is not UTF-8, numbers of thousands of digits
        raise settings_error(file, f"not valid TOML: {error}") from error
    reject_unknown_keys(file, values, Settings)
    check_presets(file, values.get("preset"))
    check_ignored(file, values.get("detect"))
    try:
        settings = msgspec.convert(values, Settings)
        if settings.mqtt.url:
            place = _broker_place(settings.mqtt, values["mqtt"])
            settings = msgspec.structs.replace(settings, mqtt=msgspec.structs.replace(settings.mqtt, **place))
    except msgspec.ValidationError as error:
        raise settings_error(file, wrong_value(str(error), values, Settings)) from error
    except SettingsError as error:
        raise settings_error(file, str(error)) from error
    if len(f"{settings.mqtt.prefix}/{settings.mqtt.device}".encode()) > _LONGEST_BASE:
        raise settings_error(file, f"mqtt.prefix and mqtt.device are longer than {_LONGEST_BASE} bytes together")
    for table, key, other in BELONGS_TO:
        if getattr(getattr(settings, table), key) and not getattr(getattr(settings, table), other):
            sentence = f"{table}.{key} belongs to {table}.{other}: give that too, or remove the line"
            raise settings_error(file, sentence)
    return settings


def require_expressions(presets: Iterable[Preset], labels: Labels, model: str) -> None:
    """Raise SettingsError when a preset waits for an expression that is no label of the model's."""
    for preset in presets:
        if preset.expression not in labels:
            raise SettingsError(
                f"preset {preset.name!r}: the model {model} has no expression {preset.expression!r}; "
                f"{nearest(preset.expression, labels)}"
            )


def _broker_place(mqtt: MqttSettings, given: dict[str, Any]) -> dict[str, Any]:
    """Host, port and TLS of ``mqtt.url``. Raises SettingsError when the keys ``given`` contradict it."""
    if both := [key for key in ("host", "port", "tls") if key in given]:
        raise SettingsError(f"mqtt.url stands in place of mqtt.{both[0]}: remove one of them")
    broker = parse_broker_url(mqtt.url)
    if mqtt.encrypted and not broker.tls:
        raise SettingsError("mqtt.url is without TLS, and mqtt.ca_file or mqtt.cert_file asks for it: give mqtts, wss")
    return {"host": broker.host, "port": broker.port, "tls": broker.tls}
