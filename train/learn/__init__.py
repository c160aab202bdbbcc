"""Learning: recipes, batches, the network, its losses, the fit, calibration and the model folder."""
