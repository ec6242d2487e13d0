import dataclasses

import numpy as np

from edge.evaluation.fer2013 import LabelledFaces
from train.data.batches import Teachers, TrainingSet, batches
from train.data.view_bank import ViewBank, draw_view, make_bank
from train.recipes import Recipe

PLAIN = Recipe("trial", model="shallow", epochs=10, batch=8, augmentation=0, label_smoothing=0)


def some_faces(n: int, labels: list[int]) -> LabelledFaces:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 48, 48), np.uint8)
    return LabelledFaces(pixels, np.resize(np.array(labels, np.int64), n), np.arange(n))


def some_bank(faces: LabelledFaces, sharpness: float) -> ViewBank:
    """A teacher that is sure of each face's label, whatever the view."""
    onehot = np.eye(7, dtype=np.float32)[faces.labels] * sharpness
    return make_bank(lambda _pixels: onehot, faces, views=2, seed=5)


def test_every_face_comes_once_in_an_order_of_its_own_each_epoch() -> None:
    training = TrainingSet(some_faces(24, [0, 1, 2, 3, 4, 5, 6]))
    orders = [np.concatenate([b.inputs for b in batches(PLAIN, training, epoch)]) for epoch in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert len({face.tobytes() for face in orders[2]}) == 24
    assert orders[0].dtype == np.float32
    assert orders[0].shape == (24, 48, 48, 1)


def test_class_balance_weighs_rare_labels_up_and_keeps_the_mean() -> None:
    training = TrainingSet(some_faces(24, [3, 3, 3, 1]))
    balanced = list(batches(dataclasses.replace(PLAIN, class_balance=True), training, 0))
    weights = np.concatenate([b.weights for b in balanced])
    labels = np.concatenate([b.labels.argmax(axis=1) for b in balanced])
    assert np.isclose(weights.mean(), 1)
    assert np.isclose(weights[labels == 1].mean() / weights[labels == 3].mean(), 3)


def test_mixup_blends_faces_and_all_targets_alike_and_ends_with_the_last_fifth() -> None:
    faces = some_faces(8, [0, 1])
    votes = np.eye(10, dtype=np.float32)[faces.labels]
    training = TrainingSet(faces, votes, Teachers.of_all((some_bank(faces, 60.0),), faces))
    recipe = dataclasses.replace(PLAIN, mixup=1.0, temperature=1.0)
    [mixed] = batches(recipe, training, 7)
    assert np.any((mixed.labels > 0.01) & (mixed.labels < 0.99))
    np.testing.assert_allclose(mixed.votes[:, :7], mixed.labels, atol=1e-6)
    np.testing.assert_allclose(mixed.teacher, mixed.labels, atol=1e-3)
    [plain] = batches(recipe, training, 8)
    assert set(np.unique(plain.labels)) == {0, 1}


def test_with_teachers_the_student_sees_their_views_mirrored_or_not() -> None:
    faces = some_faces(16, [0, 1])
    bank = some_bank(faces, 4.0)
    shown = [
        b for epoch in (0, 2) for b in batches(PLAIN, TrainingSet(faces, None, Teachers.of_all((bank,), faces)), epoch)
    ]
    views = (draw_view(faces.pixels, bank.seed, 0).astype(np.float32) - 128) / 128
    known = {v.tobytes(): "plain" for v in views} | {v[:, ::-1].tobytes(): "mirrored" for v in views}
    kinds = [known[face[..., 0].tobytes()] for b in shown for face in b.inputs]
    assert set(kinds) == {"plain", "mirrored"}


def test_faces_that_only_the_bank_has_are_left_out_and_the_views_of_the_others_stay_the_same() -> None:
    faces = some_faces(24, [0, 1, 2])
    kept = np.arange(24) % 3 > 0
    bank = some_bank(faces, 60.0)
    training = TrainingSet(faces.select(kept), None, Teachers((bank,), faces.pixels, kept, np.ones(kept.sum(), bool)))
    views = ((draw_view(faces.pixels, bank.seed, 0).astype(np.float32) - 128) / 128)[kept]
    known = [*views, *(view[:, ::-1] for view in views)]
    for batch in batches(dataclasses.replace(PLAIN, temperature=1.0), training, 0):
        assert all(any(np.array_equal(face[..., 0], view) for view in known) for face in batch.inputs)
        np.testing.assert_allclose(batch.teacher, batch.labels, atol=1e-3)


def test_teachers_are_averaged_after_softening() -> None:
    faces = some_faces(8, [2])
    sure, unsure = some_bank(faces, 9.0), some_bank(faces, 0.0)
    [batch] = batches(PLAIN, TrainingSet(faces, None, Teachers.of_all((sure, unsure), faces)), 0)
    expected = (np.exp(9 / 3) / (np.exp(9 / 3) + 6) + 1 / 7) / 2  # temperature 3
    assert np.allclose(batch.teacher[:, 2], expected, atol=0.01)
    assert np.allclose(batch.teacher.sum(axis=1), 1, atol=1e-5)


def test_the_student_sees_degraded_faces_and_the_targets_are_those_of_clean_ones() -> None:
    faces = some_faces(64, [0, 1])
    votes = np.eye(10, dtype=np.float32)[faces.labels]
    training = TrainingSet(faces, votes, Teachers.of_all((some_bank(faces, 4.0),), faces))
    recipe = dataclasses.replace(PLAIN, batch=64)
    [clean] = batches(recipe, training, 0)
    [degraded] = batches(dataclasses.replace(recipe, degradation=0.5), training, 0)
    changed = (degraded.inputs != clean.inputs).any(axis=(1, 2, 3))
    assert 20 <= changed.sum() <= 44
    assert degraded.clean is None
    for given, expected in zip(degraded[1:-1], clean[1:-1], strict=True):
        assert np.array_equal(given, expected)
    watched = dataclasses.replace(training, features=lambda faces: faces)
    [batch] = batches(dataclasses.replace(recipe, degradation=0.5), watched, 0)
    assert np.array_equal(batch.inputs, degraded.inputs)
    assert np.array_equal(batch.clean, clean.inputs), "for the feature teacher"


def test_a_face_without_teachers_is_augmented_anew_and_its_row_is_zero() -> None:
    faces = some_faces(24, [0, 1, 2])
    taught = np.arange(24) < 16
    own = faces.select(taught)
    teachers = Teachers((some_bank(own, 60.0),), own.pixels, np.ones(16, bool), taught)
    recipe = dataclasses.replace(PLAIN, temperature=1.0, batch=24, augmentation=1.0)
    [first], [later] = (batches(recipe, TrainingSet(faces, None, teachers), epoch) for epoch in (0, 8))
    order = np.random.default_rng([recipe.seed, 0]).permutation(24)
    np.testing.assert_allclose(first.teacher[taught[order]].sum(axis=1), 1, atol=1e-3)
    assert not first.teacher[~taught[order]].any()
    shown = {face.tobytes() for face in first.inputs[~taught[order]]}
    assert not shown & {face.tobytes() for face in later.inputs}, "every epoch shows it anew"
