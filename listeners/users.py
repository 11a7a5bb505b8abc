"""Users: who registers is welcomed, and nobody else hears of it."""

from hub import Event, NotificationService, on_event


class UserListener:
    """Welcomes a new user on the user's own topic, `user/{id}`."""

    def __init__(self, notifications: NotificationService) -> None:
        self.notifications = notifications

    @on_event("user.registered")
    def welcome(self, event: Event) -> None:
        """Greet the user in `event.payload`: its `id`, and its `name` if there is one."""
        user = event.payload
        message = f"欢迎你，{user.get('name', '新朋友')}！"
        self.notifications.send_to_user(user["id"], {"message": message}, type=event.name)
