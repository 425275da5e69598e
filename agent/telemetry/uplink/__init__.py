"""The connection to an MQTT broker, and the delivery that empties the outbox into it.

``mqtt`` is what we need of a client and ``paho_client`` has it; ``delivery`` sends, within
``in_flight`` and by the reasons in ``reason_codes``, and ``poison`` says what to give up.
``service`` is all of it.
"""
