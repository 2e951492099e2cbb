"""An OAuth 1.0a provider on oauthlib or on authlib: 200 for a request whose signature holds, 401 for any other.

Usage: oauth1_provider.py PORT LIBRARY [PUBLIC_KEY_FILE]
"""

import base64
import hashlib
import json
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, LIBRARY = int(sys.argv[1]), sys.argv[2]
RSA_KEY = open(sys.argv[3]).read() if len(sys.argv) > 3 else None
CONSUMER, CONSUMER_SECRET = "consumer", "c&s e/cret"
TOKEN, TOKEN_SECRET = "token", "t+s%cret"
SEEN = set()


def oauthlib_judge():
    from oauthlib.oauth1 import RequestValidator, ResourceEndpoint, SignatureOnlyEndpoint

    class Validator(RequestValidator):
        enforce_ssl = False
        dummy_client = "dummy"
        dummy_access_token = "dummy"
        allowed_signature_methods = ("HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "RSA-SHA256", "PLAINTEXT")

        def check_client_key(self, key):
            return True

        def check_access_token(self, key):
            return True

        def check_nonce(self, nonce):
            return len(nonce) == 32

        def validate_timestamp_and_nonce(self, client, timestamp, nonce, request, request_token=None, access_token=None):
            if (timestamp, nonce) in SEEN:
                return False
            SEEN.add((timestamp, nonce))
            return True

        def validate_client_key(self, key, request):
            return key == CONSUMER

        def validate_access_token(self, client, token, request):
            return token == TOKEN

        def validate_realms(self, client, token, request, uri=None, realms=None):
            return realms is None or request.realm is None or request.realm in ("photos", ["photos"])

        def get_client_secret(self, client, request):
            return CONSUMER_SECRET if client == CONSUMER else "dummy"

        def get_access_token_secret(self, client, token, request):
            return TOKEN_SECRET if token == TOKEN else "dummy"

        def get_rsa_key(self, client, request):
            return RSA_KEY

    legs3, legs2 = ResourceEndpoint(Validator()), SignatureOnlyEndpoint(Validator())

    def judge(method, url, body, headers):
        if "oauth_token=" in headers.get("Authorization", ""):
            return legs3.validate_protected_resource_request(url, method, body, headers, ["photos"])[0]
        return legs2.validate_request(url, method, body, headers)[0]

    return judge


def authlib_judge():
    from authlib.oauth1 import ResourceProtector
    from authlib.oauth1.rfc5849.errors import OAuth1Error

    class Client:
        def get_client_secret(self):
            return CONSUMER_SECRET

        def get_rsa_public_key(self):
            return RSA_KEY

    class Token:
        def get_oauth_token_secret(self):
            return TOKEN_SECRET

    class Protector(ResourceProtector):
        SUPPORTED_SIGNATURE_METHODS = ["HMAC-SHA1", "PLAINTEXT"]

        def get_client_by_id(self, client):
            return Client() if client == CONSUMER else None

        def get_token_credential(self, request):
            return Token() if request.token == TOKEN else None

        def exists_nonce(self, nonce, request):
            used = nonce in SEEN
            SEEN.add(nonce)
            return used

    protector = Protector()

    def judge(method, url, body, headers):
        # A list of pairs would lose names that stand there twice; the text does not.
        try:
            protector.validate_request(method, url, body or None, headers)
        except OAuth1Error:
            return False
        return True

    return judge


JUDGE = oauthlib_judge() if LIBRARY == "oauthlib" else authlib_judge()
HASHES = {"HMAC-SHA1": hashlib.sha1, "HMAC-SHA256": hashlib.sha256, "HMAC-SHA512": hashlib.sha512, "RSA-SHA256": hashlib.sha256}


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.title(): value for name, value in self.headers.items()}
        form = headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        try:
            good = JUDGE(self.command, f"http://{self.headers['Host']}{self.path}", body.decode() if form else "", headers)
        except Exception as error:
            print(repr(error), file=sys.stderr)
            good = False
        fields = dict(
            (name.strip(), urllib.parse.unquote(value.strip().strip('"')))
            for name, value in (part.split("=", 1) for part in headers.get("Authorization", "OAuth a=b")[6:].split(","))
        )
        if good and "oauth_body_hash" in fields:
            digest = HASHES[fields["oauth_signature_method"]](body).digest()
            good = fields["oauth_body_hash"] == base64.b64encode(digest).decode()
        text = json.dumps({"method": fields.get("oauth_signature_method"), "hash": fields.get("oauth_body_hash")}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_DELETE = answer


ThreadingHTTPServer(("127.0.0.1", PORT), Provider).serve_forever()
