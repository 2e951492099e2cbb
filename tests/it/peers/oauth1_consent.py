"""An OAuth 1.0a provider with all three legs, on oauthlib. A person says yes by visiting /authorize, and no by visiting it
with `no=1`. Whatever has a good signature with a token that was given is 200.

Usage: oauth1_consent.py PORT
"""

import json
import secrets
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from oauthlib.oauth1 import AccessTokenEndpoint, AuthorizationEndpoint, RequestTokenEndpoint, RequestValidator, ResourceEndpoint

PORT = int(sys.argv[1])
CONSUMER, CONSUMER_SECRET = "consumer", "c&s e/cret"
REQUESTS, TOKENS, SEEN, ASKED = {}, {}, set(), []


class Validator(RequestValidator):
    enforce_ssl = False
    dummy_client = dummy_request_token = dummy_access_token = "dummy"
    client_key_length = nonce_length = request_token_length = access_token_length = verifier_length = (1, 100)
    safe_characters = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    allowed_signature_methods = ("HMAC-SHA1", "HMAC-SHA256", "PLAINTEXT")
    realms = []

    def get_default_realms(self, client, request):
        return []

    def get_realms(self, token, request):
        return []

    def validate_requested_realms(self, client, realms, request):
        return True

    def validate_realms(self, client, token, request, uri=None, realms=None):
        return True

    def verify_realms(self, token, realms, request):
        return True

    def validate_client_key(self, key, request):
        return key == CONSUMER

    def get_client_secret(self, client, request):
        return CONSUMER_SECRET

    def validate_timestamp_and_nonce(self, client, timestamp, nonce, request, request_token=None, access_token=None):
        fresh = (timestamp, nonce) not in SEEN
        SEEN.add((timestamp, nonce))
        return fresh

    def validate_redirect_uri(self, client, uri, request):
        return uri.startswith("http://127.0.0.1:")

    def save_request_token(self, token, request):
        ASKED.append(dict(urllib.parse.parse_qsl(request.body)) if isinstance(request.body, str) else dict(request.decoded_body or []))
        REQUESTS[token["oauth_token"]] = {"secret": token["oauth_token_secret"], "callback": request.redirect_uri, "verifier": None}

    def get_redirect_uri(self, token, request):
        return REQUESTS[token]["callback"]

    def verify_request_token(self, token, request):
        return token in REQUESTS

    def save_verifier(self, token, verifier, request):
        REQUESTS[token]["verifier"] = verifier["oauth_verifier"]

    def validate_request_token(self, client, token, request):
        return token in REQUESTS

    def get_request_token_secret(self, client, token, request):
        return REQUESTS.get(token, {}).get("secret", "dummy")

    def validate_verifier(self, client, token, verifier, request):
        return REQUESTS.get(token, {}).get("verifier") == verifier

    def invalidate_request_token(self, client, token, request):
        REQUESTS.pop(token, None)

    def save_access_token(self, token, request):
        TOKENS[token["oauth_token"]] = token["oauth_token_secret"]

    def validate_access_token(self, client, token, request):
        return token in TOKENS

    def get_access_token_secret(self, client, token, request):
        return TOKENS.get(token, "dummy")


def minted(*_):
    return secrets.token_hex(12)


VALIDATOR = Validator()
REQUEST = RequestTokenEndpoint(VALIDATOR, token_generator=minted)
AUTHORIZE = AuthorizationEndpoint(VALIDATOR, token_generator=minted)
ACCESS = AccessTokenEndpoint(VALIDATOR, token_generator=minted)
RESOURCE = ResourceEndpoint(VALIDATOR)


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        headers = {name.title(): value for name, value in self.headers.items()}
        url = f"http://{self.headers['Host']}{self.path}"
        path, query = urllib.parse.urlsplit(self.path).path, dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        location, text, status = None, "", 404
        try:
            if path == "/request":
                _, text, status = REQUEST.create_request_token_response(url, "POST", body, headers)
            elif path == "/access":
                _, text, status = ACCESS.create_access_token_response(url, "POST", body, headers)
            elif path == "/authorize" and query.get("no"):
                callback = REQUESTS[query["oauth_token"]]["callback"]
                location, status = f"{callback}&denied={query['oauth_token']}", 302
            elif path == "/authorize":
                found, text, status = AUTHORIZE.create_authorization_response(url, "GET", "", {}, [])
                location = found.get("Location")
            elif path == "/asked":
                text, status = json.dumps([str(one) for one in ASKED]), 200
            else:
                good, _ = RESOURCE.validate_protected_resource_request(url, self.command, body, headers, [])
                status = 200 if good else 401
        except Exception as error:
            print(repr(error), file=sys.stderr)
            text, status = "error", 500
        data = (text or "").encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer


ThreadingHTTPServer(("127.0.0.1", PORT), Provider).serve_forever()
