"""Generations: answers of an AI as they grow, who produces them, and where they are kept."""
