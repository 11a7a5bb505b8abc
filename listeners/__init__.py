"""The listeners of the demo: each hears events of the application and turns them into notifications."""
