"""Completion in the real shells: each loads its script and is asked what could follow."""

import os
import shutil
import subprocess

import pytest

from tests.live.harness.agents import COVEY

pytestmark = [pytest.mark.live]

# Each asks its shell for the ways to go on after `covey mem`. Zsh completes only at a terminal, so
# there the two builtins that would show something are made to print it.
SCRIPTS = {
    "bash": """
        source <(covey completion bash)
        COMP_WORDS=(covey mem); COMP_CWORD=1
        _covey_completion covey mem
        echo "${COMPREPLY[@]}"
    """,
    "zsh": """
        autoload -U compinit; compinit -D -u
        source <(covey completion zsh)
        function compadd() { print -l -- ${(P)@[-1]} }
        function _describe() { print -l -- ${(P)3} }
        words=(covey mem); CURRENT=2
        _covey_completion
    """,
    "fish": """
        covey completion fish | source
        complete --do-complete 'covey mem'
    """,
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_shell_completes_a_command(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs Debian's {shell}")
    environment = {**os.environ, "PATH": f"{COVEY.parent}:{os.environ['PATH']}", "TERM": "dumb"}
    done = subprocess.run(
        [shell, "-c", SCRIPTS[shell]],
        capture_output=True, text=True, check=False, timeout=30, env=environment,
    )  # fmt: skip
    assert "members" in done.stdout, done.stderr
    assert "publish" not in done.stdout, "what does not begin with `mem` is no way to go on"
