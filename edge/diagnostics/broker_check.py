"""Check of the MQTT broker."""

from collections.abc import Sequence
from typing import Final

from edge.camera.address import safe_source
from edge.diagnostics.finding import Finding
from edge.diagnostics.probe_runner import run_probe
from edge.mqtt.no_connection import refusal_hint
from edge.settings import MqttSettings

_CHECK_ADDRESS: Final = "check mqtt.url, or mqtt.host and mqtt.port"


def check_broker(python: Sequence[str], settings: MqttSettings, *, needed: bool, seconds: float = 20) -> Finding:
    """Whether the broker can be reached, uses TLS if it should, and accepts this device. Nothing is published."""
    probe = run_probe(python, "broker", settings, seconds)
    outcome, detail, code = next(
        ((line["outcome"], line["detail"], line["code"]) for line in probe.output), ("", probe.problem, 0)
    )
    address = f"{safe_source(settings.host)}:{settings.port}"
    user = f"user {settings.username}" if settings.username else "a device without a user name"
    if outcome == "accepted":
        return Finding("broker", "ok", f"{address} accepts {user}, {'TLS' if settings.encrypted else 'without TLS'}")
    secret = settings.password_file or "/etc/fer-edge/mqtt-password"
    sentence, remedy = {
        "unreachable": (f"{address} cannot be reached: {detail}", f"is it running? {_CHECK_ADDRESS}"),
        "tls": (f"{address}: TLS failed: {detail}", "check mqtt.ca_file, mqtt.host and mqtt.port"),
        "silent": (
            f"{address} gives no MQTT answer",
            f"does it need TLS (mqtt.ca_file), or another mqtt.protocol? {_CHECK_ADDRESS}",
        ),
        "refused": (
            f"{address} refuses {user}: {detail}",
            refusal_hint(code, settings, f"mqtt.username and the password in {secret}"),
        ),
    }.get(outcome, (detail, "check the files that [mqtt] names, and who may read them"))
    return Finding("broker", "fail" if needed else "warn", sentence, remedy)
