"""What the command line does: the ladder, the training jobs, their data, tables and pictures."""
