"""The attack of a service that was taken over: links for root to follow in the folder of the models."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

OTHER_USER: Final = 65_534
VARIANTS: Final = 4


def precious_folder(place: Path) -> Path:
    """Files of root that nobody may read or change."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    for name in (".lock", "choice.json", "secret"):
        (place / name).write_bytes(b"precious")
        (place / name).chmod(0o600)
    return place


def look_of(place: Path) -> dict[str, tuple[int, int, bytes]]:
    """Owner, mode and content of everything in a folder, and of the folder."""
    found = {".": (place.stat().st_uid, place.stat().st_mode, b"")}
    for file in place.iterdir():
        found[file.name] = (file.stat().st_uid, file.stat().st_mode, file.read_bytes())
    return found


@contextmanager
def attack(state: Path, precious: Path, variant: int) -> Iterator[None]:
    """While it lasts, the state folder belongs to OTHER_USER, who has put a link to ``precious`` files there."""
    models, aside = state / "models", state.with_name("models.aside")
    shutil.copytree(models, aside, symlinks=True)
    links = (models, models / ".lock", models / "choice.json", models / ".incoming-left")
    targets = (precious, precious / "secret", precious / "choice.json", precious)
    link, target = links[variant % VARIANTS], targets[variant % VARIANTS]
    if link == models:
        shutil.rmtree(models)
    else:
        link.unlink(missing_ok=True)
    link.symlink_to(target)
    try:
        _give(state, OTHER_USER)
        yield
    finally:
        _give(state, 0)
        if models.is_symlink():
            models.unlink()
        else:
            shutil.rmtree(models)
        shutil.move(aside, models)


def _give(folder: Path, user: int) -> None:
    for place, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            os.chown(Path(place, name), user, -1, follow_symlinks=False)
