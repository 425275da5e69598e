"""What a node proves itself with: its identity, certificates, and the covey's shared keys."""
