"""Orders, and the SMS that belong to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, abort, render_template, request

from flask_communication import SMS
from flask_communication.errors import InvalidMessage

from .models import Order, db
from .people import current_user

blueprint = Blueprint("orders", __name__)


@blueprint.get("/")
def index() -> str:
    """Show the customer's orders."""
    mine = db.select(Order).filter_by(user_id=current_user().id).order_by(Order.id.desc())
    return render_template("orders.html", orders=db.session.scalars(mine))


@blueprint.post("/orders")
def create() -> Any:
    """Save an order and its SMS in one transaction: both, or neither."""
    user, item = current_user(), request.form.get("item", "").strip()
    if not item:
        abort(400, "what would you like to order?")
    order = Order(user_id=user.id, item=item)
    db.session.add(order)
    db.session.flush()
    if user.phone:
        try:
            order.sms_uuid = SMS.send_msg(
                destination=user.phone,
                msg=f"Thank you for order {order.id}: {item}",
                session=db.session,
            )
        except InvalidMessage as wrong:
            db.session.rollback()
            abort(400, str(wrong))
    reserve(item)
    db.session.commit()
    return {"order": order.id, "sms": order.sms_uuid}, 201


def reserve(item: str) -> None:
    """Take the item from the shelf; what is sold out ends the request, and with it the SMS."""
    if item == "unicorn":
        db.session.rollback()
        abort(409, "sold out")


def mark_notified(sender: Any, message_uuid: str, **extra: Any) -> None:
    """Remember that an order's SMS was delivered; runs in the worker, in an application context."""
    order = db.session.scalar(db.select(Order).filter_by(sms_uuid=message_uuid))
    if order is not None and order.notified_at is None:
        order.notified_at = datetime.now(UTC).replace(tzinfo=None)
        db.session.commit()
