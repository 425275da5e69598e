"""The HTTP API of an agent: what the command line, the apps, people and Prometheus speak to.

One Starlette application (``application.py``), served on a Unix socket and, when switched on, on
TCP (``listen.py`` opens them, ``serving.py`` answers). Handlers only translate: they read a
request, call a service of the agent (``facade.py`` lists what they need of it), and write the
answer. The rules they share:

* bodies are JSON, except for keys' values, which are raw bytes, and line protocol;
* an error is ``{"error": {"code", "message", "hint"}}`` with a fitting status (``errors.py``);
* what does not end is a stream of JSON, one value a line (``streams.py``);
* what comes in has a limit (``bodies.py``), and each refusal is counted.

Nothing is imported here: an agent that starts opens its sockets, and loads the rest when somebody
connects to one.
"""
