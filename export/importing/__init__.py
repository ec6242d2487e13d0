"""Networks that were trained elsewhere: what they take, and how they become networks for devices."""
