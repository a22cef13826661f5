"""Model families: what the house may ask of each, and the families themselves."""
