"""Django: its login, its transactions, its logout; a browser hears what a view publishes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.frameworks.conftest import REMEMBER, SERVERS, Visitor, outlived, prepare
from tests.frameworks.guide import ROOT, Guide, is_server
from tests.proxy import program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

FRAMEWORK = "django"
PASSWORD = "correct-horse"
ADD_BOB = (
    ". ./secrets.sh && .venv/bin/python manage.py shell -c "
    f"\"from django.contrib.auth.models import User; User.objects.create_user('bob', password='{PASSWORD}')\""
)


async def logged_in(page: Page, url: str, user: str = "ada") -> Page:
    """Log in on *page*, and wait until its stream is open."""
    await page.goto(url)
    await page.fill("[name=username]", user)
    await page.fill("[name=password]", PASSWORD)
    await page.click("text=Log in")
    await expect(page.locator("#state")).to_have_text("open")
    return page


async def order(page: Page, amount: str) -> int:
    """Order for *amount*, and return the status of the answer."""
    await page.fill("[name=amount]", amount)
    async with page.expect_response("**/orders/") as answer:
        await page.click("text=Order")
    return (await answer.value).status


async def test_a_browser_hears_what_a_view_publishes_and_nothing_that_is_rolled_back(
    site: Guide, visitor: Visitor
) -> None:
    ada = await logged_in(await visitor(), site.url)
    another = await ada.context.new_page()
    await another.goto(site.url)
    await expect(another.locator("#state")).to_have_text("open")
    assert [await order(ada, amount) for amount in ("10.00", "5000.00", "20.00")] == [201, 403, 201]
    for page in (ada, another):
        heard = page.locator("#heard li").filter(has_text=re.compile("^order"))
        # What was rolled back would stand between the two; the database gave its number to the next one.
        await expect(heard).to_have_text([re.compile(r"order \d+: 10\.00"), re.compile(r"order \d+: 20\.00")])
    await expect(ada.get_by_text("not ordered: 403")).to_be_visible()


async def test_a_user_hears_what_is_for_this_user_and_a_logout_ends_the_streams_of_all_tabs(
    site: Guide, visitor: Visitor
) -> None:
    site.run(ADD_BOB)
    ada = await logged_in(await visitor(), site.url)
    bob = await logged_in(await visitor(), site.url, "bob")
    await ada.evaluate(
        """() => fetch("/greet/2/", {
            method: "POST", headers: { "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value },
        })"""
    )
    await expect(bob.locator("#heard li")).to_have_text(["ada greets you"])
    await order(bob, "30.00")
    await expect(ada.locator("#heard li")).to_have_text([re.compile("30")])

    other_tab = await ada.context.new_page()
    await other_tab.goto(site.url)
    await expect(other_tab.locator("#state")).to_have_text("open")
    await ada.click("text=Log out")
    await expect(other_tab.locator("#state")).to_have_text("revoked")
    assert await bob.locator("#state").text_content() == "open"
    cookies = {cookie["name"] for cookie in await ada.context.cookies()}
    assert "hub_token" not in cookies


async def test_who_is_not_logged_in_is_refused_by_the_hub(site: Guide, visitor: Visitor) -> None:
    page = await visitor()
    await page.goto(f"{site.url}/login/")
    assert await page.evaluate("fetch('/notifications/subscribe?topic=orders').then(({ status }) => status)") == 401
    publish = "fetch('/notifications/publish', { method: 'POST', body: '{}' }).then(({ status }) => status)"
    assert await page.evaluate(publish) == 401


async def test_a_page_outlives_its_token_and_gets_what_it_has_missed(tmp_path: Path, visitor: Visitor) -> None:
    program("nginx")
    guide = Guide("django", tmp_path)
    try:
        prepare(guide)
        live = tmp_path / "orders" / "live.py"
        text = live.read_text(encoding="utf-8")
        assert "SECONDS = 900" in text
        live.write_text(text.replace("SECONDS = 900", "SECONDS = 12"), encoding="utf-8")
        for each in SERVERS["django"]:
            guide.serve(each)
        page = await visitor()
        await page.add_init_script(REMEMBER)
        await logged_in(page, guide.url)
        await outlived(page, lambda: order(page, "40.00"))
        await expect(page.locator("#heard li")).to_have_text([re.compile("40")])
    finally:
        guide.close()


@pytest.mark.torture
@pytest.mark.timeout(900)
async def test_who_follows_the_guide_word_for_word_from_an_empty_folder_hears_a_view(
    folder: Path, tmp_path: Path, visitor: Visitor
) -> None:
    """Word for word but for the ports, and the folder of the project."""
    program("nginx")
    project = tmp_path / "broadcast-hub"
    project.mkdir()
    shutil.copytree(ROOT / "hub", project / "hub", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    guide = Guide("django", folder)
    try:
        for terminal in guide.terminals:
            if any("migrate" in each for each in terminal):
                guide.write()  # all that the page shows before that
            if is_server(terminal[-1]):
                guide.serve(*terminal)
            else:
                guide.run(*terminal, project=project)
        ada = await logged_in(await visitor(), guide.url)
        assert await order(ada, "99.50") == 201
        await expect(ada.locator("#heard li")).to_have_text(["order 1: 99.50"])
    finally:
        guide.close()
