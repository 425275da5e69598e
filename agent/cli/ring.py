"""``covey ring``: which nodes own which keys."""

import click

from agent.cli.output import output_option, wide_option, write_facts, write_json, write_table
from agent.cli.parameters import ValueCommand
from agent.cli.session import Session, pass_session


@click.command(cls=ValueCommand)
@click.argument("key", required=False)
@output_option
@wide_option
@pass_session
def ring(session: Session, key: str | None, output: str, *, wide: bool) -> None:
    """Show which nodes own which keys, or who owns KEY.

    Keys hash to partitions, and each partition has owners. The owners follow from who belongs to
    the covey, not from who is up.
    """
    answer = session.client().get("/api/v1/ring", key=key)
    if output == "json":
        write_json(answer)
    elif key is None:
        rows = [
            (node["name"], node["partitions"], f"{node['share']:.1%}", node["state"], node["id"])
            for node in answer["nodes"]
        ]
        write_table(("NODE", "PARTITIONS", "SHARE", "STATE", "ID"), rows, wide=wide, spare=("ID",))
        owners = min(answer["replicas"], len(rows))  # a small covey has fewer nodes than replicas
        session.say(
            f"Epoch {answer['epoch']}: {answer['partitions']} partitions, owners of each: {owners}."
        )
    else:
        write_facts({"key": answer["key"], "partition": answer["partition"]})
        for owner in answer["owners"]:
            write_facts({"owner": f"{owner['name']} ({owner['state']})"})
