"""A real Home Assistant on loopback, headless: started, set up and asked through its HTTP interface."""

import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import free_port, wait_until

_CLIENT = "http://127.0.0.1/"  # an identity for the login; nobody opens it


@dataclass(frozen=True)
class Change:
    """A change of a state; ``state`` is None when the entity was removed. ``at`` is this machine's monotonic time."""

    entity: str
    state: str | None
    attributes: dict[str, Any]
    at: float


class HomeAssistant:
    """An instance with a user of its own and the MQTT integration, nothing else. It writes only into ``folder``."""

    def __init__(self, python: str, folder: Path, configuration: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.changes: list[Change] = []
        self._token = ""
        folder.mkdir(exist_ok=True)
        (folder / "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\napi:\nconfig:\n{configuration}"
        )
        self._output = (folder / "output").open("wb")
        # Everything is installed already: nothing is fetched while a test runs.
        command = [python, "-m", "homeassistant", "--config", str(folder), "--skip-pip"]
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)

    def set_up(self) -> None:
        """Wait until it runs, make its first user, and follow all changes of states from now on."""
        wait_until(self._answers, 240)
        user = {"client_id": _CLIENT, "name": "test", "username": "test", "password": "test", "language": "en"}
        code = self.ask("api/onboarding/users", user)["auth_code"]
        form = {"client_id": _CLIENT, "grant_type": "authorization_code", "code": code}
        self._token = self._send("auth/token", urllib.parse.urlencode(form).encode())["access_token"]
        threading.Thread(target=self._follow, daemon=True).start()

    def connect(self, broker_port: int) -> None:
        """Add the integration MQTT with a broker on loopback, as its dialogue does."""
        flow = self.ask("api/config/config_entries/flow", {"handler": "mqtt"})
        broker = {"broker": "127.0.0.1", "port": broker_port}
        answer = self.ask(f"api/config/config_entries/flow/{flow['flow_id']}", broker)
        assert answer["type"] == "create_entry", answer

    def ask(self, path: str, data: object = None) -> Any:
        return self._send(path, None if data is None else json.dumps(data).encode())

    def render(self, template: str) -> str:
        """What a template of Home Assistant gives."""
        return str(self._send("api/template", json.dumps({"template": template}).encode(), parsed=False))

    def states(self) -> dict[str, dict[str, Any]]:
        return {one["entity_id"]: one for one in self.ask("api/states")}

    def state(self, entity: str) -> str | None:
        """The state that an entity has now; None if there is no such entity."""
        return next((one["state"] for one in self.ask("api/states") if one["entity_id"] == entity), None)

    def call(self, action: str, **data: object) -> None:
        self.ask(f"api/services/{action.replace('.', '/')}", data)

    def automate(self, name: str, trigger: dict[str, object]) -> str:
        """Make an automation without actions, as the page for automations does; its entity, whose attributes tell."""
        self.ask(f"api/config/automation/config/{name}", {"alias": name, "triggers": [trigger], "actions": []})
        return f"automation.{name}"

    def of(self, entity: str) -> list[str | None]:
        """The states that an entity has had since the start, each time it changed."""
        return [change.state for change in self.changes if change.entity == entity]

    def log(self) -> str:
        file = self.folder / "home-assistant.log"
        return file.read_text() if file.exists() else ""

    def complaints(self) -> list[str]:
        """What it logged about MQTT and templates, as warning or error."""
        lines = [line for line in self.log().splitlines() if " WARNING " in line or " ERROR " in line]
        return [line for line in lines if "mqtt" in line or "emplate" in line]

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        shutil.rmtree(self.folder / "deps", ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "output").read_text()
        try:
            self._send("api/onboarding", None)
        except OSError:
            time.sleep(0.3)
            return False
        return True

    def _send(self, path: str, data: bytes | None, *, parsed: bool = True) -> Any:
        request = self._request(path, data)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                body = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise OSError(f"{path}: {error.code} {error.read().decode()}") from error
        return json.loads(body) if parsed else body

    def _request(self, path: str, data: bytes | None = None) -> urllib.request.Request:
        kind = "application/x-www-form-urlencoded" if path.startswith("auth/") else "application/json"
        headers = {"Content-Type": kind}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data, headers)

    def _follow(self) -> None:
        """Note each change of a state that Home Assistant reports, until it ends."""
        try:
            with urllib.request.urlopen(self._request("api/stream?restrict=state_changed"), timeout=600) as stream:
                for line in stream:
                    if line.startswith(b"data: {"):
                        self._note(json.loads(line[6:])["data"])
        except OSError:
            return

    def _note(self, data: dict[str, Any]) -> None:
        new = data["new_state"]
        state, attributes = (new["state"], new["attributes"]) if new else (None, {})
        self.changes.append(Change(data["entity_id"], state, attributes, time.monotonic()))
