"""Metrics as Prometheus reads them, from a real process, and the dashboard that shows them."""

import contextlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.errors import SettingsError
from edge.model.bundle import DEFAULT, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.monitoring.counters import RunCounters
from edge.monitoring.observer import LoopStatus
from edge.monitoring.prometheus import PrometheusExporter
from edge.settings import MetricsSettings
from tests.conftest import ROOT, free_port, wait_until
from tests.edge.cli.test_main import PROGRAM

DASHBOARD = ROOT / "docs" / "grafana-dashboard.json"
# Not every board reports these; a Raspberry Pi does.
OF_THE_BOARD = {"fer_edge_temperature_celsius", "fer_edge_throttled"}


def scrape(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples of the page by name: labels and value."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
    except OSError:
        return {}
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[tuple[dict[str, str], float]]]]:
    """The metrics of a real service after a visitor has come. It plays the demo, and its broker is away."""
    folder, port = tmp_path_factory.mktemp("metrics"), free_port()
    config = folder / "config.toml"
    config.write_text(
        f'[store]\nfolder = "{folder}"\n[metrics]\nenabled = true\nport = {port}\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\ndevice = "kiosk"\n'
    )
    words = [PROGRAM, "run", "--config", config, "--events", "mqtt", "--source", "demo", "--realtime"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: "fer_edge_events_total" in scrape(port), 60)
        yield scrape(port)
        process.terminate()


def test_a_running_service_reports_its_figures(scraped: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    def value(name: str) -> float:
        [(_, one)] = scraped[f"fer_edge_{name}"]
        return one

    assert value("frames_total") > 10
    assert value("faces") == 1
    assert value("model_ok") == 1
    assert value("outbox_waiting") >= 1, "the broker is away"
    assert value("outbox_durable") == 1
    assert value("paused") == value("failed_starts") == value("fault_code") == value("outbox_dropped_total") == 0
    assert value("outbox_lost_total") == value("outbox_damaged_total") == 0
    assert value("process_resident_memory_bytes") > 10e6
    assert value("process_cpu_seconds_total") > 0.1
    assert {labels["stage"] for labels, _ in scraped["fer_edge_stage_seconds_total"]} == {
        "detect",
        "track",
        "plan",
        "crop",
        "classify",
        "tell",
    }
    assert scraped["fer_edge_events_total"][0][0]["kind"] == "appeared"
    assert scraped["fer_edge_model_info"][0][0]["model"] == DEFAULT
    assert scraped["fer_edge_accelerator_info"] == [({"accelerator": "cpu"}, 1.0)]


def test_the_dashboard_asks_for_nothing_that_is_not_there(
    scraped: dict[str, list[tuple[dict[str, str], float]]],
) -> None:
    asked = set(re.findall(r"fer_edge_\w+", DASHBOARD.read_text()))
    assert asked - OF_THE_BOARD <= set(scraped)
    assert len(asked) > 15


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"]), "no panel lies on another"
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])


def test_every_metric_is_described(scraped: dict[str, list[tuple[dict[str, str], float]]]) -> None:
    described = (ROOT / "docs" / "metrics.md").read_text()
    missing = [name for name in scraped if not name.startswith("fer_edge_process_") and f"`{name}" not in described]
    assert missing == []
    named = {name for name in re.findall(r"fer_edge_\w+", described) if name != "fer_edge_process_"}
    assert named - OF_THE_BOARD <= set(scraped), "the page names nothing that is not there"


def test_an_address_in_use_is_an_error_that_names_it() -> None:
    settings = MetricsSettings(enabled=True, port=free_port())
    first = PrometheusExporter(settings, RunCounters())
    with pytest.raises(SettingsError, match=f"127.0.0.1:{settings.port}: .*metrics.port; or.* --no-metrics"):
        PrometheusExporter(settings, RunCounters())
    first.close()
    PrometheusExporter(settings, RunCounters()).close()


def test_a_start_does_not_look_like_a_fault() -> None:
    """Alarms of the page compare these, and a start takes seconds."""
    settings, counters = MetricsSettings(enabled=True, port=free_port()), RunCounters(clock=lambda: 5.0)
    names = {"fer_edge_last_frame_timestamp_seconds", "fer_edge_model_ok", "fer_edge_paused"}
    with contextlib.closing(PrometheusExporter(settings, counters)):
        assert names.isdisjoint(scrape(settings.port))
        assert "fer_edge_frames_total" in scrape(settings.port)
        counters.paused(LoopStatus(Classifier(open_bundle(find_bundle(DEFAULT))), {}, 0))
        assert scrape(settings.port)["fer_edge_paused"] == [({}, 1.0)]
        counters.last_frame, counters.model_ok = 5.0, False
        assert names <= set(scrape(settings.port))


def test_with_counts_only_nothing_tells_whether_somebody_is_there() -> None:
    """Whoever may ask can do so ten times a second, and a face takes time to classify."""
    settings = MetricsSettings(enabled=True, port=free_port())
    telling = {"fer_edge_faces", "fer_edge_events_total", "fer_edge_stage_seconds_total"}
    telling.add("fer_edge_process_cpu_seconds_total")
    with contextlib.closing(PrometheusExporter(settings, RunCounters(individuals=False))):
        scraped = scrape(settings.port)
    assert telling.isdisjoint(scraped)
    assert {"fer_edge_frames_total", "fer_edge_process_resident_memory_bytes"} <= set(scraped)


def test_the_unit_lets_the_page_be_served() -> None:
    unit = (ROOT / "systemd" / "fer-edge.service").read_text()
    assert re.search(r"^RestrictAddressFamilies=.*AF_INET ", unit, re.MULTILINE)
    assert "IPAddressDeny" not in unit
    assert "SocketBindDeny" not in unit
    assert "PrivateNetwork" not in unit


def test_by_default_only_this_machine_can_ask(tmp_path: Path) -> None:
    assert MetricsSettings().address == "127.0.0.1"
    assert not MetricsSettings().enabled
