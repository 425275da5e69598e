"""How far the members are, and which ways to them work."""
