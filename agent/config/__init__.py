"""What people write: settings, their files, and where an agent keeps its own."""
