"""Every benchmark, one after the other, each in a process of its own: the long ones take an hour.

With ``--quick``, those that know a shorter form take it. One that fails does not end the rest.
"""

import json
import subprocess
import sys
from pathlib import Path

QUICK = {
    "membership": "--quick",
    "control": "--quick",
    "state": "--quick",
    "lifeguard": "--quick",
    "simulator": "--small",
}
"""How the long ones are told to be short."""
NAMES = ("cli", "start", "seal", "doors", "consensus_log", "telemetry", "ingest", "idle", *QUICK)
FOLDER = Path(__file__).parent


def main() -> None:
    """Run them all; the last line is the JSON of each, by name. Fails if one of them fails."""
    is_quick = sys.argv[1:] == ["--quick"]
    if sys.argv[1:] and not is_quick:
        sys.exit("bench.all takes --quick, or nothing")
    figures: dict[str, object] = {}
    failed: list[str] = []
    for name in NAMES:
        options = [QUICK[name]] if is_quick and name in QUICK else []
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{name}", *options],
            cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        print(done.stdout, flush=True)
        found = last_json(done.stdout)
        if found is not None:
            figures[name] = found
        if done.returncode or found is None:
            failed.append(name)
    print(json.dumps(figures))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def last_json(printed: str) -> object:
    r"""Return the figures that a benchmark ended with, None where there are none.

    >>> last_json('| a table |\n{"bench": "cli"}\n'), last_json("")
    ({'bench': 'cli'}, None)
    """
    try:
        return json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):
        return None


if __name__ == "__main__":
    main()
