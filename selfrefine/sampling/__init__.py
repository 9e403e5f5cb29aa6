"""The batched decoder: a preallocated cache, an inverse-CDF draw, one random stream per row."""
