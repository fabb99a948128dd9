"""Serve a trained model over HTTP: questions about clips, for a browser and for programs.

    framebank serve --model model                          one model, on this machine alone
    framebank serve --model registry --cache cache         the model in use of a registry, watched
    framebank serve --model registry --host 0.0.0.0 --token-file token

POST /v1/ask, /v1/classify, /v1/score, /v1/explain; KServe's protocol below /v2/; /healthz, /readyz,
/metrics, /openapi.json. Starts in some ten seconds, most of which are TensorFlow's and the
network's. SIGTERM or Ctrl-C end it after the requests that are under way, with status 0.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from framebank.features import terminal
from framebank.features.bounds import check_number
from framebank.features.errors import UsageError, needing
from framebank.train.serve.limits import Limits

if TYPE_CHECKING:
    from framebank.train.serve.gate import Gate

_say = functools.partial(terminal.say, who="serve")
_TOKEN_CHARACTERS = 16  # at least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="DIR|REGISTRY",
        help="what `framebank train` wrote, or the registry of `framebank retrain`")  # fmt: skip
    add("--cache", help="features whose videos may be asked about by their id")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add("--host", default="127.0.0.1",
        help="the address to listen at; one that others reach needs --token-file")  # fmt: skip
    add("--token-file", metavar="FILE", help="what a client has to know, on one line")
    add("--allow", action="append", default=[], metavar="ROOT",
        help="a folder or bucket whose clips requests may name; give it once for each")  # fmt: skip
    add("--name", metavar="NAME", help="of the model in answers and under /v2/models (default: the "
        "last part of --model)")  # fmt: skip
    add("--weights", metavar="PATH", help="where the network's weight file lies now, if it moved")
    limit, usual = parser.add_argument_group("limits").add_argument, Limits()
    limit("--max-upload", type=int, default=usual.upload_mib, metavar="MIB",
          help="of a clip, in MiB")  # fmt: skip
    limit("--max-clip", type=float, default=usual.clip_s, metavar="SECONDS",
          help="that a clip may last")  # fmt: skip
    limit("--max-questions", type=int, default=usual.questions, metavar="N", help="of one request")
    limit("--queue", type=int, default=usual.queue, metavar="N",
          help="requests under way; more get a 429")  # fmt: skip
    limit("--timeout", type=float, default=usual.timeout_s, metavar="SECONDS",
          help="of one request")  # fmt: skip
    limit("--rate", type=float, default=usual.rate, metavar="N",
          help="requests a second of one address")  # fmt: skip
    limit("--max-memory", type=int, default=usual.memory_mib, metavar="MIB",
          help="of this process, in MiB, beyond which requests get a 503; 0: four fifths of what "
          "there is")  # fmt: skip
    limit("--decoders", type=int, metavar="N",
          help="decoder processes (default: one a core, and memory for each)")  # fmt: skip
    limit("--drain", type=float, default=30.0, metavar="SECONDS",
          help="that requests under way have to end after SIGTERM")  # fmt: skip


def next_command(args: argparse.Namespace) -> str:
    return ""  # it lasts until somebody ends it


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Serve until a signal; return the exit status. Raises FramebankError."""
    with needing("serve", extra="serve"):
        import fastapi  # noqa: F401 - said before seconds of imports
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    token = _read_token(args)
    check_number("--port", args.port, 0, 65535)
    check_number("--drain", args.drain, 0, 86400)
    from framebank.train.serve import server

    with contextlib.closing(server.bound_socket(args.host, args.port)) as bound:
        address = server.address_of(bound)
        with _gate(args, token) as gate:

            def ready() -> None:
                _say(f"at {address} until Ctrl-C")

            server.serve(gate, bound, queue=args.queue, drain_s=args.drain, ready=ready)
    _say("ended")
    return 0


def _read_token(args: argparse.Namespace) -> str | None:
    """Return the token, None where none is needed; raises UsageError."""
    from framebank.train.serve.gate import is_loopback

    if args.token_file is None:
        if is_loopback(args.host):
            return None
        raise UsageError(
            f"--host {args.host} is reached by others, who could ask whatever they like",
            expected="--token-file FILE, with a token that clients have to know",
            todo="head -c 24 /dev/urandom | base64 > token; chmod 600 token",
        )
    try:
        token = Path(args.token_file).read_text().strip()
    except (OSError, UnicodeDecodeError) as err:
        got = getattr(err, "strerror", None) or err
        raise UsageError(f"cannot read --token-file {args.token_file}", got=got) from err
    if len(token) < _TOKEN_CHARACTERS or not token.isascii() or len(token.split()) != 1:
        raise UsageError(
            f"{args.token_file} holds no token",
            got=f"{len(token)} characters",
            expected=f"one word of {_TOKEN_CHARACTERS} plain characters at least",
            todo="head -c 24 /dev/urandom | base64 > token; chmod 600 token",
        )
    return token


@contextlib.contextmanager
def _gate(args: argparse.Namespace, token: str | None) -> Iterator[Gate]:
    """Yield the application behind its gate, with all that it needs running."""
    from framebank.features.decoders.pool import DecoderPolicy
    from framebank.features.decoding.container import DecodeLimits
    from framebank.features.machine import share_memory
    from framebank.features.stores.temporary import live_folder
    from framebank.train.serve import application
    from framebank.train.serve.asker import Asker
    from framebank.train.serve.asking import Service
    from framebank.train.serve.clips import CacheInUse, Decoding
    from framebank.train.serve.gate import Gate, own_hosts
    from framebank.train.serve.metrics import Metrics
    from framebank.train.serve.models import Models

    limits = _limits(args)
    metrics = Metrics()
    policy = DecoderPolicy(
        decoders=args.decoders,
        timeout_s=min(30.0, limits.timeout_s),
        limits=DecodeLimits(max_size_bytes=limits.upload_bytes, max_duration_s=limits.clip_s),
    )
    with contextlib.ExitStack() as opened:
        cache = None
        if args.cache:
            cache = opened.enter_context(contextlib.closing(CacheInUse(args.cache)))
        folder = opened.enter_context(live_folder())
        asker = opened.enter_context(contextlib.closing(Asker(metrics.questions.observe)))
        models = opened.enter_context(
            contextlib.closing(
                Models(args.model, policy, metrics, name=args.name, weights=args.weights, say=_say)
            )
        )
        with terminal.waiting("loading the model and the network"):
            model = models.load()
        if model.lineage.random_weights:
            spec = model.lineage.spec
            _say(f"the network has RANDOM weights ({spec.weights}): answers mean little")
        _say(f"{model.name} {model.version}".rstrip() + f", {model.lineage.spec.backbone}")
        decoding = Decoding(share_memory(args.decoders).decoders + 2)
        service = Service(limits, folder, asker, decoding, cache, tuple(args.allow))
        app = application.make_application(service, models, metrics)
        gate = Gate(app, limits, metrics, token=token, hosts=own_hosts(args.host))
        application.add_probes(app, gate)
        yield gate


def _limits(args: argparse.Namespace) -> Limits:
    return Limits(
        upload_mib=args.max_upload,
        clip_s=args.max_clip,
        questions=args.max_questions,
        queue=args.queue,
        timeout_s=args.timeout,
        rate=args.rate,
        memory_mib=args.max_memory,
    )
