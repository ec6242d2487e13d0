"""Where a model comes from: how it was trained or imported, and its figures before and after quantization."""

from typing import Literal

import msgspec


class SplitFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Accuracy and macro-F1 of one form of the model on ``n`` faces of one split, with a single crop."""

    split: str
    n: int
    accuracy: float
    macro_f1: float


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a model was made of; None stands for what is not known.

    ``role`` is ``start`` for weights that training started from, ``teacher`` for a network that it learned from, and
    ``data`` for faces and votes. What a start or a teacher was made of itself has its role. ``source`` says where it is
    published, or how it was made. ``sha256`` is that of its file. That of a view bank is of its logits, that of faces
    edge.evaluation.fer2013.LabelledFaces.sha256.
    """

    role: Literal["start", "teacher", "data"]
    name: str
    source: str | None = None
    licence: str | None = None
    sha256: str | None = None


class ImportedNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``fer-export import`` made a bundle of, and how it found out what that network takes.

    ``kind`` says what ``file`` was saved as. It took square faces of ``input_side`` pixels and ``input_channels``
    channels; the op ``activation`` at its end is left out, empty if there was none. ``scaling`` is how it wants its
    pixels (docs/import.md), and ``scaling_chosen`` a sentence about how that was found, with the accuracy of each
    scaling that was tried in ``scaling_accuracies``.
    """

    file: str
    sha256: str
    kind: str
    input_side: int
    input_channels: int
    activation: str
    scaling: str
    scaling_chosen: str
    scaling_accuracies: dict[str, float]


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the model was made, so that it can be reproduced.

    ``revision`` is the Git commit of the program that trained it. ``sources`` is what it was made of, each thing once,
    the nearest of each role first. ``quantization`` is the method that was used, the best one on the measured split;
    ``quantization_figures`` has every method that was tried, ``float_figures`` the network before quantization.

    Cards of version 4 have no ``sources``. They have ``init``, ``teachers`` and ``training_data`` instead: one long
    line for each, with the line of what it was made of inside.

    ``imported`` is there for a network that was trained elsewhere. What is not known of it is empty, and
    ``float_figures`` are those of the network as it was brought, also if that was an int8 file.
    """

    train_command: str
    export_command: str
    revision: str
    seed: int
    training_sha256: str
    public_sha256: str
    float_figures: SplitFigures
    quantization: str
    quantization_figures: dict[str, SplitFigures]
    chosen: str
    sources: tuple[Source, ...] = ()
    init: str = ""
    teachers: tuple[str, ...] = ()
    training_data: str = ""
    imported: ImportedNetwork | None = None
