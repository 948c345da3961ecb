"""Who computes when, and which weights are in memory: admission, the compute lane, the model cache."""
