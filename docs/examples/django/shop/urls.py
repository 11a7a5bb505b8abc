# shop/urls.py
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from orders import views

urlpatterns = [
    path("", views.page),
    path("orders/", views.create),
    path("greet/<int:user_id>/", views.greet),
    path("login/", LoginView.as_view(template_name="login.html")),
    path("logout/", LogoutView.as_view()),
]
