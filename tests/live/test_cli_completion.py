"""Completion in the real shells: each loads its script and is asked what could follow."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.live.harness.agents import COVEY
from tests.support.fake_agent import ME, OTHER, serving
from tests.support.patience import GIVE_UP_S

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
        capture_output=True, text=True, check=False, timeout=GIVE_UP_S, env=environment,
    )  # fmt: skip
    assert "members" in done.stdout, done.stderr
    assert "publish" not in done.stdout, "what does not begin with `mem` is no way to go on"


# A person's shell, without what this machine's owner has set up, and with our completion. zsh and
# fish draw their line again at each key; what ends up on it is what `echo` is given.
INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(covey completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -D -u; source <(covey completion zsh)",
    ),
    "fish": (["fish", "--no-config", "-i"], "covey completion fish | source"),
}
PATIENT_COVEY = """#!{python}
import agent.cli.completion
agent.cli.completion.TIMEOUT_S = {timeout_s}
from agent.cli import main
main()
"""


class Terminal:
    """A shell at a terminal, at which somebody types."""

    def __init__(self, command: list[str], environment: dict[str, str], directory: Path) -> None:
        ours, theirs = pty.openpty()
        self._handle = ours
        self.seen = ""
        self._process = subprocess.Popen(  # with a terminal of its own, which fish insists on
            ["setsid", "--ctty", *command],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=directory,
        )  # fmt: skip
        os.close(theirs)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._handle, keys.encode())

    def await_text(self, pattern: str, since: int = 0) -> str:
        """Read what is shown until something fits the pattern."""
        give_up = time.monotonic() + GIVE_UP_S
        while not (found := re.search(pattern, self.seen[since:])):
            assert time.monotonic() < give_up, f"not seen: {pattern}; seen: {self.seen!r}"
            if select.select([self._handle], [], [], 0.1)[0]:
                self.seen += os.read(self._handle, 4096).decode(errors="replace")
        return found[0]

    def close(self) -> None:
        """Hang up."""
        self._process.kill()
        self._process.wait()
        os.close(self._handle)


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_a_name_that_is_a_command_is_not_run(shell: str, tmp_path: Path) -> None:
    """A member, and an app, that somebody called by a command: TAB, and then Enter."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs Debian's {shell}")
    commands, work = tmp_path / "bin", tmp_path / "work"
    commands.mkdir()
    work.mkdir()
    covey = commands / "covey"
    covey.write_text(PATIENT_COVEY.format(python=sys.executable, timeout_s=GIVE_UP_S))
    covey.chmod(0o755)
    evil = [f"x$(touch {work}/a)", f"x`touch {work}/b`", f"x;touch {work}/c;", f"x\ntouch {work}/d"]
    with serving(tmp_path / "agent") as served:
        other = served.agent.members[OTHER]
        for number, name in enumerate(evil):
            node = msgspec.structs.replace(other, id=OTHER + 100 + number, name=name)
            served.agent.members.put(node)
        served.agent.apps.state = dict.fromkeys([*evil, "xylophone"], "running")
        known = served.agent.members[ME].name
        command, setup = INTERACTIVE[shell]
        environment = {
            "PATH": f"{commands}:{os.environ['PATH']}", "COVEY_DIR": str(served.paths.runtime),
            "HOME": str(work), "TERM": "xterm", "PS1": "$ ", "PROMPT": "$ ", "LANG": "C.UTF-8",
        }  # fmt: skip
        terminal = Terminal(command, environment, work)
        try:
            terminal.type(f"{setup}; echo rea''dy\r")
            terminal.await_text("ready")
            for words, wanted in (("members show x", "x"), ("app log x", "xylophone")):
                before = len(terminal.seen)
                terminal.type(f"covey {words}\t")
                terminal.type("\r")
                terminal.type("echo do''ne\r")
                terminal.await_text("done", before)
                assert wanted in terminal.seen[before:]
        finally:
            terminal.close()
    assert known
    assert not [each.name for each in work.iterdir() if not each.name.startswith(".")]
