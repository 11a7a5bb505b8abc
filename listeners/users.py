"""The listener for users: welcomes a new user on the user's own topic."""

from hub import Event, NotificationService, on_event


class UserListener:
    """Welcomes a new user on the user's own topic, `user/{id}`."""

    def __init__(self, notifications: NotificationService) -> None:
        self.notifications = notifications

    @on_event("user.registered")
    def welcome(self, event: Event) -> None:
        """Send a greeting to the user in `event.payload`, which has an `id` and may have a `name`."""
        user = event.payload
        message = f"欢迎你，{user.get('name', '新朋友')}！"
        self.notifications.send_to_user(user["id"], {"message": message}, type=event.name)
