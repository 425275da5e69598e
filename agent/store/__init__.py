"""What an agent keeps on disk: its databases, each behind one writer thread."""
