"""POST /score: from a body to an answer, by way of everything that stands between."""

import time
from functools import partial

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from starlette.responses import Response
from starlette.types import Receive

from service import schema
from service.connection import read_body, while_connected
from service.errors import DeadlineExceeded, Overloaded, RequestError
from service.explain import Explanation
from service.life import Service
from service.middleware import CALL, Answer, Call
from service.novelty import Novelty
from service.scorer import Scored
from service.shadow import Copy
from service.shedding import Gate
from service.tokens import Tokens

_TIMED = ("parse", "queue", "pack", "infer", "total")
_TIMING = ", ".join(f"{stage};dur=%r" for stage in _TIMED)


class Scoring:
    """POST /score.

    Args:
        service: what scores.
        gate: refuses what an overloaded server should not read.
        tokens: one of which a request must bring; None: anybody may score.
    """

    def __init__(self, service: Service, gate: Gate, tokens: Tokens | None) -> None:
        self._service = service
        self._gate = gate
        self.tokens = tokens
        self.limits = schema.Limits(service.settings.max_candidates, service.settings.max_history)
        self._novelty = Novelty(service.metrics.ids)
        self.catalog = service.catalog is not None

    async def respond(self, call: Call, receive: Receive) -> Answer:
        """Make the answer to one request.

        Raises:
            RequestError: it gets another answer.
            ClientDisconnect: nobody waits for it any more.
        """
        metrics = self._service.metrics
        metrics.here += 1
        try:
            return await self._score(call, receive)
        except Overloaded as error:
            metrics.shed(error.reason)
            raise
        finally:
            metrics.here -= 1

    async def _score(self, call: Call, receive: Receive) -> Answer:
        service = self._service
        if self.tokens is not None:
            self.tokens.check(call.headers)
        call.check_json()
        served = service.serving(call.request_id)
        deadline = call.deadline(service.settings.deadline_ms)
        if not call.let_in:
            self._gate.check(call.headers, deadline)
        call.reading = True
        body = await read_body(receive, deadline, call.arrived + service.settings.body_timeout_s)
        call.reading = False
        read_at = time.monotonic()
        if read_at >= deadline:
            raise DeadlineExceeded("the deadline passed before the request was parsed")
        catalog = None if service.catalog is None else service.catalog.current
        query = schema.decode(body, served.manifest, self.limits, catalog)
        self._gate.learn(query.sample.rows, len(body))
        call.shape = (query.sample.rows, *query.lengths)
        if query.truncated or query.empty:
            service.metrics.history(truncated=query.truncated, empty=query.empty)
        if query.unknown:
            service.metrics.unknown_ids(query.unknown)
        parsed_at = time.monotonic()
        if call.notes is not None:
            call.notes.parsed(query.sample, served.version, read_at, parsed_at)
        shadow = service.registry.shadow_of(call.request_id, served)
        if shadow is None:
            body = b""  # or else all bodies that wait would lie between what is worked on
        explanation = None
        if query.explain:
            most = service.settings.max_explained
            explaining = service.scorer.explain(served, query.sample, deadline, query.top_k, most)
            scored, explanation = await while_connected(receive, explaining, call.leaving)
        else:
            scoring = service.scorer.score(served, query.sample, deadline)
            scored = await while_connected(receive, scoring, call.leaving)
        if shadow is not None:
            again = partial(schema.decode, body, shadow.manifest, self.limits, catalog)  # it may see it otherwise
            service.shadow.offer(Copy(shadow, lambda: again().sample, scored.probabilities))
        self._novelty.offer(served, query.sample, read_at)
        return self._answer(call, query, scored, explanation, parsed_at - read_at)

    def _answer(
        self, call: Call, query: schema.Query, scored: Scored, explanation: Explanation | None, parse_s: float
    ) -> Answer:
        scored_at = time.monotonic()
        durations_s = (parse_s, scored.queue_s, scored.pack_s, scored.infer_s)
        spent_us = [round(seconds * 1e6) for seconds in (*durations_s, scored_at - call.arrived)]
        latency_ms = {stage: us / 1000 for stage, us in zip(_TIMED, spent_us, strict=True)}
        content = schema.render(
            scored.probabilities,
            explanation,
            query.top_k,
            {"name": scored.model, "version": scored.version},
            call.request_id,
            latency_ms,
        )
        rendered_at = time.monotonic()
        if call.notes is not None:
            call.notes.answered(scored, scored_at, rendered_at)
        call.answered = (
            scored.version,
            self._service.role(scored.version),
            scored_at - call.arrived,
            (*durations_s, rendered_at - scored_at),
            scored.probabilities,
        )
        call.code = "ok"
        return Answer(200, content, [(b"server-timing", (_TIMING % tuple(latency_ms.values())).encode())])


def add_route(app: FastAPI, scoring: Scoring, status: dict[type[RequestError], int]) -> None:
    """Document POST /score, and answer it under the paths that `Edge` does not know, as below a root path.

    Args:
        app: the server.
        scoring: makes the answers.
        status: of each error.
    """
    bearer = HTTPBearer(scheme_name="score_token", auto_error=False)  # for the document: `scoring` asks for it

    @app.post(
        "/score",
        summary="Score candidates",
        dependencies=[Depends(bearer)] if scoring.tokens else [],
        response_model=schema.ScoreResponse,
        responses={
            200: {"content": {"application/json": {"example": schema.RESPONSE_EXAMPLE}}},
            **schema.error_responses(status),
        },
        openapi_extra=schema.score_request(scoring.limits, catalog=scoring.catalog),
    )
    async def score(request: Request) -> Response:
        """Answer the click probability of each candidate, given one user's history."""
        return await scoring.respond(request.scope[CALL], request.receive)
