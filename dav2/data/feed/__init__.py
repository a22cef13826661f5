"""Data as training takes it: loader, sampler, augmentation, targets, reading ahead."""
