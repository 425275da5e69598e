"""The registry: who belongs, who may do what, and who owns which partition."""
