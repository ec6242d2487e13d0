"""The types of single settings. Every type has finite bounds: tests/edge/test_settings_bounds.py has the reasons."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from edge.labels import LABEL

PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*\Z"
"""The pattern of a text without control characters."""

FILE_NAME: Final = r"^(?!~)[^\x00-\x1f\x7f]*\Z"
"""The pattern of a file's name. A leading ``~`` is a shell's; it would be another folder for each user."""

HOST: Final = r"^(?a:[\w-]{1,63}(\.[\w-]{1,63})*\.?|(?=[^:]*:)[0-9A-Fa-f:.]{2,45}(%[\w.-]{1,63})?)\Z"
"""The pattern of a host name, with or without its domain, or of an IPv4 or IPv6 address."""

_LEVEL: Final = r"[^/+#\s\x00-\x1f\x7f]"  # a character of a topic between two slashes
_LEVEL_OR_NONE: Final = rf"^{_LEVEL}*\Z"
_PREFIX: Final = rf"^(?!\$){_LEVEL}+(/{_LEVEL}+)*\Z"
_USER: Final = r"^[^:\x00-\x1f\x7f]*\Z"
_PRESET: Final = r"^[a-z0-9_-]{1,64}\Z"
PATTERN_WORDS: Final = {
    PRINTABLE: "text without control characters",
    FILE_NAME: "text without control characters, not beginning with ~",
    HOST: "host name or address",
    _LEVEL_OR_NONE: "a name without spaces, control characters, /, + and #",
    _PREFIX: "names with / between them, without spaces, control characters, + and #, not beginning with $",
    _USER: "text without :",
    LABEL: "1 to 32 lower-case letters, digits, - and _, beginning with a letter",
    _PRESET: "1 to 64 lower-case letters, digits, - and _",
}
"""What each pattern of a setting means, in words."""

# Every type has finite bounds, so that no value makes a program hang, overflow or fill the memory: see
# tests/edge/test_settings_bounds.py, which is generated from these types.
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]
Count = Annotated[int, Meta(ge=1, le=1000)]
Side = Annotated[int, Meta(ge=64, le=8192)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Part = Annotated[float, Meta(ge=0.001, le=1)]
FromCard = Literal["card"]
Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(max_length=250, pattern=PRINTABLE)]
FileName = Annotated[str, Meta(max_length=4096, pattern=FILE_NAME)]
Address = Annotated[str, Meta(max_length=4096, pattern=PRINTABLE)]
Host = Annotated[str, Meta(max_length=253, pattern=HOST)]
TopicPrefix = Annotated[str, Meta(max_length=250, pattern=_PREFIX)]
UserName = Annotated[str, Meta(max_length=250, pattern=_USER)]
DeviceName = Annotated[str, Meta(max_length=250, pattern=_LEVEL_OR_NONE)]
PresetName = Annotated[str, Meta(max_length=64, pattern=_PRESET)]
