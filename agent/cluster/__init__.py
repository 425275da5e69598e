"""The running covey, as the rest of the agent uses it: shared keys, events, facts, round trips."""
