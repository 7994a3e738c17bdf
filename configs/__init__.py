"""Every default of every command, written out: `restore.toml` for run time, the others for training."""
