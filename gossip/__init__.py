"""The protocols of Covey, as pure state machines."""
