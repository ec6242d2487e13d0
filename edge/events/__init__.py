"""From readings to events: what is worth reporting, as episodes or as counts of people."""
