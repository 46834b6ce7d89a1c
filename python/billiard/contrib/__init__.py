"""What makes other software use this package to the full. Nothing here is loaded unless it is asked for."""
