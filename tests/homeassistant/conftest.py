"""One Home Assistant and one broker for all tests here; each test has devices with names of their own."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Broker, free_port
from tests.homeassistant.device import Device, Door
from tests.homeassistant.instance import HomeAssistant

BLUEPRINT = ROOT / "docs" / "home-assistant-blueprint.yaml"

CONFIGURATION = """
input_boolean:
  lamp:
counter:
  smiles:
automation made by clicking: !include automations.yaml
automation:
  - id: smile
    alias: A smile turns on the lamp
    use_blueprint:
      path: fer-edge/blueprint.yaml
      input:
        visitor: event.fer_edge_lamp_visitor
        actions:
          - action: input_boolean.turn_on
            target:
              entity_id: input_boolean.lamp
          - action: counter.increment
            target:
              entity_id: counter.smiles
"""


@pytest.fixture(scope="session")
def home_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    _python()
    if not shutil.which("mosquitto"):
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    user = "root" if os.getuid() == 0 else "nobody"
    made = Broker(tmp_path_factory.mktemp("home-broker"), free_port(), f"allow_anonymous true\nuser {user}")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, home_broker: Broker) -> Iterator[HomeAssistant]:
    """A Home Assistant that is connected to the broker and has an automation made of our blueprint."""
    folder = tmp_path_factory.mktemp("home") / "config"
    blueprints = folder / "blueprints" / "automation" / "fer-edge"
    blueprints.mkdir(parents=True)
    shutil.copy(BLUEPRINT, blueprints / "blueprint.yaml")
    (folder / "automations.yaml").write_text("[]")
    made = HomeAssistant(_python(), folder, CONFIGURATION)
    try:
        made.set_up()
        made.connect(home_broker.port)
        yield made
    finally:
        made.close()


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as made:
        yield made


Making = Callable[..., Device]


@pytest.fixture
def device(tmp_path: Path, home_broker: Broker, door: Door) -> Iterator[Making]:
    """Makes devices by their names, with the door as camera unless another source is given."""
    made: list[Device] = []

    def make(name: str, source: str = "", port: int = home_broker.port) -> Device:
        made.append(Device(tmp_path / str(len(made)), port, name, source or door.url))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _python() -> str:
    python = os.environ.get("HOMEASSISTANT")
    if not python:
        pytest.skip("HOMEASSISTANT is not set to a Python that has Home Assistant (make homeassistant)")
    return python
