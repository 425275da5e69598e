"""What the machine under the agent tells: its clock, its descriptors, its init."""
