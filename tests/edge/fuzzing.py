"""Strategies for damaged input, and the counts of what was tried: for tests/edge/test_fuzz.py."""

import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from edge.errors import FerEdgeError

LONG = os.environ.get("FER_EDGE_FUZZ")
fuzzed = settings(
    max_examples=int(LONG or 40),
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

tried: Counter[str] = Counter()
rejected: Counter[str] = Counter()


def attempt(name: str, kind: type[FerEdgeError], action: Callable[[], object]) -> None:
    """Run ``action``; an error must be of the documented kind, and have a message."""
    tried[name] += 1
    try:
        action()
    except kind as error:
        rejected[name] += 1
        sentence = str(error)
    else:
        sentence = "accepted"
    assert sentence


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Content with a few bytes replaced, cut off, removed or inserted."""
    position = st.integers(0, max(0, len(content) - 1))
    change = st.one_of(
        st.tuples(st.just("set"), position, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("cut"), position, st.just(b"")),
        st.tuples(st.just("drop"), position, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("insert"), position, st.binary(min_size=1, max_size=40)),
    )

    def apply(changes: list[tuple[str, int, bytes]]) -> bytes:
        result = bytearray(content)
        for how, start, what in changes:
            if how == "set":
                result[start : start + len(what)] = what
            elif how == "cut":
                del result[start:]
            elif how == "drop":
                del result[start : start + len(what)]
            else:
                result[start:start] = what
        return bytes(result)

    return st.lists(change, min_size=1, max_size=4).map(apply)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["demo", "", "../..", "\0", "picamera2:x", "http://", "5", "😀", "/dev/null"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def zip_of(entries: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in dict(entries).items():
            archive.writestr(name, content)
    return out.getvalue()


def _recording() -> bytes:
    """A recording of a visitor who smiles, then is blurred."""
    begin = {
        "line": "begin", "version": 1, "run": "0123456789ab", "model": "m", "sha256": "0",
        "telling": {"smoothing": 0.2, "dwell": 0.2, "hysteresis": 0.2}, "threshold": 0.4,
        "events": {}, "presets": [{"name": "smile", "expression": "happy", "for_seconds": 0.3}],
    }  # fmt: skip
    clock = {"origin": "2026-11-22T10:00:00+00:00", "synced": True}
    frames = [
        {"line": "frame", "t": n / 5, "boxes": {"1": [9, 9, 50, 50]}, "readings": {"1": reading}}
        | ({"clock": clock} if n == 0 else {})
        for n, reading in enumerate([[0, 0, 0, 4.5, 0, 0, 0]] * 6 + ["blurred"] * 7)
    ]
    return b"".join(
        json.dumps(one).encode() + b"\n" for one in (begin, *frames, {"line": "end", "t": 3, "clock": clock})
    )


RECORDING = _recording()
LINES = [json.loads(line) for line in RECORDING.splitlines()]


SMALL = st.sampled_from([1e-300, 1e-9, 0.5, 0.99]) | st.floats(0, 1, exclude_min=True, exclude_max=True)
SAME_KIND = {
    "t": st.sampled_from([1e-300, 1e9, 1e300, -1, 10**400]) | st.floats(0, 3),
    "threshold": SMALL,
    "telling": st.fixed_dictionaries(dict.fromkeys(("smoothing", "dwell", "hysteresis"), SMALL)),
    "events": st.dictionaries(st.sampled_from(["smoothing", "dwell", "threshold", "uncertain_after"]), SMALL),
    "readings": st.fixed_dictionaries({"1": st.lists(st.floats(-1e6, 1e6), min_size=7, max_size=7) | st.just("small")}),
    "clock": st.fixed_dictionaries(
        {"origin": st.datetimes().map(lambda at: f"{at.isoformat()}Z"), "synced": st.booleans()}
    ),
}


@st.composite
def recordings(draw: st.DrawFn) -> bytes:
    """Lines of a recording in which some values are replaced, mostly by others of the same kind."""
    lines = [dict(line) for line in LINES]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(lines))
        key = draw(st.sampled_from([*sorted(line.keys() & SAME_KIND) * 9, *line]))
        line[key] = draw(SAME_KIND.get(key, VALUES) if draw(st.integers(0, 9)) else VALUES)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
