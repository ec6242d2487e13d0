"""Why the broker could not be reached, in words that say what to check."""

import ssl


def no_connection(address: str, error: OSError | ValueError) -> str:
    """Why no connection was made, and what to check."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the MQTT broker at {address} is not trusted: {error.verify_message}. Does "
            "mqtt.ca_file name the authority that signed it, is mqtt.host the name in it, is this device's clock right?"
        )
    if isinstance(error, ssl.SSLError):
        return f"no MQTT broker answers at {address}: TLS failed: {error}. Check mqtt.port, mqtt.tls and mqtt.ca_file."
    where = "mqtt.url, or mqtt.host and mqtt.port"
    return f"no MQTT broker answers at {address}: {error}. Is it running, is its address right ({where})?"
