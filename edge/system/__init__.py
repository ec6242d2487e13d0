"""The operating system beneath: systemd, the state folder, the board, the clock, the end of a process."""
