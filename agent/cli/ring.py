"""``covey ring``: which nodes own which keys."""

import click

from agent.cli.output import output_option, wide_option, write_json, write_pairs, write_table
from agent.cli.param_types import ValueCommand
from agent.cli.session import Session, pass_session


@click.command(cls=ValueCommand)
@click.argument("key", required=False)
@output_option
@wide_option
@pass_session
def ring(session: Session, key: str | None, output: str, *, wide: bool) -> None:
    """Show which nodes own which keys, or who owns KEY.

    Keys hash to partitions, and each partition has owners. The owners follow from who belongs to
    the covey, not from who is up. Who is pending copies a partition, and will own it once it has
    all; until then the owners of before answer.
    """
    answer = session.client().get("/api/v1/ring", key=key)
    if output == "json":
        write_json(answer)
    elif key is None:
        rows = [
            (
                node["name"],
                node["partitions"],
                f"{node['share']:.1%}",
                f"+{node['pending']}" if node["pending"] else "",
                node["state"],
                node["id"],
            )
            for node in answer["nodes"]
        ]
        write_table(
            ("NODE", "PARTITIONS", "SHARE", "PENDING", "STATE", "ID"),
            rows,
            wide=wide,
            spare=("ID",),
        )
        # A small covey has fewer nodes than replicas, and whoever is absent owns nothing.
        owning = sum(node["partitions"] + node["pending"] > 0 for node in answer["nodes"])
        owners = min(answer["replicas"], owning)
        session.say(
            f"Epoch {answer['epoch']}: {answer['partitions']} partitions, owners of each: {owners}."
        )
        if on_their_way := in_words(answer["moving"]):
            session.say(f"On their way to other owners: {on_their_way}.")
    else:
        stage = answer["stage"]
        write_pairs(
            [
                ("key", answer["key"]),
                ("partition", answer["partition"]),
                *(("owner", f"{one['name']} ({one['state']})") for one in answer["owners"]),
                *(
                    ("pending", f"{one['name']} ({one['state']}, {stage})")
                    for one in answer["pending"]
                ),
            ]
        )


def in_words(moving: dict[str, int]) -> str:
    """Return how many partitions are in which stage of a change of owners; empty if none."""
    return ", ".join(f"{count} {stage}" for stage, count in moving.items() if count)
