"""What a run counts about itself, and how that is shown."""
