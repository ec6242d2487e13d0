"""From events to the broker: payloads, the durable outbox, the connection, commands, Home Assistant."""
