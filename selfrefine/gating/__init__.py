"""Is a candidate better? The gate, paired comparisons, guards and the forgetting probe."""
