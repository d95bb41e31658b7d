"""What a checkpoint takes images for, from the command line."""
