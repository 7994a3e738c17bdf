"""Sources, sinks and colour: the only part that knows the media library."""
