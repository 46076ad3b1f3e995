# SPDX-License-Identifier: MIT
"""How pydantic, and so FastAPI, writes a ThrottleResult as JSON. Only pydantic makes this module load."""
from __future__ import annotations

from typing import Any

from pydantic_core import core_schema


def schema_of(kind: type[Any]) -> core_schema.CoreSchema:
    """The schema of a ThrottleResult: an instance, which is written as vars() of it."""
    text, number, seconds = core_schema.str_schema(), core_schema.int_schema(), core_schema.float_schema()
    fields: dict[str, core_schema.CoreSchema] = {
        "success": core_schema.bool_schema(),
        "level": number,
        "until_next_drop": seconds,
        "blocked_for": core_schema.nullable_schema(seconds),
        "retry_after": core_schema.nullable_schema(seconds),
        "source": core_schema.literal_schema(["store", "policy", "local", "memory", "lease"]),
        "error": core_schema.nullable_schema(text),
        "must_wait": seconds,
        "granted": number,
        "name": core_schema.nullable_schema(text),
        "part": number,
        "atomic": core_schema.bool_schema(),
    }
    in_parts = core_schema.literal_schema(["store", "policy", "local", "memory", "lease", "nowhere"])
    part = _object("ThrottleResultPart", {**fields, "source": in_parts})
    whole = _object("ThrottleResult", {**fields, "parts": core_schema.list_schema(part)})
    return core_schema.is_instance_schema(
        kind, serialization=core_schema.plain_serializer_function_ser_schema(vars, return_schema=whole)
    )


def _object(name: str, fields: dict[str, core_schema.CoreSchema]) -> core_schema.CoreSchema:
    return core_schema.typed_dict_schema(
        {field: core_schema.typed_dict_field(schema) for field, schema in fields.items()},
        cls_name=name,
        ref=f"aiosteady.{name}",  # the name of the schema in OpenAPI
    )
