"""Where a network's weights come from: published files, an earlier run, a bundle, or a wider or narrower network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from edge.model.bundle import CARD_FILE, bundled, find_bundle, open_bundle
from edge.model.origin import Source
from edge.model.preprocessing import normalize
from train.init.batch_norm import Values
from train.init.from_bundle import bundle_sources, load_bundle_weights
from train.init.net2net import initialize_function_preserving
from train.init.pretrained import load_weights, weights_sources
from train.init.pruning import prune_filters
from train.models.registry import MODELS, find_architecture
from train.recipes import RECIPES, Recipe
from train.run import Run
from train.sources import prefixed

_STATISTICS_FACES = 512


@dataclass(frozen=True)
class InitialWeights:
    """Weights that training starts from, and what they were made of.

    ``load(model, faces)`` loads them into a network; ``faces`` are those of train.init.batch_norm.restore_batch_norms.
    """

    sources: tuple[Source, ...]
    load: Callable[[Any, Values], object]


def find_initial_weights(recipe: Recipe, weights: str) -> InitialWeights:
    """The weights that ``--weights`` names. Raises UsageError when the recipe's network cannot start from them."""
    architecture = find_architecture(recipe.model)
    found = find_trained(weights)
    if found is None:
        return InitialWeights(
            weights_sources(architecture, weights),
            lambda model, faces: load_weights(model, architecture, weights, faces),
        )
    network, trained = found
    if network == architecture.name:
        return trained
    if network == architecture.wider:
        return _converted(prune_filters, "the most telling filters of", network, trained)
    if network == architecture.narrower:
        return _converted(initialize_function_preserving, "grown from", network, trained)
    raise UsageError(
        f"--weights {weights}: weights of {network}; {recipe.name} takes those of {' or '.join(architecture.sources)}"
    )


def find_trained(weights: str) -> tuple[str, InitialWeights] | None:
    """The network of a run or bundle, and its weights; None when ``weights`` names neither."""
    folder = Path(weights)
    if weights in bundled() or (folder / CARD_FILE).is_file():
        bundle = open_bundle(find_bundle(weights), FER2013_LABELS)
        named = RECIPES.get(bundle.card.name)
        return named.model if named else bundle.card.name, InitialWeights(
            bundle_sources(bundle.card), lambda model, faces: load_bundle_weights(model, bundle, faces)
        )
    if folder.is_dir():
        run = Run.load(folder)
        return run.recipe.model, InitialWeights(
            run.as_sources(folder), lambda model, _faces: run.load_into(model, folder)
        )
    return None


def _converted(
    convert: Callable[[Any, Any, Values], None], how: str, network: str, trained: InitialWeights
) -> InitialWeights:
    """Weights of another network, which ``convert(model, source, faces)`` turns into those of the recipe's network."""

    def load(model: Any, faces: Values) -> None:
        source = MODELS[network].build(0.0)
        trained.load(source, faces)
        convert(model, source, faces)

    return InitialWeights(prefixed(trained.sources, f"{how}:"), load)


def statistics_faces(training: LabelledFaces) -> Any:
    """The training faces, ``(512, 48, 48, 1)`` normalized float32, that batch-norm statistics are measured on."""
    return normalize(training.pixels[:_STATISTICS_FACES])[..., None]
