"""Sockets: datagrams, streams, and finding out where the others are."""
