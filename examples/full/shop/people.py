"""Who is logged in, and what that person may do."""

from __future__ import annotations

from typing import Any

import click
from flask import Blueprint, abort, g, redirect, render_template, request, session, url_for
from werkzeug.security import check_password_hash, generate_password_hash

from .models import User, db

blueprint = Blueprint("people", __name__, cli_group="user")

OPEN = {"people.login", "static"}
# The actions are listed in docs/rest.md; an admin may do all of them.
ACTIONS = {
    "operator": {
        "message.read",
        "message.retry",
        "message.cancel",
        "message.resolve",
        "config.read",
        "health.read",
    }
}
# Checked when there is no such user, so that the answer takes as long.
NOBODY = generate_password_hash("nobody")


def current_user() -> User | None:
    """Return who is logged in, if anybody."""
    if "user" not in g:
        number = session.get("user_id")
        g.user = None if number is None else db.session.get(User, number)
    return g.user


def may(action: str, resource: Any = None) -> bool:
    """Tell Flask-Communication whether the logged-in user may."""
    user = current_user()
    return user is not None and (user.role == "admin" or action in ACTIONS.get(user.role, ()))


def wall() -> Any:
    """Send everybody to the login page first, except where somebody else checks."""
    # Flask-Communication asks may() itself, and knows machines by their bearer tokens.
    if request.endpoint in OPEN or request.blueprint == "communication" or current_user():
        return None
    return redirect(url_for("people.login"))


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> Any:
    """Ask for name and password."""
    if request.method == "GET":
        return render_template("login.html", wrong=False)
    user = db.session.scalar(db.select(User).filter_by(name=request.form.get("name", "")))
    known = check_password_hash(user.password_hash if user else NOBODY, request.form.get("password", ""))
    if user is None or not known:
        return render_template("login.html", wrong=True), 401
    session.clear()
    session["user_id"] = user.id
    return redirect(url_for("orders.index"))


@blueprint.post("/logout")
def logout() -> Any:
    """Forget who is logged in."""
    session.clear()
    return redirect(url_for("people.login"))


def add(name: str, password: str, role: str = "customer", phone: str | None = None) -> User:
    """Store a user."""
    if role not in ("customer", "operator", "admin"):
        abort(400, "a role is customer, operator or admin")
    user = User(name=name, password_hash=generate_password_hash(password), role=role, phone=phone)
    db.session.add(user)
    db.session.commit()
    return user


@blueprint.cli.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["customer", "operator", "admin"]), default="customer")
@click.option("--phone", help="Where the SMS go, such as +15550100000.")
@click.password_option()
def add_user(name: str, role: str, phone: str | None, password: str) -> None:
    """Store a user; the password is asked for."""
    add(name, password, role, phone)
    click.echo(f"{role} {name} stored")
