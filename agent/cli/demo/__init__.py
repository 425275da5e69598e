"""``covey demo``: a covey of several agents on this machine, to look at and to break.

Nothing here is used by an agent. The demo does from outside what a person would do: it runs the
commands of ``covey``, reads the agents' HTTP APIs, and subscribes to the broker.

Reading order: ``processes`` (that surely end), ``broker``, ``collector`` (counts what arrives),
``fleet`` (directories and agents), ``views`` (what each agent sees), ``setup`` (all of it up and
down again), then its three audiences: ``screen`` (a person at a terminal), ``log_view`` (a log),
``check`` (a script).
"""
