# app.py
import os
import time

import jwt
from flask import Flask, abort, redirect, render_template, request, session

from hub.client import HubClient

SECRET = os.environ["HUB_JWT_SECRET"]
SECONDS = 900  # for which a token is valid


def token(user, **rights):
    claims = {"sub": user, "iat": int(time.time()), "exp": int(time.time()) + SECONDS, "hub": rights}
    return jwt.encode(claims, SECRET, algorithm="HS256")


app = Flask(__name__)
app.secret_key = os.environ["SESSION_SECRET"]
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # other sites can't order in the name of a user
hub = HubClient(
    os.environ.get("HUB_URL", "http://127.0.0.1:8080"),
    token=lambda: token("flask", publish=["**", "user/**"]),
)


@app.after_request
def keep_the_token_fresh(response):
    """Set the cookie for the hub with each answer to a user who is logged in."""
    if "user" in session:
        mine = token(session["user"], subscribe=["orders"])
        response.set_cookie("hub_token", mine, max_age=SECONDS, httponly=True, samesite="Lax")
    elif "hub_token" in request.cookies:
        response.delete_cookie("hub_token")
    return response


def logged_in():
    return session.get("user") or abort(401)


@app.get("/")
def page():
    return render_template("orders.html", user=session.get("user"))


@app.post("/login")
def log_in():
    session["user"] = request.form["user"]  # check the password here
    return redirect("/", 303)


@app.post("/logout")
def log_out():
    session.clear()
    return redirect("/", 303)


@app.post("/orders")
def create():
    order = {"id": time.time_ns(), "amount": request.form["amount"], "by": logged_in()}
    # Save it, and commit, before the next line.
    hub.publish(order, topic="orders", type="order.created")
    return order, 201


@app.post("/greet/<other>")
def greet(other):
    hub.send_to_user(other, {"from": logged_in()}, type="greeting")
    return {}, 202
