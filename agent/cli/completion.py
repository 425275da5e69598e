"""``covey completion``, and what a shell completes names with: the agent, quickly, or not at all.

A shell waits for this while somebody types. An agent that does not answer within a tenth of a
second, or does not run, simply completes nothing.

The shell puts what it is offered on its command line, and some shells do not quote it: what a
member calls itself would be run. So nothing is ever offered that is no name
(``gossip/core/names.py``), whatever an agent answers; every argument that completes does so by a
function of this file.
"""

from collections.abc import Iterable

import click

from agent.cli.output import write_own
from agent.cli.session import Session
from gossip.core.errors import CoveyError

TIMEOUT_S = 0.1
INSTALL = {
    "bash": 'eval "$(covey completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(covey completion zsh)"   # in ~/.zshrc',
    "fish": "covey completion fish > ~/.config/fish/completions/covey.fish",
}


def member_names(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the members' names that begin like this."""
    return _names(ctx, "members", begun)


def app_names(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the apps' names that begin like this."""
    return _names(ctx, "apps", begun)


def lock_names(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of locks in use that begin like this."""
    return _names(ctx, "locks", begun)


def barrier_names(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the names of barriers in use that begin like this."""
    return _names(ctx, "barriers", begun)


def fleet_setting_names(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the settings that can be set for a fleet and begin like this."""
    from agent.config.fleet_layer import FOR_FLEETS

    return [name for name in FOR_FLEETS if name.startswith(begun)]


def _names(ctx: click.Context, collection: str, begun: str) -> list[str]:
    session = ctx.find_object(Session) or Session(ctx.find_root().params.get("directory"))
    try:
        answer = session.hasty_client().request("GET", f"/api/v1/{collection}", timeout_s=TIMEOUT_S)
        names = [item["name"] for item in answer.json()[collection]]
    except (CoveyError, ValueError, KeyError, TypeError):
        return []
    return offered(names, begun)


def offered(texts: Iterable[object], begun: str) -> list[str]:
    """Return the names among some texts that begin with what was typed, sorted.

    >>> offered(["ash", "a$(id)", "-rf", 7, "birch"], "a")
    ['ash']
    """
    from gossip.core.names import is_name  # with msgspec, which a command's help does without

    names = {text for text in texts if isinstance(text, str) and is_name(text)}
    return sorted(name for name in names if name.startswith(begun))


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
