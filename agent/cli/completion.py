"""``covey completion``: the script that teaches a shell to complete ``covey``."""

import click

from agent.cli.output import write_own

INSTALL = {
    "bash": 'eval "$(covey completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(covey completion zsh)"   # in ~/.zshrc',
    "fish": "covey completion fish > ~/.config/fish/completions/covey.fish",
}


@click.command(epilog="\b\n" + "\n".join(INSTALL.values()))
@click.argument("shell", metavar="SHELL", type=click.Choice(list(INSTALL)))
def completion(shell: str) -> None:
    """Print a shell's completion script."""
    write_own(script(shell))


def script(shell: str) -> str:
    """Return the completion script of a shell that ``INSTALL`` names; from within a command."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "the choices are shells that click knows"
    root = click.get_current_context().find_root().command
    return kind(root, {}, "covey", "_COVEY_COMPLETE").source()
