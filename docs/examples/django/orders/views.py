# orders/views.py
from decimal import Decimal
from functools import partial

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from orders.live import hub
from orders.models import Order


@login_required
def page(request):
    return render(request, "orders.html")


@login_required
@require_POST
@transaction.atomic
def create(request):
    order = Order.objects.create(user=request.user, amount=Decimal(request.POST["amount"]))
    message = {"id": order.pk, "amount": str(order.amount)}
    transaction.on_commit(partial(hub.publish, message, topic="orders", type="order.created"), robust=True)
    if order.amount > 1_000:
        raise PermissionDenied  # rolls back: there is no order, and nobody hears of one
    return JsonResponse(message, status=201)


@login_required
@require_POST
def greet(request, user_id):
    hub.send_to_user(user_id, {"from": request.user.username}, type="greeting")
    return JsonResponse({}, status=202)
