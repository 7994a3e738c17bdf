"""The same road with another clock: sources and sinks that come and go, a picture that never goes dark."""
