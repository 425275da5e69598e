"""The HTTP API of an agent: what the command line, the apps, people and Prometheus speak to.

One Starlette application (``app.py``), served on a Unix socket and, when switched on, on TCP
(``listeners.py`` opens them, ``server.py`` answers). Handlers only translate: they read a request,
call a service of the agent (``interfaces.py`` lists what they need of it), and write the answer.
One file a subject, under the same noun as in ``agent/cli``. The rules they share:

* bodies are JSON, except for keys' values, which are raw bytes, and line protocol;
* an error is ``{"error": {"code", "message", "hint"}}`` with a fitting status (``errors.py``);
* what does not end is a stream of JSON, one value a line (``ndjson.py``);
* what comes in has a limit (``request_bodies.py``), and each refusal is counted.

Nothing is imported here: an agent that starts opens its sockets, and loads the rest when somebody
connects to one.
"""
