"""Makes directories whose mode is the one that was asked for, whatever the process's mask says.

With a mask of 000, which a careless script or service has, the directories above ours would be
everybody's to write in, and ours could be replaced; with one of 777 nobody could enter.
"""

from pathlib import Path

ABOVE_MODE = 0o755
"""Of the directories that are missing above: others may pass, and nobody else may write."""


def make_directory(path: Path, mode: int) -> None:
    """Make a directory with exactly this mode, and what is missing above it.

    What is there already stays as it is. Raises OSError.
    """
    missing: list[Path] = []
    for place in (path, *path.parents):
        if place.is_dir():
            break
        missing.append(place)
    for place in reversed(missing):
        wanted = mode if place == path else ABOVE_MODE
        try:
            place.mkdir(mode=wanted)
        except FileExistsError:
            if not place.is_dir():
                raise
            continue  # somebody was faster
        place.chmod(wanted)  # the mask can only have taken away
