"""What schemathesis is told beyond the OpenAPI document: whose tokens to send, which identifiers exist, and what an
honest failure looks like. `tests/src/attack/fuzz.rs` writes the files this reads and reads the one it writes."""

import atexit
import json
import os
import random
from collections import Counter
from pathlib import Path

import schemathesis
from urllib3.connection import HTTPConnection

FOLDER = Path(os.environ["VORCA_FUZZ_FOLDER"])
TOKENS = json.loads((FOLDER / "tokens.json").read_text())
KNOWN = json.loads((FOLDER / "known.json").read_text())
# These end the session that asks, so they are asked with one that nothing else needs.
ENDS_SESSIONS = ("/auth/logout", "/auth/sessions/", "/auth/password", "/auth/second-factor", "/auth/step-up")
# What a till does; the rest is asked by turns.
OF_TILLS = ("/sales", "/quotes", "/auth/pin", "/changes")

answers = Counter()
chance = random.Random(int(os.environ["VORCA_FUZZ_SEED"]))
turn = 0


def connect_from_anywhere(connection, plain=HTTPConnection._new_conn):
    """A new address for each connection: what one is locked out for, the next is not."""
    connection.source_address = (f"127.{chance.randint(1, 254)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}", 0)
    return plain(connection)


HTTPConnection._new_conn = connect_from_anywhere


def token_for(method, path):
    global turn
    turn += 1
    if path.startswith(ENDS_SESSIONS):
        return TOKENS["spare"]
    is_till = method == "POST" and path.startswith(OF_TILLS) or turn % 4 == 0
    return TOKENS["till" if is_till else "owner"]


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path.removeprefix("/api/v1")
    headers = dict(case.headers or {})
    headers["Authorization"] = f"Bearer {token_for(case.operation.method.upper(), path)}"
    # One request a connection, so that each comes from another address.
    headers["Connection"] = "close"
    if chance.random() < 0.7:
        for name in [name for name in headers if name.lower() == "if-match"]:
            headers[name] = '"1"'
    case.headers = headers


@schemathesis.hook
def after_call(context, case, response):
    answers[str(response.status_code)] += 1


def known(name, value):
    """Mostly an identifier that exists where one belongs, so that requests get beyond the look-up."""
    if name in KNOWN and isinstance(value, str) and chance.random() < 0.7:
        return chance.choice(KNOWN[name])
    return value


def with_known(value, name=""):
    if isinstance(value, dict):
        return {key: with_known(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [with_known(member, name) for member in value]
    return known(name, value)


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return with_known(path_parameters) if path_parameters else path_parameters


@schemathesis.hook
def map_query(context, query):
    return with_known(query) if query else query


@schemathesis.hook
def map_body(context, body):
    return with_known(body)


@schemathesis.check
def no_bug_of_ours(context, response, case):
    status = response.status_code
    is_honest = status == 503 and "retry-after" in {name.lower() for name in response.headers}
    assert status < 500 or is_honest, f"{status}: {response.text[:500]}"


@schemathesis.check
def refusals_have_their_form(context, response, case):
    if response.status_code >= 400:
        problem = response.json()
        assert problem["status"] == response.status_code and problem["code"] and problem["request_id"], response.text


@atexit.register
def note():
    (FOLDER / "answers.json").write_text(json.dumps(answers))
