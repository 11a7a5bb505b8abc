"""The applications of the how-to guides for other web frameworks, with the real frameworks, nginx and Chromium."""
