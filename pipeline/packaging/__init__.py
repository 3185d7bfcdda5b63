"""The model package: weights, plan, card, licences, exports and MONAI bundle."""
