"""Puts the agent onto a device as a system service, and takes it off again.

What the files say comes from ``packaging/systemd``; the wheel carries them. Where they go, and what
else the service needs, is decided here, for ``covey service``.
"""
