"""Training: losses, recipes, the DeepSpeed loop, checkpoints, launchers.

Nothing heavy is imported here: the launcher and the commands that list runs need neither torch nor DeepSpeed.
"""
