"""What works here: versions, devices, the hub, weights, a short draw; a verdict on each."""
