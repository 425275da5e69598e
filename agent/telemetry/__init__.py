"""Readings on their way in, and the outbox that keeps them until a broker has them.

Forms: ``line_protocol``, ``readings_text``, ``plain_lines``, ``readings_json``. ``intake`` takes
whole bodies, ``service`` is what the agent offers, ``outbox`` what is on disk, with
``group_commit`` on the way to it and ``delivery_progress`` on the way out. ``uplink/`` empties it.
"""
