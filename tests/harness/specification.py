"""The client-server API of the specification as a judge of responses, and the server-server API of requests too.

Finds the operation of a request by its method and path, and validates status and body against the operation's schema
(OpenAPI 3.1, that is JSON Schema 2020-12) with the specification's own `mx-` formats. `$ref` is relative to the file
that it stands in. Nothing here talks to a server.
"""

import collections
import functools
import pathlib
import re
import urllib.parse

import jsonschema
import referencing
import referencing.jsonschema
import yaml

ROOT = pathlib.Path(__file__).parent.parent / "spec" / "data"
API = ROOT / "api" / "client-server"
SERVERS = ROOT / "api" / "server-server"
EVENTS = ROOT / "event-schemas" / "schema"
METHODS = ("get", "put", "post", "delete")
# Older names under which clients ask for what the specification has under one version today.
PREFIXES = [
    (re.compile(r"^/_matrix/(client|federation)/unstable/org\.matrix\.msc2946(?=/)"), r"/_matrix/\1/v1"),
    (re.compile(r"^/_matrix/client/(r0|unstable)(?=/)"), "/_matrix/client/v3"),
    (re.compile(r"^/_matrix/media/(r0|v1)(?=/(upload|download|thumbnail|config))"), "/_matrix/media/v3"),
]

SERVER_NAME = r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(:\d{1,5})?"
FORMATS = {
    "mx-user-id": rf"@[^:\0]*:{SERVER_NAME}",
    "mx-event-id": rf"\$([A-Za-z0-9_-]{{43}}|[A-Za-z0-9+/]{{43}}|[^:\0]+:{SERVER_NAME})",
    "mx-room-id": rf"!([A-Za-z0-9_-]{{43}}|[^:\0]+:{SERVER_NAME})",
    "mx-room-alias": rf"#[^:\0]+:{SERVER_NAME}",
    "mx-server-name": SERVER_NAME,
    "mx-mxc-uri": rf"mxc://{SERVER_NAME}/[A-Za-z0-9_-]+",
    "mx-unpadded-base64": r"[A-Za-z0-9+/]*",
    "mx-urlsafe-unpadded-base64": r"[A-Za-z0-9_-]*",
    "email": r"[^@\s]+@[^@\s]+",
}

formats = jsonschema.FormatChecker(formats=())
for _name, _pattern in FORMATS.items():
    formats.checks(_name)(
        lambda value, pattern=re.compile(_pattern): not isinstance(value, str) or bool(pattern.fullmatch(value))
    )


@formats.checks("uri")
def _is_uri(value):
    return not isinstance(value, str) or bool(urllib.parse.urlsplit(value).scheme)


@formats.checks("int64")
def _is_int64(value):
    return not isinstance(value, int) or -(2**63) <= value < 2**63


@functools.cache
def document(path):
    """A YAML file of the specification."""
    return yaml.load(pathlib.Path(path).read_text(), yaml.CSafeLoader)


def _retrieve(uri):
    contents = document(urllib.parse.unquote(urllib.parse.urlsplit(uri).path))
    return referencing.Resource(contents=contents, specification=referencing.jsonschema.DRAFT202012)


def _pattern_properties(validator, patterns, instance, schema):
    """`patternProperties`, with the specification's `x-pattern-format` for the names that match."""
    yield from jsonschema.Draft202012Validator.VALIDATORS["patternProperties"](validator, patterns, instance, schema)
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        wanted = subschema.get("x-pattern-format")
        for name in instance:
            if wanted and re.search(pattern, name) and not formats.conforms(name, wanted):
                yield jsonschema.ValidationError(f"{name!r} is not a {wanted}")


_registry = referencing.Registry(retrieve=_retrieve)
# "The content or the whole event" is written as `oneOf`, though a whole event fits both: it is read as `anyOf`.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"patternProperties": _pattern_properties, "oneOf": jsonschema.Draft202012Validator.VALIDATORS["anyOf"]},
)


@functools.cache
def _validator(uri):
    return _Validator({"$ref": uri}, registry=_registry, format_checker=formats)


def _uri(path, *pointer):
    fragment = "/".join(part.replace("~", "~0").replace("/", "~1") for part in pointer)
    return path.as_uri() + "#/" + urllib.parse.quote(fragment, safe="/~") if pointer else path.as_uri()


class Operation:
    """One method on one path: what the specification says of its answers."""

    def __init__(self, file, template, method, path):
        self.file, self.template, self.method, self.path = file, template, method, path
        self.id = self.definition["operationId"]
        parts = re.split(r"(\{[^}]+\})", path)
        self.regex = re.compile("".join("[^/]*" if p.startswith("{") else re.escape(p) for p in parts))
        # The fewer variable parts, the more exact: `/keys/{version}` must not hide `/keys/version`.
        self.order = (sum(p.startswith("{") for p in parts), -len(path))

    @property
    def definition(self):
        return document(str(self.file))["paths"][self.template][self.method]

    def request_uri(self):
        """Where the schema of the request's body is; None where it has none."""
        content = self.definition.get("requestBody", {}).get("content", {}).get("application/json", {})
        at = ("paths", self.template, self.method, "requestBody", "content", "application/json", "schema")
        return _uri(self.file, *at) if "schema" in content else None

    def schema_uri(self, status):
        """Where the schema of a JSON answer with this status is; None where the specification has none."""
        content = self.definition["responses"].get(str(status), {}).get("content", {}).get("application/json", {})
        if "schema" not in content:
            return None
        at = ("paths", self.template, self.method, "responses", str(status), "content", "application/json", "schema")
        return _uri(self.file, *at)


@functools.cache
def operations(api=API):
    """All operations of the client-server API, or of another one."""
    found = []
    for file in sorted(api.glob("*.yaml")):
        base = document(str(file))["servers"][0]["variables"]["basePath"]["default"]
        for template, methods in document(str(file))["paths"].items():
            for method in METHODS:
                if method in methods:
                    found.append(Operation(file, template, method, base.rstrip("/") + template))
    return sorted(found, key=lambda operation: operation.order)


@functools.cache
def find(method, path):
    """The operation that serves a request; None where the specification has none."""
    path = urllib.parse.urlsplit(path).path
    for old, new in PREFIXES:
        path = old.sub(new, path)
    between = ("/_matrix/federation/", "/_matrix/key/", "/_matrix/policy/", "/.well-known/matrix/server")
    is_between_servers = path.startswith(between)
    for operation in operations(SERVERS if is_between_servers else API):
        if operation.method == method.lower() and operation.regex.fullmatch(path):
            return operation
    return None


# The statuses that each operation has answered with in this run.
answered = collections.defaultdict(set)


def note_answer(method, path, status):
    """Remembers that a request was answered so, for whoever asks at the end what was never asked."""
    operation = find(method, path)
    if operation:
        answered[operation].add(status)


# Where servers sign each other's events, the schemas ask for an `origin`, which the format of events does not have any more
# ("Room versions", "Event format") and which Synapse does not send either.
EVENTS_WITHOUT_ORIGIN = {
    "sendJoinV1", "sendJoinV2", "sendLeaveV1", "sendLeaveV2", "sendKnock", "sendInviteV1", "sendInviteV2",
    "makeJoin", "makeLeave", "makeKnock",
}


def faults(uri, instance, operation=None):
    """What is wrong with a value by the schema at `uri`, as readable lines."""
    return [
        f"{'/'.join(str(part) for part in error.absolute_path) or '(whole)'}: {error.message[:300]}"
        for error in _validator(uri).iter_errors(instance)
        if not (operation in EVENTS_WITHOUT_ORIGIN and error.message == "'origin' is a required property")
    ]


def response_faults(method, path, status, body):
    """What is wrong with a JSON answer. An error need not be listed for its operation, but must have the standard
    form; only user-interactive authentication answers 401 with another one."""
    operation = find(method, path)
    uri = operation.schema_uri(status) if operation else None
    found = faults(uri, body, operation.id) if uri else []
    if operation and status == 200 and "200" not in operation.definition["responses"]:
        found.append(f"{operation.id} has no answer with status 200")
    if status >= 400 and not (status == 401 and isinstance(body, dict) and "flows" in body):
        found += faults(_uri(API / "definitions" / "errors" / "error.yaml"), body)
        if isinstance(body, dict) and not body.get("error"):
            found.append("an error without a sentence that explains it")
    return found


# Of servers that know no later version. The specification describes them no more, but its access lists still name them.
OLDER = re.compile(r"/_matrix/federation/v1/send_(join|leave)/[^/]+/[^/]+")


def request_faults(method, target, body):
    """What is wrong with a request that one server makes to another: parameters, body, and what transactions are made of."""
    operation = find(method, target)
    if not operation and method == "PUT" and OLDER.fullmatch(urllib.parse.urlsplit(target).path):
        return pdu_faults(body)
    if not operation:
        return [f"the specification has no {method} {target}"]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(target).query, keep_blank_values=True)
    parameters = [row for row in operation.definition.get("parameters", []) if row.get("in") == "query"]
    found = [f"{row['name']} is missing" for row in parameters if row.get("required") and row["name"] not in query]
    uri = operation.request_uri()
    if uri is None:
        return found + (["a body where there is none"] if body is not None else [])
    found += faults(uri, body, operation.id)
    if operation.id == "sendTransaction":
        for pdu in body.get("pdus", []):
            found += pdu_faults(pdu)
        for edu in body.get("edus", []):
            file = SERVERS / "definitions" / "event-schemas" / f"{edu['edu_type']}.yaml"
            found += faults(_uri(file), edu) if file.exists() else [f"there is no {edu['edu_type']}"]
    return found


def is_signed(method, target):
    """Whether another server must sign that request. What the specification does not describe is asked of servers in rooms."""
    operation = find(method, target)
    return not operation or any("signedRequest" in row for row in operation.definition.get("security", []))


def pdu_faults(pdu):
    """What is wrong with an event as servers send it, by the schema of its room version or of one that is alike."""
    is_v1 = any(isinstance(prev, list) for prev in pdu["prev_events"])
    is_v12 = ":" not in pdu.get("room_id", "")
    version = "v1" if is_v1 else "v12" if is_v12 else "v11"
    return faults(_uri(SERVERS / "definitions" / f"pdu_{version}.yaml"), pdu)


def event_faults(event):
    """What is wrong with an event of a type that the specification knows, by that type's schema."""
    file = EVENTS / f"{event.get('type')}.yaml"
    return faults(_uri(file), event) if file.exists() else []
