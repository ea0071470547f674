"""What can go wrong with a whole request, as RFC 9457 problem details; what is wrong with rows, verdicts say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

__all__ = ["PROBLEMS", "PROBLEM_JSON", "Problem", "ProblemBody", "ProblemKind"]

PROBLEM_JSON: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A kind of problem: its status, and its title in English and Chinese."""

    name: str
    status: int
    title: str
    title_zh: str

    @property
    def type(self) -> str:
        """The problem's type URI."""
        return f"urn:tocsin:problem:{self.name}"


_KINDS: Final = (
    ProblemKind("malformed-body", 400, "The body cannot be read", "无法读取上传内容"),
    ProblemKind("malformed-request", 400, "The request makes no sense", "请求有误"),
    ProblemKind("no-token", 401, "A valid token is needed", "需要有效的令牌"),
    ProblemKind("not-allowed", 403, "The token is not for this", "该令牌无此权限"),
    ProblemKind("other-site", 403, "The request comes from another site", "请求来自其他网站"),
    ProblemKind("not-found", 404, "There is nothing here", "此处没有内容"),
    ProblemKind("wrong-method", 405, "The method is not for this address", "此地址不支持该方法"),
    ProblemKind("too-slow", 408, "The body came too slowly", "上传过慢"),
    ProblemKind("too-large", 413, "The upload is too large", "上传内容过大"),
    ProblemKind("wrong-type", 415, "The content type is not taken", "不支持的内容类型"),
    ProblemKind("all-refused", 422, "No row was accepted", "没有任何一行被接受"),
    ProblemKind("too-many-requests", 429, "Too many requests", "请求过于频繁"),
    ProblemKind("internal-error", 500, "Something is broken here", "服务器内部错误"),
    ProblemKind("busy", 503, "Too many uploads at once", "同时上传过多"),
    ProblemKind("tokens-unavailable", 503, "The tokens cannot be read", "暂时无法读取令牌"),
    ProblemKind("log-unavailable", 503, "The log cannot be written", "暂时无法写入日志"),
)
PROBLEMS: Final[dict[str, ProblemKind]] = {kind.name: kind for kind in _KINDS}
"""Every kind of problem by its name."""


class ProblemBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Problem details (RFC 9457): what is wrong with the request as a whole, and how to mend it.

    ``instance`` names the request, as does the header X-Request-Id.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Problem(Exception):
    """A request that is answered with a problem.

    Parameters
    ----------
    name
        A name of :data:`PROBLEMS`.
    detail
        What was found, and how to mend it.
    headers
        More headers of the answer.
    """

    def __init__(self, name: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{name}: {detail}")
        self.kind = PROBLEMS[name]
        self.detail = detail
        self.headers = headers or {}

    def body(self, request_id: str) -> ProblemBody:
        """The answer's body."""
        kind = self.kind
        return ProblemBody(
            type=kind.type,
            title=kind.title,
            status=kind.status,
            detail=self.detail,
            instance=f"urn:tocsin:request:{request_id}",
        )
