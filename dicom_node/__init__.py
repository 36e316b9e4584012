"""The only place with a network, a disk, a clock, a database, a web page and a command line."""
