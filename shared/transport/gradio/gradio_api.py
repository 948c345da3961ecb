"""An endpoint as a typed async generator for `gr.api`."""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic import BaseModel

from shared.errors import Cancelled, SuiteError
from shared.events import Done, Partial
from shared.serving.endpoint import Endpoint
from shared.transport.edge import Edge
from shared.transport.uploads import uploaded_fields, with_paths


def api_function(endpoint: Endpoint, edge: Edge) -> Any:
    """The endpoint as a typed async generator for `gr.api`: its parameters are the request model's fields.

    Yields the outputs so far and RunInfo, which is a status (`queued`, `loading`, `running`) until the end.
    """

    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        values = dict(zip(names, args, strict=False)) | kwargs
        request = values.pop("request", None)
        outputs: tuple[Any, ...] = (None,) * len(endpoint.returns)
        try:
            async for event in edge.events(endpoint, with_paths(values, uploads, edge.uploads), request):
                if isinstance(event, (Partial, Done)):
                    outputs = event.result.outputs()
                status = event.run.model_dump() if isinstance(event, Done) else event.as_json()
                yield (*outputs, status)
        except Cancelled:
            raise gr.Error("the request was cancelled", print_exception=False) from None
        except SuiteError as error:
            raise gr.Error(str(error), print_exception=False, title=type(error).__name__) from None

    uploads = uploaded_fields(endpoint.request)
    parameters, hints = [], {}
    for name, field in endpoint.request.model_fields.items():
        hints[name] = gr.FileData if name in uploads else json_type(field.annotation)
        default = inspect.Parameter.empty if field.is_required() else plain(field.default)
        parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    # A parameter without a default must not follow one with a default; only the first field has none.
    parameters.append(inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None))
    hints["request"] = gr.Request
    names = [parameter.name for parameter in parameters]
    returns = tuple[(*endpoint.returns.values(), dict)]
    signature = inspect.Signature(parameters, return_annotation=returns)
    call.__name__ = call.__qualname__ = endpoint.name
    call.__doc__ = endpoint.summary
    call.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    call.__annotations__ = {**hints, "return": returns}
    return call


def json_type(annotation: Any) -> Any:
    """The JSON type of a field for the API's schema: constraints dropped, models as objects, tuples as lists."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return json_type(get_args(annotation)[0])
    if origin is Literal or annotation in (str, int, float, bool):
        return annotation
    if origin in (Union, types.UnionType):
        return annotation
    if origin in (tuple, list):
        return list
    if origin is dict or (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
        return dict
    return annotation


def plain(default: Any) -> Any:
    """A field's default as JSON has it."""
    return list(default) if isinstance(default, tuple) else default
