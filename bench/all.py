"""Every benchmark, one after the other, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

NAMES = ("cli", "seal", "telemetry", "idle")
FOLDER = Path(__file__).parent


def main() -> None:
    """Run them all; the last line is the JSON of each, by name. Fails if one of them fails."""
    figures: dict[str, object] = {}
    failed: list[str] = []
    for name in NAMES:
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}"],
            cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        print(done.stdout, flush=True)
        if done.returncode:
            failed.append(name)
        else:
            figures[name] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(figures))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
