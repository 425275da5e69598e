"""``python -m agent`` is ``covey``."""

from agent.cli import main

main()
