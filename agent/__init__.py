"""The runtime: sockets, clocks, disks, brokers, HTTP and the command line."""
