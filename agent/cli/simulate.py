"""``covey simulate``: what a covey of any size does on a network like yours."""

import math
import secrets
from pathlib import Path
from typing import Any

import click
import msgspec

from agent import exits
from agent.cli.output import is_terminal, output_option, write_facts, write_json, write_line
from agent.cli.plot import bars, nice_step, svg
from agent.cli.progress import Progress
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from gossip.core.tuning import PROFILES
from gossip.sim.experiment import ExperimentResult, ExperimentSettings, median_and_max, run

SEED_BITS = 32
MEGABYTE = 1e6


@click.command()
@click.option("--nodes", type=click.IntRange(2, 5000), default=10, show_default=True)
@click.option(
    "--loss",
    type=click.FloatRange(0, 90),
    default=0.0,
    show_default=True,
    help="Percent of all datagrams that are lost.",
)
@click.option("--burst", is_flag=True, help="Lose them in bursts of half a second, as Wi-Fi does.")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="lan",
    show_default=True,
    help="The intervals, and links that go with them.",
)
@click.option(
    "--crash",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="How many nodes crash, at the same moment.",
)
@click.option(
    "--kind",
    type=click.Choice(["host", "process"]),
    default="host",
    show_default=True,
    help="What crashes: a whole host, or the agent alone.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(10, 86_400),
    default=120.0,
    show_default=True,
    help="How long is measured, in simulated time.",
)
@click.option("--seed", type=click.IntRange(0), help="Repeat the run with this seed.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw detection over time into this SVG file.",
)
@output_option
@pass_session
def simulate(
    session: Session, /, seed: int | None, plot: Path | None, output: str, **wanted: Any
) -> None:
    """Simulate a covey: how fast it notices, whom it wrongs, what it costs.

    The code of the agents runs in virtual time on a simulated network; no agent is needed, and
    none is touched. The same options and seed give the same figures.
    """
    if wanted["crash"] >= wanted["nodes"]:
        raise click.UsageError("--crash: at least one node has to be left to notice it")
    if plot is not None and not wanted["crash"]:
        raise click.UsageError("--plot draws how a crash is noticed: use it with --crash")
    wanted["loss"] /= 100.0
    chosen = secrets.randbits(SEED_BITS) if seed is None else seed
    settings = ExperimentSettings(seed=chosen, **wanted)
    with Progress(quiet=session.quiet) as progress:
        findings = run(settings, progress.show)
    if plot is not None:
        _draw(plot, settings, findings)
    if output == "json":
        write_json(as_json(settings, findings))
        return
    write_facts(facts(settings, findings))
    if findings.knowing and is_terminal():
        write_line()
        write_line("Who knows of the crash, by seconds after it:")
        for line in bars(findings.knowing, _until_s(findings)):
            write_line(line)


def facts(settings: ExperimentSettings, findings: ExperimentResult) -> dict[str, object]:
    """Return what the table shows, in its words."""
    shown: dict[str, object] = {
        "seed": settings.seed,
        "start": _seconds(findings.converged_s, "until all knew all", "not all knew all"),
    }
    if settings.crash:
        first = median_and_max([each.first_s for each in findings.detections])
        last = median_and_max([each.last_s for each in findings.detections])
        shown["crash, first to know"] = _pair(first)
        shown["crash, last to know"] = _pair(last)
    day_mb = findings.bytes_per_node_day / MEGABYTE
    return shown | {
        "false suspicions": f"{findings.false_suspicions_per_node_hour:.3g} per node and hour",
        "false deaths": f"{findings.false_deaths_per_node_hour:.3g} per node and hour, of "
        f"{findings.falsely_dead} members",
        "datagrams lost": f"{findings.lost_share:.1%}",
        "packets sent": f"{findings.packets_per_node_s:.3g} per node and second",
        "bytes sent": f"{findings.bytes_per_node_s:.0f} per node and second, {day_mb:.3g} MB a day",
    }


def as_json(settings: ExperimentSettings, findings: ExperimentResult) -> dict[str, Any]:
    """Return settings and findings, with the figures that the table derives from them."""
    first = median_and_max([each.first_s for each in findings.detections])
    last = median_and_max([each.last_s for each in findings.detections])
    found = msgspec.to_builtins(findings)
    found["bytes_per_node_day"] = findings.bytes_per_node_day
    found["first_s"] = {"median": first[0], "max": first[1]}
    found["last_s"] = {"median": last[0], "max": last[1]}
    return {"settings": msgspec.to_builtins(settings), "findings": found}


def _draw(file: Path, settings: ExperimentSettings, findings: ExperimentResult) -> None:
    title = (
        f"{settings.nodes} nodes, {settings.loss:.0%} loss, profile {settings.profile}, "
        f"{settings.crash} crash, seed {settings.seed}"
    )
    try:
        file.write_text(svg(findings.knowing, _until_s(findings), title), encoding="utf-8")
    except OSError as error:
        raise AgentError(f"{file} was not written: {error.strerror}", "", exits.NO) from None


def _until_s(findings: ExperimentResult) -> float:
    """Return where the time axis ends: at a round number behind the last to know."""
    last_s = findings.knowing[-1][0] if findings.knowing else 1.0
    step_s = nice_step(last_s / 10)
    return math.ceil(last_s / step_s) * step_s


def _seconds(value: float | None, meaning: str, never: str) -> str:
    return never if value is None else f"{value:.3g} s {meaning}"


def _pair(times: tuple[float | None, float | None]) -> str:
    middle, worst = (("not in time" if each is None else f"{each:.3g} s") for each in times)
    return f"{middle} median, {worst} longest"
