"""Training and evaluation: a recipe's phases, the loop, checkpoints, and scoring on frozen episodes."""
