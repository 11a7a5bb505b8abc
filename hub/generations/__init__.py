"""Generations: answers of an AI while they are produced, their producers, and the log that keeps them."""
