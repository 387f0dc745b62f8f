"""GET /catalog, for whoever picks items by name. It exists only where a catalog is configured."""

import asyncio

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from starlette.responses import Response

from service import errors, schema
from service.catalog import Catalog, Item
from service.catalog_file import CatalogFile
from service.errors import NotReady, RequestError
from service.middleware import CALL, Answer, Call
from service.tokens import Tokens

_INLINE_ITEMS = 2000  # searched on the event loop, 0.2 ms; more in a thread
_REFUSALS = (
    errors.Unauthorized,
    errors.RequestTimeout,
    errors.InvalidRequest,
    errors.HeadersTooLarge,  # a thousand ids may be
    errors.Internal,
    errors.NotReady,
)


def add_route(app: FastAPI, file: CatalogFile, tokens: Tokens | None, status: dict[type[RequestError], int]) -> None:
    """Add the route.

    Args:
        app: the server.
        file: has the catalog.
        tokens: one of which a request must bring; None: anybody may search.
        status: of each error.
    """
    bearer = HTTPBearer(scheme_name="score_token", auto_error=False)
    searching = asyncio.Lock()  # one at a time: scoring has the other cores

    async def search(catalog: Catalog, asked: schema.Search) -> list[Item]:
        if asked.ids is not None:
            return catalog.find(asked.ids)
        if len(catalog) <= _INLINE_ITEMS:
            return catalog.search(asked.text, asked.limit)
        async with searching:
            return await asyncio.to_thread(catalog.search, asked.text, asked.limit)

    @app.get(
        "/catalog",
        dependencies=[Depends(bearer)] if tokens else [],
        response_model=schema.CatalogResponse,
        responses={
            200: {"content": {"application/json": {"example": schema.CATALOG_EXAMPLE}}},
            **schema.error_responses({kind: number for kind, number in status.items() if kind in _REFUSALS}),
        },
        openapi_extra=schema.search_request(),
    )
    async def catalog(request: Request) -> Response:
        """Items by a part of their title, or by id.

        A query finds first the one whose id it is, then titles that begin so, then those where a word does.
        """
        call: Call = request.scope[CALL]
        if tokens is not None:
            tokens.check(call.headers)
        current = file.current
        if current is None:
            raise NotReady("the catalog is not read yet")
        asked = schema.decode_search(request.query_params.multi_items(), current.dtypes[0])
        return Answer(200, schema.render_items(await search(current, asked), len(current)))
