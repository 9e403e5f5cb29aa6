"""Where an adapter comes from: its lineage.json, its model card, and the check of both."""
