"""Who this node is: its identity, certificates, and the covey's shared keys."""
