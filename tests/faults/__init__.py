"""Kills, interrupts, full disks and two at once: nothing is lost, left half or mixed, and the next run succeeds."""
