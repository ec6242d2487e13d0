"""``fer-train evaluate`` and ``bank`` on runs, bundles and saved predictions."""

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from edge.errors import DataError, UsageError  # noqa: E402
from edge.evaluation.fer2013 import read_faces  # noqa: E402
from edge.labels import FER2013_LABELS  # noqa: E402
from edge.model.bundle import find_bundle, open_bundle  # noqa: E402
from edge.model.classifier import Classifier  # noqa: E402
from tests.conftest import PORTRAIT  # noqa: E402
from tests.programs import fer_train  # noqa: E402
from train.checkpoints import BEST_WEIGHTS  # noqa: E402
from train.data.dataset import read_splits  # noqa: E402
from train.data.view_bank import ViewBank, find_bank  # noqa: E402
from train.evaluation.evaluate import evaluate  # noqa: E402
from train.evaluation.predictors import make_teacher_bank, open_predictor  # noqa: E402
from train.recipes import RECIPES, customize  # noqa: E402
from train.run import RunInputs  # noqa: E402
from train.training import prepare_run  # noqa: E402


@pytest.fixture(scope="module")
def run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    values = ("teachers=", "batch=16", "epochs=4", "ema=0.5")
    done = fer_train("run", "shallow", "--data", blobs, "--out", folder, *(x for v in values for x in ("--set", v)))
    assert done.returncode == 0, done.stderr
    return folder


def test_evaluate_gives_the_figures_of_the_runs_history(run: Path, blobs: Path, tmp_path: Path) -> None:
    best = json.loads((run / "run.json").read_text())["best"]
    drawn = tmp_path / "confusion.svg"
    done = fer_train("evaluate", run, "--data", blobs, "--json", "--out", drawn)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["accuracy"] == pytest.approx(best["accuracy"], abs=1e-5)
    assert (told["n"], told["test_time_views"], told["split"]) == (28, 1, "PublicTest")
    assert sum(map(sum, told["confusion"])) == 28
    assert 0 <= told["ece"] <= 1
    assert drawn.read_text().startswith("<svg")
    assert drawn.read_text().count("%") == 49, "a share for each pair of labels"


def test_test_time_augmentation_is_always_reported(run: Path, blobs: Path) -> None:
    done = fer_train("evaluate", run, "--data", blobs, "--tta", 10)
    assert "WITH TEST-TIME AUGMENTATION (10 views)" in done.stdout
    assert "single crop" in fer_train("evaluate", run, "--data", blobs).stdout
    assert fer_train("evaluate", run, "--data", blobs, "--tta", 11).returncode == 2


def test_a_bundle_is_measured_by_its_int8_file(blobs: Path) -> None:
    told = evaluate([Path("student-small")], read_faces(blobs, "PublicTest"))
    assert "int8 on" in told.name
    assert told.figures.n == 28


def test_a_run_can_start_from_an_earlier_one(run: Path, blobs: Path, tmp_path: Path) -> None:
    values = [x for v in ("teachers=", "batch=16", "epochs=1", "ema=0.5") for x in ("--set", v)]
    done = fer_train("run", "shallow", "--data", blobs, "--weights", run, "--out", tmp_path / "on", *values)
    assert done.returncode == 0, done.stderr
    first, on = (json.loads((at / "history.jsonl").read_text().splitlines()[0]) for at in (run, tmp_path / "on"))
    assert on["loss"] < first["loss"]
    start = json.loads((tmp_path / "on" / "run.json").read_text())["sources"][0]
    assert (start["role"], start["name"]) == ("start", "run shallow")
    assert start["sha256"] == hashlib.sha256((run / BEST_WEIGHTS).read_bytes()).hexdigest()
    done = fer_train("run", "paper", "--data", blobs, "--weights", run, "--out", tmp_path / "no", "--set", "votes=0")
    assert (done.returncode, "weights of shallow; paper takes those of paper" in done.stderr) == (2, True), done.stderr


def test_an_ensemble_is_the_mean_of_its_probabilities(run: Path, blobs: Path) -> None:
    faces = read_faces(blobs, "PublicTest")
    alone, other = evaluate([run], faces), evaluate([Path("student-small")], faces)
    both = evaluate([run, Path("student-small")], faces)
    assert both.name.startswith("ENSEMBLE of ")
    assert alone.name in both.name
    assert other.name in both.name
    assert evaluate([run, run], faces).calibration.nll == pytest.approx(alone.calibration.nll)
    # -log of a mean is at most the mean of the -logs (Jensen), and equal only where both say the same
    assert both.calibration.nll < (alone.calibration.nll + other.calibration.nll) / 2


def test_saved_predictions_replace_the_network(run: Path, blobs: Path, tmp_path: Path) -> None:
    file = tmp_path / "shallow.npz"
    asked = fer_train("evaluate", run, "--data", blobs, "--tta", 2, "--keep", file, "--json")
    assert asked.returncode == 0, asked.stderr
    faces = read_faces(blobs, "PublicTest")
    for views in (1, 2):
        together = evaluate([run, Path("student-small")], faces, views)
        kept = evaluate([file, Path("student-small")], faces, views)
        assert kept.figures.as_json() == together.figures.as_json()
        assert kept.calibration == together.calibration
    assert f"run {run}, Keras float32, saved in {file}" in kept.name
    assert evaluate([file], faces, 2).figures.as_json().items() <= json.loads(asked.stdout).items()


def test_saved_predictions_are_only_for_their_own_faces(run: Path, blobs: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "shallow.npz", tmp_path / "nothing.npz"
    faces = read_faces(blobs, "PublicTest")
    evaluate([run], faces, 2, keep=file)
    with pytest.raises(UsageError, match="for other faces"):
        evaluate([file], read_faces(blobs, "Training"))
    with pytest.raises(UsageError, match=r"predictions for 2 views; give --tta 2"):
        evaluate([file], faces, 3)
    with pytest.raises(UsageError, match="of one network, and 2 were given"):
        evaluate([file, file], faces, keep=other)
    with pytest.raises(UsageError, match=r"call it shallow\.npz"):
        evaluate([run], faces, keep=tmp_path / "shallow")
    np.savez(other, logits=np.zeros(3))
    with pytest.raises(DataError, match="no saved predictions"):
        evaluate([other], faces)
    with pytest.raises(DataError, match=r"no saved predictions.*No such file"):
        evaluate([tmp_path / "nowhere.npz"], faces)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(DataError, match="this is a named pipe, not a file"):
        evaluate([tmp_path / "pipe.npz"], faces)


def test_votes_that_do_not_fit_are_told_before_the_network_is_asked(run: Path, blobs: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npz"
    with pytest.raises(DataError, match="not a FERPlus CSV"):
        evaluate([run], read_faces(blobs, "PublicTest"), keep=kept, votes=blobs)
    assert not kept.exists()


def test_a_full_disk_costs_the_drawing_and_not_the_figures(run: Path, blobs: Path) -> None:
    done = fer_train("evaluate", run, "--data", blobs, "--out", "/dev/full")
    assert (done.returncode, "/dev/full: cannot be written" in done.stderr) == (2, True), done.stderr
    assert "accuracy" in done.stdout


def test_the_docs_state_the_accuracy_of_all_saved_predictions_and_their_ensemble(public_test: Path) -> None:
    docs = Path(__file__).parents[3] / "docs"
    kept = sorted((docs / "answers").glob("*.npz"))
    runs, ensembles = ((docs / "experiments" / name).read_text() for name in ("training-runs.md", "teachers.md"))
    faces = read_faces(public_test, "PublicTest")
    for file in kept:
        rows = [line for line in runs.splitlines() if f"| `fer-train run {file.stem} " in line]
        figure = f"{evaluate([file], faces).figures.accuracy:.2%}".replace("%", " %")
        assert any(figure in row for row in rows), f"{file.stem} has {figure}"
        together = ensembles.split("| together, with mirror images |")[1]
        assert f"| `{file.stem}` | {evaluate([file], faces, 2).figures.accuracy:.2%}".replace("%", " %") in together
    pair = [docs / "answers" / f"{name}.npz" for name in ("facenet", "student-72")]
    assert (
        f"| `facenet` and `student-72` | **{evaluate(pair, faces, 2).figures.accuracy:.2%}".replace("%", " %")
        in together
    )
    assert f"| all three | {evaluate(kept, faces, 2).figures.accuracy:.2%}".replace("%", " %") in together


def test_the_report_shows_curves_and_diagrams_and_no_picture(run: Path) -> None:
    page = (run / "report.html").read_text()
    for heading in ("Learning curves", "Per class", "Confusion matrix", "Reliability diagram"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 3
    assert "<img" not in page
    assert "fer-train run shallow" in page


def test_a_run_answers_for_faces_without_labels_and_sees_faces_in_pictures(
    run: Path, blobs: Path, tmp_path: Path
) -> None:
    header, *rows = [line.split(",") for line in blobs.read_text().splitlines()]
    column = header.index("pixels")
    (tmp_path / "test.csv").write_text("".join(f"{row[column]}\n" for row in [header, *rows[-5:]]))
    done = fer_train("predict", run, "--data", tmp_path / "test.csv", "--out", tmp_path / "answers.csv", "--tta", 2)
    assert done.returncode == 0, done.stderr
    first, *answers = list(csv.reader((tmp_path / "answers.csv").read_text().splitlines()))
    assert first == ["row", "emotion", "expression", "confidence"]
    assert [answer[0] for answer in answers] == list("01234")
    assert all(FER2013_LABELS[int(number)] == name and 1 / 7 <= float(share) <= 1 for _, number, name, share in answers)
    assert done.stdout.startswith(f"{tmp_path / 'answers.csv'}: 5 faces: ")
    done = fer_train("classify", run, PORTRAIT, "--tta", 2)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{PORTRAIT}: (angry|disgust|fear|happy|sad|surprise|neutral) \d+% at .*\n", done.stdout)


def test_tensorboard_can_read_the_log(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    log = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    log.Reload()
    assert len(log.Tensors("accuracy")) == 4


def test_a_run_leaves_a_bank_that_a_student_learns_from(run: Path, blobs: Path, tmp_path: Path) -> None:
    file = tmp_path / "teacher.npz"
    done = fer_train("bank", run, "--data", blobs, "--out", file, "--views", 2)
    assert done.returncode == 0, done.stderr
    bank = ViewBank.load(file)
    training = read_splits(blobs).training
    assert bank.logits.shape == (2, 112, 7)
    right = bank.probabilities(0, 1.0).argmax(axis=1) == training.labels
    assert right.mean() > 0.3  # a seventh by chance: the teacher has learned, and rows are faces
    values = ("batch=16", "epochs=1", "votes=0", f"teachers={file}")
    settings = [x for value in values for x in ("--set", value)]
    done = fer_train("run", "student-small", "--data", blobs, "--out", tmp_path / "student", *settings)
    assert done.returncode == 0, done.stderr
    sources = json.loads((tmp_path / "student" / "run.json").read_text())["sources"]
    told = [(one["role"], one["name"], one["sha256"]) for one in sources]
    weights_sha256 = hashlib.sha256((run / BEST_WEIGHTS).read_bytes()).hexdigest()
    assert told == [
        ("teacher", "view bank of run shallow", bank.sha256()),
        ("teacher", "run shallow", weights_sha256),
        ("data", f"Training of {blobs.name}", training.sha256()),
    ]


def test_a_bank_has_the_joined_faces_that_its_teacher_never_saw(run: Path, blobs: Path, tmp_path: Path) -> None:
    header, *rows = blobs.read_text().splitlines(keepends=True)
    mine, further = tmp_path / "mine.csv", tmp_path / "further.csv"
    pixels = [" ".join(reversed(row.split(",")[1].split())) for row in rows[:20]]
    measured = rows[-1].replace("PublicTest", "Training")  # joined, but not to be learned from
    mine.write_text("".join([header, *(f"0,{one},Training\n" for one in pixels), measured]))
    further.write_text("".join([header, *rows, *(row.replace("Training", "PrivateTest") for row in rows[:8])]))
    for data in ((blobs, mine), (further, mine)):  # the second leaves out some of what the run was trained on
        bank, splits = make_teacher_bank(run, data, 1, 1), read_splits(*data)
        assert bank.logits.shape[1] == 112 + 20
        shown = bank.faces_of("mine", splits)
        assert shown[splits.kept].all()
        teachers = prepare_run(
            customize(RECIPES["shallow"], [f"teachers={saved(bank, tmp_path)}"]), RunInputs(data), splits
        )
        assert teachers.training.teachers is not None
        assert teachers.training.teachers.taught.all()


def saved(bank: ViewBank, folder: Path) -> Path:
    bank.save(folder / "bank.npz")
    return folder / "bank.npz"


def test_a_bundle_teaches_too_but_only_about_the_faces_it_learned_from(blobs: Path, tmp_path: Path) -> None:
    bundle = open_bundle(find_bundle("student-small"))
    subject = open_predictor(Path("student-small"))
    faces = read_faces(blobs, "PublicTest").pixels[:3]
    expected = [Classifier(bundle).read(face) for face in faces]
    np.testing.assert_allclose(subject.logits(faces), expected, rtol=1e-6)
    assert subject.sources[0].sha256 == bundle.card.sha256
    assert set(bundle.card.origin.sources) < set(subject.sources)
    done = fer_train("bank", "student-small", "--data", blobs, "--out", tmp_path / "bank.npz")
    assert (done.returncode, "is not the data that student-small was trained on" in done.stderr) == (2, True)


def test_a_run_that_has_not_ended_is_told_whatever_it_is_used_for(run: Path, blobs: Path, tmp_path: Path) -> None:
    assert "warning" not in fer_train("evaluate", run, "--data", blobs).stderr
    going_on = shutil.copytree(run, tmp_path / "going-on")
    stored = json.loads((run / "run.json").read_text())
    (going_on / "run.json").write_text(json.dumps({**stored, "best": None}))  # as before its last epoch
    for command in (["evaluate", going_on, "--json"], ["bank", going_on, "--views", 1, "--out", tmp_path / "bank.npz"]):
        done = fer_train(*command, "--data", blobs)
        assert done.returncode == 0, done.stderr
        [line] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        assert f"{going_on}: the run is not finished. Continue it: fer-train run shallow" in line


def test_what_is_not_there_is_told_with_all_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nosuch: no run folder, no bundle's folder and no bundled model \(student, "):
        open_predictor(tmp_path / "nosuch")


def test_the_shipped_bank_of_a_bundle_names_the_bundle() -> None:
    bank = find_bank("student")
    network, *others = bank.sources
    assert (network.role, network.name) == ("start", "int8 bundle student")
    assert (network.source or "").startswith("fer-train run student ")
    assert "faceres.json" in {source.name for source in others}
    assert bank.logits.shape == (8, 28358, 7)
