"""What the kernel reports of the board and this process: name, temperature, throttling, bytes written."""

import contextlib
import resource
from collections import deque
from pathlib import Path
from typing import Final

MODEL: Final = Path("/proc/device-tree/model")
SERIAL: Final = Path("/proc/device-tree/serial-number")
THERMAL: Final = Path("/sys/class/thermal")
PLATFORM: Final = Path("/sys/devices/platform")
HWMON: Final = Path("/sys/class/hwmon")
OWN_IO: Final = Path("/proc/self/io")

_HOUR: Final = 3600.0
_BLOCK: Final = 512  # bytes; the unit of ru_oublock in Linux
_CPU_ZONES: Final = ("cpu", "soc", "x86_pkg")
# Bits of get_throttled; the same ones 16 bits higher are what has happened since the start.
_THROTTLED_BITS: Final = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def text_of(file: Path) -> str:
    """Content of a kernel file without surrounding zero bytes and white space; empty when it cannot be read."""
    try:
        return file.read_text().strip("\0\n ")
    except OSError:
        return ""


def throttling(text: str) -> tuple[list[str], list[str]]:
    """Decode get_throttled (``throttled=0x50005`` or ``50005``): what is wrong now, and what was since the start.

    Raises ValueError for any other text.
    """
    bits = int(text.strip().rpartition("=")[2], 16)
    now = [word for bit, word in _THROTTLED_BITS.items() if bits >> bit & 1]
    return now, [word for bit, word in _THROTTLED_BITS.items() if bits >> bit + 16 & 1]


def throttled_now(platform: Path = PLATFORM, hwmon: Path = HWMON) -> list[str] | None:
    """How the firmware limits the board now because of power or heat; None on boards that do not report it.

    It does not run vcgencmd: the service's sandbox has no /dev/vcio, and a process a minute costs too much. Where the
    firmware has no file of its own, only under-voltage is known, from its sensor.
    """
    try:
        # A Raspberry Pi 5 has the address of its peripherals in both names.
        firmware = list(platform.glob("soc*/soc*:firmware/get_throttled"))
        sensors = [chip for chip in hwmon.glob("hwmon*") if text_of(chip / "name") == "rpi_volt"]
    except OSError:  # too many open files
        return None
    for file in firmware:
        with contextlib.suppress(ValueError):
            return throttling(text_of(file))[0]
    alarms = [text_of(sensor / "in0_lcrit_alarm") for sensor in sensors]
    if "1" in alarms:
        return ["under-voltage"]
    return [] if "0" in alarms else None


def temperature(folder: Path = THERMAL) -> float | None:
    """Degrees Celsius of the processor; None on boards that do not report it."""
    try:
        zones = sorted(folder.glob("thermal_zone*"))
    except OSError:  # too many open files
        return None
    for zone in zones:
        if text_of(zone / "type").startswith(_CPU_ZONES):
            try:
                return int(text_of(zone / "temp")) / 1000
            except ValueError:
                continue
    return None


def bytes_written() -> int | None:
    """Bytes that this process made the kernel send to disks; None where the kernel does not count.

    It does not read OWN_IO, which belongs to root in a process that must not be dumped (edge.system.memory_dump).
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_oublock * _BLOCK if OWN_IO.exists() else None


class LastHour:
    """How much a growing count has grown in the last hour, if it is called regularly."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def growth(self, now: float, count: int) -> int:
        """Take the count at ``now`` (seconds); in the first hour the growth since the first call."""
        self._samples.append((now, count))
        while len(self._samples) > 1 and self._samples[1][0] <= now - _HOUR:
            self._samples.popleft()
        return count - self._samples[0][1]
