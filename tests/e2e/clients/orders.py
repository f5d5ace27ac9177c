"""The objects that clients ask for: with integers, a UUID, and an object within the object."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field


class Customer(BaseModel):
    """Who ordered."""

    name: str = Field(max_length=10)
    zip_code: int = Field(ge=10000, le=99999)


class Order(BaseModel):
    """An order."""

    id: UUID
    quantity: int = Field(ge=1, le=9)
    customer: Customer
    size: Literal["small", "large"]


QUESTION = "Ann, zip code 75001, orders 3 small cups. The id is 123e4567-e89b-12d3-a456-426614174000."
CAPITAL = "What is the capital of France?"
RESULT = "The order has been recorded."
TOO_LONG = "word " * 9000
