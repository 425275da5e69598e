"""The connection to an MQTT broker, and the pump that empties the outbox into it."""
