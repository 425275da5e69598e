"""Rules of files: modes, owners, and directories that are there whole or not at all."""
