"""The listeners of the demo: each handles events of the application and turns them into notifications."""
