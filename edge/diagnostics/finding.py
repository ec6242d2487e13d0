"""What a check of ``fer-edge doctor`` returns."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``remedy`` is the command or the step that solves the problem, or empty."""

    name: str
    level: Level
    sentence: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The keys that ``--json`` prints."""
        return {"name": self.name, "level": self.level, "sentence": self.sentence, "mend": self.remedy}
