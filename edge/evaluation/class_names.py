"""What the words and numbers of labelled data mean among a model's labels."""

from typing import Final, TypeAlias

from edge.labels import FER2013_LABELS, Labels

Meaning: TypeAlias = dict[str, int | str]
"""By lower-case word: the index of a label, or the name of an expression of FER2013's that the labels lack."""

_OTHER_WORDS: Final = {
    "angry": "anger",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happiness",
    "sad": "sadness",
    "surprise": "surprised",
}


def meaning_of_names(labels: Labels) -> Meaning:
    """What the names of labels mean, and other words for FER2013's expressions."""
    meaning: Meaning = {}
    for expression in FER2013_LABELS:
        words = [expression, *filter(None, [_OTHER_WORDS.get(expression)])]
        label = next((word for word in words if word in labels), None)
        meaning |= dict.fromkeys(words, expression if label is None else labels.index(label))
    return meaning | {label: index for index, label in enumerate(labels)}


def meaning_in_csv(labels: Labels) -> Meaning:
    """The same, and what FER2013's class numbers mean."""
    names = meaning_of_names(labels)
    return names | {
        f"{number}{zeros}": names[expression]
        for number, expression in enumerate(FER2013_LABELS)
        for zeros in ("", ".0")
    }
