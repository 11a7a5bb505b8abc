# main.py
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx2
import jwt
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from hub.client import AsyncHubClient

SECRET = os.environ["HUB_JWT_SECRET"]
HUB_URL = os.environ.get("HUB_URL", "http://127.0.0.1:8080")
PAGE = Path(__file__).with_name("orders.html").read_text(encoding="utf-8")


def token(user: str, seconds: int, **rights: object) -> str:
    claims = {"sub": user, "iat": int(time.time()), "exp": int(time.time()) + seconds, "hub": rights}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with (
        AsyncHubClient(HUB_URL, token=lambda: token("fastapi", 300, publish=["**", "user/**"])) as app.state.hub,
        httpx2.AsyncClient(base_url=HUB_URL) as app.state.http,
    ):
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key=os.environ["SESSION_SECRET"])


def logged_in(request: Request) -> str:
    user = request.session.get("user")
    if user is None:
        raise HTTPException(401)
    return str(user)


User = Annotated[str, Depends(logged_in)]


@app.post("/login")
def log_in(request: Request, user: Annotated[str, Form()]) -> RedirectResponse:
    request.session["user"] = user  # check the password here
    return RedirectResponse("/", status_code=303)


@app.get("/")
def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.post("/ticket")
async def ticket(request: Request, user: User) -> dict[str, str]:
    """Return what opens one stream of this user."""
    rights = token(user, 3600, subscribe=["orders"])
    answer = await request.app.state.http.post(
        "/notifications/tickets", headers={"Authorization": f"Bearer {rights}"}, json={}
    )
    answer.raise_for_status()
    return {"ticket": answer.json()["ticket"], "user": user}


@app.post("/orders", status_code=201)
async def create(request: Request, user: User, amount: Annotated[float, Form()]) -> dict[str, object]:
    order = {"id": time.time_ns(), "amount": amount, "by": user}  # save it, and commit, before the next line
    await request.app.state.hub.publish(order, topic="orders", type="order.created")
    return order


@app.post("/greet/{other}", status_code=202)
async def greet(request: Request, user: User, other: str) -> None:
    await request.app.state.hub.send_to_user(other, {"from": user}, type="greeting")
