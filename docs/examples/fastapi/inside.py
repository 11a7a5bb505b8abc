# inside.py
from contextlib import asynccontextmanager

from aiohttp import web
from fastapi import FastAPI

from hub import NOTIFICATIONS, setup_hub


@asynccontextmanager
async def lifespan(app: FastAPI):
    live = web.Application()
    setup_hub(live)  # its settings are those of `hub serve`: HUB_JWT_SECRET, HUB_LOG, …
    runner = web.AppRunner(live, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 8080).start()
    app.state.notifications = live[NOTIFICATIONS]
    yield
    await runner.cleanup()


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
async def create(order: dict[str, object]) -> dict[str, str]:
    position = await app.state.notifications.send_notification(order, topic="orders", type="order.created")
    return {"id": str(position)}
