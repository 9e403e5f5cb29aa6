"""What knows folders and units: one file a stage, two runners, the loop."""
