import itertools
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.live import LatestFrame, LiveSource, StallDetector
from edge.camera.memory_guard import OPENING_CAMERA, OPENING_STREAM, MemoryGuard
from edge.errors import CameraStalled, SourceError
from edge.records import Frame, Gray, Picture
from tests.conftest import wait_until


def picture(value: int) -> Gray:
    return np.full((16, 16), value, np.uint8)


def frame(value: int) -> Frame:
    return Frame(picture(value), float(value))


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeCamera:
    """Gives the pictures that a test puts into it and waits, as a camera does, when there is none."""

    description = "MJPG 16x16"

    def __init__(self) -> None:
        self.pictures: queue.Queue[Picture | Exception] = queue.Queue()
        self.read_count = 0
        self.closed = threading.Event()

    def read(self) -> Picture:
        item = self.pictures.get()
        self.read_count += 1
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        self.closed.set()

    def give(self, *values: int) -> None:
        for value in values:
            self.pictures.put(Picture(picture(value), picture(value)[::2, ::2]))

    def hang_up(self) -> None:
        self.pictures.put(SourceError("the fake camera has gone"))


def test_the_newest_frame_wins_and_the_lost_ones_are_counted() -> None:
    newest = LatestFrame()
    for value in range(5):
        newest.put(frame(value))
    assert newest.take(0).time == 4
    assert newest.dropped == 4
    assert newest.take(0) is None
    newest.put(frame(5))
    assert newest.take(0).time == 5
    assert newest.dropped == 4


def test_taking_waits_for_a_frame_up_to_its_time_limit() -> None:
    newest = LatestFrame()
    started = time.monotonic()
    assert newest.take(0.05) is None
    assert time.monotonic() - started >= 0.05
    later = threading.Timer(0.05, newest.put, (frame(1),))
    later.start()
    assert newest.take(10).time == 1
    later.join()


def test_the_last_frame_is_given_before_the_failure() -> None:
    newest = LatestFrame()
    newest.put(frame(1))
    newest.fail(SourceError("gone"))
    assert newest.take(0).time == 1
    with pytest.raises(SourceError, match="gone"):
        newest.take(0)


def test_no_frame_for_long_enough_is_a_stall() -> None:
    clock = Clock()
    detector = StallDetector(5, clock)
    clock.now += 4.9
    assert detector.seconds_left() == pytest.approx(0.1)
    detector.add(picture(1))
    assert detector.seconds_left() == pytest.approx(5)
    clock.now += 5
    assert detector.seconds_left() <= 0


def test_a_repeated_picture_is_a_stall_even_in_other_memory() -> None:
    clock = Clock()
    detector = StallDetector(5, clock)
    for _ in range(6):
        detector.add(picture(7))
        clock.now += 1
    assert detector.seconds_left() <= 0
    assert detector.repeats == 5


@pytest.mark.parametrize("position", list(itertools.product((0, 3, 8, 15), (0, 15))))
def test_one_pixel_that_differs_by_one_is_a_new_picture(position: tuple[int, int]) -> None:
    clock = Clock()
    detector = StallDetector(5, clock)
    detector.add(picture(7))
    clock.now += 4
    changed = picture(7)
    changed[position] = 8
    detector.add(changed)
    assert detector.seconds_left() == 5
    assert detector.repeats == 0


def test_a_picture_of_another_size_is_a_new_picture() -> None:
    clock = Clock()
    detector = StallDetector(5, clock)
    detector.add(picture(7))
    clock.now += 4
    detector.add(np.full((8, 8), 7, np.uint8))
    assert detector.seconds_left() == 5


def test_a_live_camera_gives_the_newest_frame_with_the_time_since_the_first_call() -> None:
    camera, clock = FakeCamera(), Clock()
    live = LiveSource(lambda: camera, "fake", 5, clock)
    frames = live.frames()
    camera.give(1)
    assert next(frames).time == 0
    clock.now += 2
    camera.give(2, 3, 4)
    wait_until(lambda: camera.read_count == 4 and live.dropped == 2, 5)
    newest = next(frames)
    assert newest.gray[0, 0] == 4
    assert newest.half is not None
    assert newest.half.shape == (8, 8)
    assert newest.time == 2
    camera.hang_up()
    with pytest.raises(SourceError, match="the fake camera has gone"):
        next(frames)
    assert camera.closed.wait(5)
    live.close()


def test_a_live_camera_that_falls_silent_has_stalled() -> None:
    camera = FakeCamera()
    live = LiveSource(lambda: camera, "fake", 0.2)
    frames = live.frames()
    camera.give(1)
    next(frames)
    with pytest.raises(CameraStalled, match=r"fake: the camera has stalled: no new picture in 0\.2 s$"):
        next(frames)
    camera.hang_up()
    live.close()
    assert camera.closed.is_set()


def test_a_camera_that_is_waited_for_is_reported_until_it_has_stalled() -> None:
    camera, waits = FakeCamera(), itertools.count()
    live = LiveSource(lambda: camera, "fake", 1.0, waiting=lambda: next(waits))
    camera.give(1)
    frames = live.frames()
    next(frames)
    before = next(waits)
    with pytest.raises(CameraStalled):
        next(frames)
    assert 3 < next(waits) - before <= 11
    camera.hang_up()
    live.close()


def test_a_live_camera_that_repeats_itself_has_stalled() -> None:
    camera = FakeCamera()
    live = LiveSource(lambda: camera, "fake", 0.3)
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.02):
            camera.give(1)

    repeating = threading.Thread(target=repeat)
    repeating.start()
    with pytest.raises(CameraStalled, match=r"no new picture in 0\.3 s, only the last one again \d+ times"):
        list(live.frames())
    live.close()
    stop.set()
    repeating.join()
    assert camera.closed.is_set()


def test_closing_does_not_wait_for_a_camera_that_hangs() -> None:
    camera = FakeCamera()
    live = LiveSource(lambda: camera, "fake", 5)
    started = time.monotonic()
    live.close()
    assert time.monotonic() - started < 2
    assert not camera.closed.is_set()
    camera.hang_up()
    assert camera.closed.wait(5)


def test_a_camera_that_cannot_be_opened_raises_at_once() -> None:
    def open_device() -> FakeCamera:
        raise SourceError("no such camera")

    with pytest.raises(SourceError, match="no such camera"):
        LiveSource(open_device, "fake", 5)


def test_a_camera_whose_opening_hangs_is_given_up() -> None:
    release = threading.Event()

    def open_device() -> FakeCamera:
        release.wait()
        raise SourceError("too late")

    ten_seconds_later = itertools.count(step=10).__next__
    waits: list[None] = []
    with pytest.raises(SourceError, match=r"fake: did not open within 30 s"):
        LiveSource(open_device, "fake", 5, ten_seconds_later, waiting=lambda: waits.append(None))
    release.set()
    assert waits, "a service is told that the camera is waited for"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_reading_is_reported_at_once_and_not_as_a_stall() -> None:
    camera = FakeCamera()
    live = LiveSource(lambda: camera, "fake", 60)
    camera.pictures.put(ValueError("a bug"))
    with pytest.raises(SourceError, match=r"fake: reading it failed unexpectedly; see the traceback"):
        next(live.frames())
    live.close()


HUNG = """
import sys
import cv2
from edge.system.shutdown import exit_if_camera_hangs
from edge.camera.live import LiveSource

class Hung:
    description = ""

    def read(self):
        while True:  # in and out of OpenCV's code, as a camera that hangs half-way
            capture = cv2.VideoCapture(sys.argv[1])
            while capture.read()[0]:
                pass
    def close(self):
        pass

live = LiveSource(Hung, "hung", 0.2)
print("printed", end="")
live.close()
exit_if_camera_hangs(10)
sys.exit(10)
"""


def test_a_process_whose_camera_hangs_ends_with_its_own_exit_code_and_all_it_printed(tmp_path: Path) -> None:
    """Without ``exit_if_camera_hangs``, Python's own exit aborts this program (exit code 134)."""
    write_noise(tmp_path / "clip.avi")
    done = subprocess.run(
        [sys.executable, "-c", HUNG, tmp_path / "clip.avi"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (10, "printed", "")


STOPPED_IN_CLOSE = """
import time
import numpy as np
from edge.camera.live import LiveSource
from edge.records import Picture
from edge.system.shutdown import is_camera_hanging

class Camera:
    description = ""

    def read(self):
        time.sleep(0.01)
        return Picture(np.random.default_rng().integers(0, 256, (16, 16), dtype=np.uint8))

    def close(self):
        print("closing", flush=True)
        end = time.process_time() + 0.05
        while time.process_time() < end:  # work that goes on only when the process does
            pass

LiveSource(Camera, "camera 1", 5.0).close()
print(is_camera_hanging())
"""


@pytest.mark.slow
def test_a_process_that_is_stopped_while_it_closes_its_camera_does_not_take_it_for_hanging() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED_IN_CLOSE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "closing\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "False\n"


def write_noise(file: Path) -> None:
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (640, 480))
    noise = np.random.default_rng(1)
    for _ in range(20):
        writer.write(noise.integers(0, 256, (480, 640, 3), np.uint8))
    writer.release()


@pytest.mark.parametrize(("most", "given_up_at"), [(OPENING_CAMERA, 400), (OPENING_STREAM, 300)])
def test_a_camera_that_fills_the_memory_before_it_is_open_is_given_up(most: int, given_up_at: int) -> None:
    sizes = itertools.count(50_000_000, 100_000_000)
    hanging = threading.Event()
    started = time.monotonic()
    memory = MemoryGuard("camera 1", most, lambda: next(sizes))
    with pytest.raises(SourceError, match=f"camera 1: {given_up_at} MB came, and no picture that ends"):
        LiveSource(lambda: hanging.wait(10) and FakeCamera(), "camera 1", 5.0, memory=memory)
    hanging.set()
    assert time.monotonic() - started < 2


def test_a_picture_without_end_is_given_up_and_not_waited_for() -> None:
    camera, size = FakeCamera(), [100_000_000]
    source = LiveSource(lambda: camera, "camera 1", 5.0, memory=MemoryGuard("camera 1", resident=lambda: size[0]))
    frames = source.frames()
    camera.give(1)
    next(frames)
    size[0] += 500_000_000  # by whoever took the frame
    camera.give(2)
    next(frames)
    threading.Timer(0.2, lambda: size.__setitem__(0, 665_000_000)).start()
    with pytest.raises(SourceError, match="camera 1: 65 MB came"):
        next(frames)
    closing = time.monotonic()
    source.close()
    assert time.monotonic() - closing < 0.5
    camera.give(3)
