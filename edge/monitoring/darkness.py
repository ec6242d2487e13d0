"""Says when it has become too dark to find faces, and when it is bright enough again."""

import logging
from typing import Final

_log = logging.getLogger(__name__)

_SECONDS: Final = 10.0  # that the light must stay changed: a passing shadow or a fade of a video is not worth a message


class DarknessWatch:
    """Decides from frames whether it is too dark, and logs each change once. A source begins in the light."""

    def __init__(self) -> None:
        self.too_dark = False
        self._since: float | None = None  # the time of the first frame that contradicts ``too_dark``

    def frame(self, time: float, *, too_dark: bool) -> None:
        """Take whether a frame of this time, in seconds, was too dark."""
        if too_dark == self.too_dark:
            self._since = None
            return
        self._since = time if self._since is None else self._since
        if time - self._since < _SECONDS:
            return
        self.too_dark, self._since = too_dark, None
        if too_dark:
            _log.warning("it is too dark to find faces; give more light, or let the camera expose for longer")
        else:
            _log.warning("it is bright enough again to find faces")
